// SPDX-License-Identifier: GPL-2.0
//! `JIT_CREATE_CODE`: each errno, and that no mapping has changed after a
//! refusal.

use std::os::fd::{AsRawFd, OwnedFd};

use jitfd_plan::abi::{self, CreateCode};

use super::asm;
use super::bad;
use super::calls;
use super::harness::{Test, tests};
use super::memory::{self, Mapping, load};
use super::outcome::{Checked, OrFail, Outcome, equal, refused};
use super::region::Region;
use super::sys::{self, PAGE};

pub fn tests() -> Vec<Test> {
    tests![
        refuses_bad_lengths,
        refuses_bad_sources,
        refuses_a_half_mapped_source,
        refuses_a_source_that_overflows,
        refuses_each_unknown_flag,
        refuses_each_reserved_word,
        refuses_bad_argument_addresses,
        refuses_a_result_that_cannot_be_written,
        refuses_an_address_without_the_flag,
        refuses_bad_fixed_addresses,
        refuses_unmapped_ranges,
        refuses_partly_unmapped_ranges,
        refuses_shared_memory,
        refuses_shared_file_mappings,
        refuses_the_vdso,
        refuses_mappings_of_code,
        refuses_a_range_that_ends_in_another_kind,
        refuses_a_bad_source_for_a_fixed_address,
        refuses_beyond_the_address_space_limit,
        refuses_a_region,
        refuses_a_write_only_handle,
        refuses_where_devices_are_not_executable,
        makes_the_handle_no_region,
    ]
}

/// A good argument for `code`.
fn good(code: &[u8]) -> CreateCode {
    CreateCode {
        source: code.as_ptr().addr() as u64,
        len: code.len() as u64,
        ..Default::default()
    }
}

/// Fails unless the call refuses `argument` and leaves all mappings alone.
fn refuse_on(device: &OwnedFd, what: &str, mut argument: CreateCode, errno: i32) -> Outcome {
    let before = memory::all_mappings()?;
    let given = argument.addr;
    let result = calls::create_code(device.as_raw_fd(), &mut argument);
    refused(what, result, errno)?;
    equal("the address in the argument", argument.addr, given)?;
    equal("the mappings afterwards", memory::all_mappings()?, before)
}

fn refuse(what: &str, argument: CreateCode, errno: i32) -> Outcome {
    refuse_on(&calls::open_device()?, what, argument, errno)
}

fn refuses_bad_lengths() -> Outcome {
    let code = asm::answer(1);
    for len in [0, abi::MAX_CODE + 1, u64::MAX, 1 << 63] {
        refuse("a length", CreateCode { len, ..good(&code) }, libc::EINVAL)?;
    }
    Ok(())
}

fn refuses_bad_sources() -> Outcome {
    for (what, source) in bad::ADDRESSES {
        for len in [1, PAGE as u64, 5 * PAGE as u64, abi::MAX_CODE] {
            let argument = CreateCode {
                source,
                len,
                ..Default::default()
            };
            refuse(what, argument, libc::EFAULT)?;
        }
    }
    Ok(())
}

fn refuses_a_half_mapped_source() -> Outcome {
    let (_page, addr) = Mapping::cliff(100)?;
    let argument = CreateCode {
        source: addr as u64,
        len: 3 * PAGE as u64,
        ..Default::default()
    };
    refuse("a source cut in half", argument, libc::EFAULT)
}

fn refuses_a_source_that_overflows() -> Outcome {
    let argument = CreateCode {
        source: u64::MAX - 2,
        len: 16,
        ..Default::default()
    };
    refuse("a source that overflows", argument, libc::EINVAL)
}

fn refuses_each_unknown_flag() -> Outcome {
    let code = asm::answer(1);
    bad::each_unknown_flag(abi::CREATE_CODE_FIXED, |flags| {
        let argument = CreateCode {
            flags,
            ..good(&code)
        };
        refuse("an unknown flag", argument, libc::EINVAL)
    })
}

fn refuses_each_reserved_word() -> Outcome {
    let code = asm::answer(1);
    for word in 0..5 {
        let mut argument = good(&code);
        argument.reserved[word] = 1;
        refuse("a reserved word", argument, libc::EINVAL)?;
    }
    Ok(())
}

fn refuses_bad_argument_addresses() -> Outcome {
    let device = calls::open_device()?;
    let code = asm::answer(1);
    let request = abi::JIT_CREATE_CODE;
    bad::argument_addresses(device.as_raw_fd(), request, &good(&code))?;
    equal("code mappings", memory::jit_mappings()?, Vec::new())
}

/// The address can't be told, so the mapping must not stay.
fn refuses_a_result_that_cannot_be_written() -> Outcome {
    let device = calls::open_device()?;
    let code = asm::long_answer(1, 3 * PAGE);
    let page = Mapping::anonymous(1)?;
    page.put(&good(&code));
    sys::mprotect(page.addr(), PAGE, libc::PROT_READ).or_fail("mprotect")?;
    let before = memory::all_mappings()?;
    let result = sys::ioctl(device.as_raw_fd(), abi::JIT_CREATE_CODE, page.addr());
    refused("a read-only argument", result, libc::EFAULT)?;
    equal("the mappings afterwards", memory::all_mappings()?, before)
}

fn refuses_an_address_without_the_flag() -> Outcome {
    let code = asm::answer(1);
    let pages = Mapping::anonymous(1)?;
    let argument = CreateCode {
        addr: pages.addr() as u64,
        ..good(&code)
    };
    refuse("an address without the flag", argument, libc::EINVAL)
}

/// Fails unless the code is refused at the fixed address `addr`.
fn refuse_at(what: &str, addr: u64, len: usize) -> Outcome {
    let code = asm::long_answer(1, len);
    let argument = CreateCode {
        addr,
        flags: abi::CREATE_CODE_FIXED,
        ..good(&code)
    };
    refuse(what, argument, libc::EINVAL)
}

fn refuses_bad_fixed_addresses() -> Outcome {
    let pages = Mapping::anonymous(2)?;
    let page = pages.addr() as u64;
    let addresses = [
        ("no address", 0),
        ("a misaligned address", page + 1),
        ("a misaligned address", page + PAGE as u64 / 2),
        ("the last page", !(PAGE as u64 - 1)),
        ("a kernel address", bad::KERNEL),
        ("a non-canonical address", bad::NOT_CANONICAL),
        ("beyond the program's addresses", 0x7fff_ffff_f000),
        ("page zero's neighbour", PAGE as u64),
    ];
    for (what, addr) in addresses {
        refuse_at(what, addr, 100)?;
    }
    Ok(())
}

fn refuses_unmapped_ranges() -> Outcome {
    let pages = Mapping::anonymous(2)?;
    let addr = pages.addr();
    sys::munmap(addr, 2 * PAGE).or_fail("munmap")?;
    refuse_at("an unmapped range", addr as u64, 2 * PAGE)
}

fn refuses_partly_unmapped_ranges() -> Outcome {
    for hole in 0..3 {
        let pages = Mapping::anonymous(3)?;
        pages.write(((hole + 1) % 3) * PAGE, b"left");
        sys::munmap(pages.addr() + hole * PAGE, PAGE).or_fail("munmap")?;
        refuse_at("a range with a hole", pages.addr() as u64, 3 * PAGE)?;
        let left = load(pages.addr() + ((hole + 1) % 3) * PAGE, 4);
        equal("what is left", left, b"left".to_vec())?;
    }
    Ok(())
}

fn refuses_shared_memory() -> Outcome {
    let pages = Mapping::shared(2)?;
    pages.write(0, b"left");
    refuse_at("shared memory", pages.addr() as u64, PAGE)?;
    equal("the memory", load(pages.addr(), 4), b"left".to_vec())
}

fn refuses_shared_file_mappings() -> Outcome {
    let file = sys::memfd(PAGE).or_fail("memfd")?;
    // The kernel forgets that a mapping is shared where it can't be made writable.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let read_only = std::fs::File::open(path).or_fail("open")?;
    for (fd, prot) in [(&file, sys::RW), (&read_only, libc::PROT_READ)] {
        let addr = sys::mmap(0, PAGE, prot, libc::MAP_SHARED, fd.as_raw_fd(), 0).or_fail("mmap")?;
        let map = Mapping::adopt(addr, PAGE);
        let before = load(map.addr(), 4);
        refuse_at("a file's page", addr as u64, PAGE)?;
        equal("the memory", load(addr, 4), before)?;
    }
    Ok(())
}

/// The kernel's own page, of which it knows where it is.
fn refuses_the_vdso() -> Outcome {
    let maps = std::fs::read_to_string("/proc/self/maps").or_fail("maps")?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]"));
    let (start, _) = line
        .and_then(|line| line.split_once('-'))
        .or_fail("no vdso")?;
    let addr = u64::from_str_radix(start, 16).ok().or_fail("an address")?;
    refuse_at("the vdso", addr, PAGE)
}

fn refuses_mappings_of_code() -> Outcome {
    let region = Region::new(2)?;
    let offset = region.append(&asm::answer(3))?;
    region.unchanged_by(|| refuse_at("a region", region.at(0) as u64, PAGE))?;
    region.answers(offset, 3)
}

fn refuses_a_range_that_ends_in_another_kind() -> Outcome {
    let pages = Mapping::anonymous(3)?;
    pages.write(0, b"left");
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    sys::mmap(pages.addr() + 2 * PAGE, PAGE, sys::RW, flags, -1, 0).or_fail("mmap")?;
    refuse_at("a range of two kinds", pages.addr() as u64, 2 * PAGE + 1)?;
    equal("the memory", load(pages.addr(), 4), b"left".to_vec())
}

fn refuses_a_bad_source_for_a_fixed_address() -> Outcome {
    let pages = Mapping::anonymous(2)?;
    pages.write(0, b"left");
    let (_cliff, source) = Mapping::cliff(64)?;
    let argument = CreateCode {
        source: source as u64,
        len: 128,
        addr: pages.addr() as u64,
        flags: abi::CREATE_CODE_FIXED,
        ..Default::default()
    };
    refuse("a bad source", argument, libc::EFAULT)?;
    equal("the memory", load(pages.addr(), 4), b"left".to_vec())
}

fn refuses_beyond_the_address_space_limit() -> Outcome {
    let device = calls::open_device()?;
    let code = vec![0xc3; 64 * PAGE];
    let before = sys::set_limit(libc::RLIMIT_AS, 4096).or_fail("setrlimit")?;
    let mut argument = good(&code);
    let result = calls::create_code(device.as_raw_fd(), &mut argument);
    sys::set_limit(libc::RLIMIT_AS, before).or_fail("setrlimit")?;
    refused("no room for the mapping", result, libc::ENOMEM)?;
    equal("code mappings", memory::jit_mappings()?, Vec::new())?;
    create(&device, &code).map(|_| ())
}

/// The right to map a region is no right to make code.
fn refuses_a_region() -> Outcome {
    let region = Region::new(1)?;
    region.append(&asm::answer(3))?;
    let code = asm::answer(1);
    region.unchanged_by(|| refuse_on(&region.device, "a region", good(&code), libc::EBUSY))?;
    region.answers(0, 3)
}

fn refuses_a_write_only_handle() -> Outcome {
    let device = sys::open(c"/dev/jit", libc::O_WRONLY).or_fail("open /dev/jit")?;
    let code = asm::answer(1);
    refuse_on(&device, "not open for reading", good(&code), libc::EACCES)
}

/// In a mount namespace of its own, /dev does not allow execution.
fn refuses_where_devices_are_not_executable() -> Outcome {
    bad::forbid_execution_in_dev()?;
    let device = calls::open_device()?;
    let code = asm::answer(1);
    refuse_on(&device, "/dev is noexec", good(&code), libc::EPERM)
}

fn create(device: &OwnedFd, code: &[u8]) -> Checked<Mapping> {
    let mut argument = good(code);
    calls::create_code(device.as_raw_fd(), &mut argument).or_fail("JIT_CREATE_CODE")?;
    let len = code.len().next_multiple_of(PAGE);
    Ok(Mapping::adopt(argument.addr as usize, len))
}

/// A handle that has created code is no region, and the code can't be mapped
/// a second time.
fn makes_the_handle_no_region() -> Outcome {
    let device = calls::open_device()?;
    let _code = create(&device, &asm::answer(1))?;
    let fd = device.as_raw_fd();
    refused("JIT_STATS", calls::stats(fd), libc::ENODATA)?;
    for offset in [0, abi::MAX_REGION as usize, abi::MAX_REGION as usize + PAGE] {
        let map = Mapping::of_file(fd, PAGE, sys::RX, offset);
        refused("mmap", map, libc::ENODATA)?;
    }
    Ok(())
}
