// SPDX-License-Identifier: GPL-2.0
//! `JIT_CREATE_CODE`: what the new mapping holds, and what a fixed address
//! replaces.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use jitfd_plan::abi::{self, CreateCode};

use super::asm;
use super::calls;
use super::execute::{answers, breaks_at, faults};
use super::harness::{Test, is_stock_kernel, tests};
use super::memory::{self, Mapping, load};
use super::outcome::{Checked, OrFail, Outcome, equal, failed, holds, refused};
use super::process::in_child;
use super::sys::{self, PAGE};

pub fn tests() -> Vec<Test> {
    tests![
        holds_exactly_the_bytes,
        is_mapped_read_and_execute_only,
        has_no_page_behind_the_last,
        runs_after_the_handle_is_closed,
        is_a_copy,
        of_a_read_only_handle,
        many_from_one_handle,
        from_many_threads_on_one_handle,
        cannot_be_taken_by_another_thread,
        of_many_pages,
        copies_other_code,
        fill_behind_the_code_traps,
        child_runs_it,
        can_be_unmapped_in_parts,
        can_be_moved,
        cannot_be_made_writable,
        fixed_replaces_the_pages,
        fixed_clears_the_rest_of_the_last_page,
        fixed_leaves_the_neighbours,
        fixed_takes_its_source_from_the_range,
        fixed_takes_its_source_from_half_the_range,
        fixed_over_pages_of_any_protection,
        fixed_over_several_mappings,
        fixed_over_a_private_file_mapping,
        fixed_over_earlier_code,
        fixed_over_the_parents_code,
        fixed_over_sealed_memory_is_refused,
    ]
}

/// Creates code, or says why not.
fn create_on(device: &OwnedFd, code: &[u8]) -> Checked<Mapping> {
    let mut argument = CreateCode {
        source: code.as_ptr().addr() as u64,
        len: code.len() as u64,
        ..Default::default()
    };
    calls::create_code(device.as_raw_fd(), &mut argument).or_fail("JIT_CREATE_CODE")?;
    let len = code.len().next_multiple_of(PAGE);
    Ok(Mapping::adopt(argument.addr as usize, len))
}

/// Creates code with a handle of its own, which it closes.
pub fn create(code: &[u8]) -> Checked<Mapping> {
    create_on(&calls::open_device()?, code)
}

/// The code, and 0xCC up to the end of the last page.
fn padded(code: &[u8]) -> Vec<u8> {
    let mut page = code.to_vec();
    page.resize(code.len().next_multiple_of(PAGE), 0xcc);
    page
}

/// Bytes that are all alike nowhere.
fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|index| (index % 251) as u8 ^ (index / 251) as u8)
        .collect()
}

fn holds_exactly_the_bytes() -> Outcome {
    for len in [1, 2, 100, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE - 7, 5 * PAGE] {
        let code = pattern(len);
        let map = create(&code)?;
        let what = format!("{len} bytes");
        equal(&what, load(map.addr(), map.len()), padded(&code))?;
    }
    Ok(())
}

fn is_mapped_read_and_execute_only() -> Outcome {
    let map = create(&pattern(2 * PAGE))?;
    let lines = memory::jit_mappings()?;
    equal("mappings", lines.len(), 1)?;
    let range = format!("{:x}-{:x} r-xs ", map.addr(), map.addr() + map.len());
    holds(
        lines[0].starts_with(&range),
        format!("{lines:?} is {range}"),
    )
}

fn has_no_page_behind_the_last() -> Outcome {
    let map = create(&pattern(PAGE))?;
    let result = sys::mremap(map.addr(), PAGE, 2 * PAGE, libc::MREMAP_MAYMOVE, 0);
    refused("mremap to more", result, libc::EFAULT)
}

fn runs_after_the_handle_is_closed() -> Outcome {
    let map = create(&asm::answer(42))?;
    answers("the code", map.addr(), 42)
}

fn is_a_copy() -> Outcome {
    let mut source = asm::answer(1);
    let map = create(&source)?;
    source.fill(0xf4);
    answers("the code", map.addr(), 1)
}

fn of_a_read_only_handle() -> Outcome {
    let device = sys::open(c"/dev/jit", libc::O_RDONLY).or_fail("open /dev/jit")?;
    let map = create_on(&device, &asm::answer(1))?;
    answers("the code", map.addr(), 1)
}

fn many_from_one_handle() -> Outcome {
    let device = calls::open_device()?;
    let codes: Vec<Mapping> = (0..500)
        .map(|value| create_on(&device, &asm::answer(value)))
        .collect::<Checked<_>>()?;
    for (value, map) in (0..).zip(&codes) {
        answers("one of many", map.addr(), value)?;
    }
    Ok(())
}

fn from_many_threads_on_one_handle() -> Outcome {
    let device = calls::open_device()?;
    let work = |thread: u32| -> Outcome {
        for value in 0..50 {
            let value = thread * 1000 + value;
            let pages = 1 + value as usize % 3;
            let map = create_on(&device, &asm::long_answer(value, pages * PAGE))?;
            answers("a thread's code", map.addr(), value)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..4).map(|id| scope.spawn(move || work(id))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| failed("panicked")))
    })
}

/// Created code is mapped at an offset that userspace can guess. An mmap() of
/// another thread at that offset, at that moment, must not get it. Tried until both
/// threads have done so often enough, which a kernel with checks is slow at.
fn cannot_be_taken_by_another_thread() -> Outcome {
    let device = calls::open_device()?;
    let often = if is_stock_kernel() { 3000 } else { 200 };
    let (page, tries) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let stop = AtomicBool::new(false);
    let take = || {
        tries.fetch_add(1, Relaxed);
        let offset = abi::MAX_REGION as usize + page.load(Relaxed) * PAGE;
        Mapping::of_file(device.as_raw_fd(), PAGE, sys::RX, offset).is_ok()
    };
    thread::scope(|scope| {
        let thief = scope.spawn(|| {
            let mut taken = 0;
            while !stop.load(Relaxed) {
                taken += usize::from(take());
            }
            taken
        });
        let mut outcome = Ok(());
        let enough = || page.load(Relaxed) >= often && tries.load(Relaxed) >= often;
        while outcome.is_ok() && !enough() {
            outcome = create_on(&device, &[0xc3]).map(|_| ());
            page.fetch_add(1, Relaxed);
        }
        stop.store(true, Relaxed);
        let taken = thief.join().ok().or_fail("the thread panicked")?;
        equal("mappings that were taken", taken, 0)?;
        outcome
    })
}

fn of_many_pages() -> Outcome {
    let code = asm::long_answer(7, 8 << 20);
    let map = create(&code)?;
    answers("the code", map.addr(), 7)?;
    equal("all bytes", load(map.addr(), map.len()) == code, true)
}

/// The source is a mapping of code itself.
fn copies_other_code() -> Outcome {
    let first = create(&asm::answer(5))?;
    let code = load(first.addr(), PAGE);
    let device = calls::open_device()?;
    let mut argument = CreateCode {
        source: first.addr() as u64,
        len: PAGE as u64,
        ..Default::default()
    };
    calls::create_code(device.as_raw_fd(), &mut argument).or_fail("JIT_CREATE_CODE")?;
    let second = Mapping::adopt(argument.addr as usize, PAGE);
    equal("the copy", load(second.addr(), PAGE), code)?;
    answers("the copy", second.addr(), 5)
}

fn fill_behind_the_code_traps() -> Outcome {
    let map = create(&asm::answer(1))?;
    breaks_at("the byte behind", map.addr() + 6, map.addr() + 7)?;
    let last = map.addr() + PAGE - 1;
    breaks_at("the last byte", last, last + 1)
}

fn child_runs_it() -> Outcome {
    let map = create(&asm::answer(9))?;
    in_child(|| answers("in the child", map.addr(), 9))?;
    answers("in the parent", map.addr(), 9)
}

fn can_be_unmapped_in_parts() -> Outcome {
    let map = create(&asm::long_answer(1, 3 * PAGE))?;
    sys::munmap(map.addr() + PAGE, PAGE).or_fail("munmap the second page")?;
    let code = padded(&asm::long_answer(1, 3 * PAGE));
    equal(
        "the first page",
        &load(map.addr(), PAGE),
        &code[..PAGE].to_vec(),
    )?;
    let third = map.addr() + 2 * PAGE;
    answers("the third page", third, 1)?;
    faults("the second page", map.addr() + PAGE, libc::SIGSEGV)
}

fn can_be_moved() -> Outcome {
    let code = asm::long_answer(1, 2 * PAGE);
    let map = create(&code)?;
    let target = Mapping::anonymous(2)?;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    sys::mremap(map.addr(), 2 * PAGE, 2 * PAGE, flags, target.addr()).or_fail("mremap")?;
    equal("the bytes", load(target.addr(), 2 * PAGE), code)?;
    answers("the code", target.addr(), 1)
}

fn cannot_be_made_writable() -> Outcome {
    let map = create(&asm::answer(1))?;
    for prot in [sys::RW, sys::RW | libc::PROT_EXEC, libc::PROT_WRITE] {
        refused(
            "mprotect",
            sys::mprotect(map.addr(), PAGE, prot),
            libc::EACCES,
        )?;
    }
    answers("the code", map.addr(), 1)
}

/// Replaces what is at `addr` with code.
fn create_at(addr: usize, source: usize, len: usize) -> std::io::Result<()> {
    let device = calls::open_device().map_err(|_| std::io::ErrorKind::NotFound)?;
    let mut argument = CreateCode {
        source: source as u64,
        len: len as u64,
        addr: addr as u64,
        flags: abi::CREATE_CODE_FIXED,
        ..Default::default()
    };
    calls::create_code(device.as_raw_fd(), &mut argument)?;
    Ok(())
}

fn replace(addr: usize, code: &[u8]) -> Outcome {
    create_at(addr, code.as_ptr().addr(), code.len()).or_fail("JIT_CREATE_CODE, fixed")
}

fn fixed_replaces_the_pages() -> Outcome {
    let pages = Mapping::anonymous(2)?;
    pages.write(0, &pattern(2 * PAGE));
    let code = asm::long_answer(3, PAGE + 100);
    replace(pages.addr(), &code)?;
    equal("the bytes", load(pages.addr(), 2 * PAGE), padded(&code))?;
    answers("the code", pages.addr(), 3)?;
    let result = sys::mprotect(pages.addr(), PAGE, sys::RW);
    refused("mprotect", result, libc::EACCES)
}

fn fixed_clears_the_rest_of_the_last_page() -> Outcome {
    let pages = Mapping::anonymous(1)?;
    pages.write(0, &[0x90; PAGE]);
    replace(pages.addr(), &[0xc3])?;
    equal("the page", load(pages.addr(), PAGE), padded(&[0xc3]))
}

fn fixed_leaves_the_neighbours() -> Outcome {
    let pages = Mapping::anonymous(3)?;
    pages.write(0, &pattern(3 * PAGE));
    replace(pages.addr() + PAGE, &asm::answer(4))?;
    answers("the code", pages.addr() + PAGE, 4)?;
    let all = pattern(3 * PAGE);
    equal(
        "the page before",
        &load(pages.addr(), PAGE),
        &all[..PAGE].to_vec(),
    )?;
    let after = load(pages.addr() + 2 * PAGE, PAGE);
    equal("the page behind", &after, &all[2 * PAGE..].to_vec())?;
    pages.write(0, b"writable");
    pages.write(2 * PAGE, b"writable");
    Ok(())
}

fn fixed_takes_its_source_from_the_range() -> Outcome {
    let pages = Mapping::anonymous(3)?;
    let code = asm::long_answer(5, 2 * PAGE + 10);
    pages.write(0, &code);
    create_at(pages.addr(), pages.addr(), code.len()).or_fail("JIT_CREATE_CODE in place")?;
    equal("the bytes", load(pages.addr(), 3 * PAGE), padded(&code))?;
    answers("the code", pages.addr(), 5)
}

fn fixed_takes_its_source_from_half_the_range() -> Outcome {
    let pages = Mapping::anonymous(4)?;
    let code = asm::long_answer(6, 2 * PAGE);
    pages.write(PAGE + 123, &code);
    create_at(pages.addr(), pages.addr() + PAGE + 123, code.len())
        .or_fail("JIT_CREATE_CODE over its source")?;
    equal("the bytes", load(pages.addr(), 2 * PAGE), code)?;
    answers("the code", pages.addr(), 6)
}

fn fixed_over_pages_of_any_protection() -> Outcome {
    for prot in [libc::PROT_NONE, libc::PROT_READ, sys::RX, sys::RW] {
        let pages = Mapping::anonymous(1)?;
        sys::mprotect(pages.addr(), PAGE, prot).or_fail("mprotect")?;
        replace(pages.addr(), &asm::answer(8))?;
        answers("the code", pages.addr(), 8)?;
    }
    Ok(())
}

fn fixed_over_several_mappings() -> Outcome {
    let pages = Mapping::anonymous(4)?;
    sys::mprotect(pages.addr() + PAGE, PAGE, libc::PROT_READ).or_fail("mprotect")?;
    sys::mprotect(pages.addr() + 2 * PAGE, PAGE, libc::PROT_NONE).or_fail("mprotect")?;
    let code = asm::long_answer(8, 4 * PAGE);
    replace(pages.addr(), &code)?;
    equal("mappings of code", memory::jit_mappings()?.len(), 1)?;
    answers("the code", pages.addr(), 8)
}

/// What an engine maps from a file and relocates in place. The file stays as it is.
fn fixed_over_a_private_file_mapping() -> Outcome {
    let file = sys::memfd(2 * PAGE).or_fail("memfd")?;
    let flags = libc::MAP_PRIVATE;
    let addr = sys::mmap(0, 2 * PAGE, sys::RW, flags, file.as_raw_fd(), 0).or_fail("mmap")?;
    let map = Mapping::adopt(addr, 2 * PAGE);
    let code = asm::long_answer(4, 2 * PAGE);
    map.write(0, &code);
    create_at(addr, addr, code.len()).or_fail("JIT_CREATE_CODE in place")?;
    equal("the bytes", load(addr, 2 * PAGE), code)?;
    answers("the code", addr, 4)?;
    let mut left = [0xff; 8];
    file.read_exact_at(&mut left, 0).or_fail("pread")?;
    equal("the file", left, [0; 8])
}

/// An engine that makes its memory executable time after time.
fn fixed_over_earlier_code() -> Outcome {
    let pages = Mapping::anonymous(3)?;
    replace(pages.addr() + PAGE, &asm::answer(1))?;
    let code = asm::long_answer(2, 3 * PAGE);
    replace(pages.addr(), &code)?;
    answers("the code", pages.addr(), 2)?;
    create_at(pages.addr(), pages.addr(), code.len()).or_fail("the same once more")?;
    answers("the code", pages.addr(), 2)?;
    equal("mappings of code", memory::jit_mappings()?.len(), 1)
}

/// A child has a copy of its parent's code, which it may replace: the parent's stays.
fn fixed_over_the_parents_code() -> Outcome {
    let pages = Mapping::anonymous(1)?;
    replace(pages.addr(), &asm::answer(1))?;
    in_child(|| {
        replace(pages.addr(), &asm::answer(2))?;
        answers("the child's", pages.addr(), 2)
    })?;
    answers("the parent's", pages.addr(), 1)
}

const SYS_MSEAL: i64 = 462;

/// Sealed memory may be replaced by nobody.
fn fixed_over_sealed_memory_is_refused() -> Outcome {
    let pages = Mapping::anonymous(2)?;
    pages.write(0, b"left");
    let addr = pages.addr();
    sys::syscall(SYS_MSEAL, [addr + PAGE, PAGE, 0, 0, 0, 0]).or_fail("mseal")?;
    let code = asm::long_answer(1, 2 * PAGE);
    let before = memory::all_mappings()?;
    let result = create_at(addr, code.as_ptr().addr(), code.len());
    refused("sealed memory", result, libc::EPERM)?;
    equal("the mappings", memory::all_mappings()?, before)?;
    equal("the memory", load(addr, 4), b"left".to_vec())
}
