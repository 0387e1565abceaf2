// SPDX-License-Identifier: GPL-2.0
//! mmap() of a region: each errno.

use std::os::fd::AsRawFd;

use jitfd_plan::abi;

use super::bad;
use super::calls;
use super::harness::{Test, tests};
use super::memory::Mapping;
use super::outcome::{OrFail, Outcome, refused};
use super::region::Region;
use super::sys::{self, PAGE, RX};

pub fn tests() -> Vec<Test> {
    tests![
        refuses_more_than_the_region,
        refuses_offsets_beyond_the_region,
        refuses_the_offsets_of_created_code,
        refuses_private_mappings,
        refuses_writable_mappings,
        refuses_writable_mappings_of_a_read_only_handle,
        refuses_a_write_only_handle,
        refuses_the_append_handle,
        refuses_where_devices_are_not_executable,
        refuses_what_no_device_can,
    ]
}

/// Fails unless mmap() refuses this with `errno` and nothing changes.
fn refuse(len: usize, prot: i32, flags: i32, offset: usize, errno: i32) -> Outcome {
    let region = Region::new(2)?;
    region.append(&[0xc3])?;
    region.unchanged_by(|| {
        let fd = region.device.as_raw_fd();
        let result = sys::mmap(0, len, prot, flags, fd, offset);
        let what = format!("mmap of {len:#x} at {offset:#x}, {prot} {flags:#x}");
        refused(&what, result, errno)
    })
}

fn refuses_more_than_the_region() -> Outcome {
    let shared = libc::MAP_SHARED;
    refuse(3 * PAGE, RX, shared, 0, libc::EINVAL)?;
    refuse(2 * PAGE, RX, shared, PAGE, libc::EINVAL)?;
    refuse(PAGE, RX, shared, 2 * PAGE, libc::EINVAL)?;
    refuse(abi::MAX_REGION as usize, RX, shared, 0, libc::EINVAL)
}

fn refuses_offsets_beyond_the_region() -> Outcome {
    let shared = libc::MAP_SHARED;
    for offset in [1 << 32, 1 << 52, 1 << 62] {
        refuse(PAGE, RX, shared, offset, libc::EINVAL)?;
    }
    // The kernel itself refuses a range of a file whose end is no 64-bit
    // number, and one page before that is the module's turn.
    let last = usize::MAX & !(PAGE - 1);
    refuse(PAGE, RX, shared, last, libc::EOVERFLOW)?;
    refuse(PAGE, RX, shared, last - PAGE, libc::EINVAL)
}

fn refuses_the_offsets_of_created_code() -> Outcome {
    let offset = abi::MAX_REGION as usize;
    refuse(PAGE, RX, libc::MAP_SHARED, offset, libc::EINVAL)
}

fn refuses_private_mappings() -> Outcome {
    for prot in [RX, libc::PROT_READ, libc::PROT_NONE, sys::RW] {
        refuse(PAGE, prot, libc::MAP_PRIVATE, 0, libc::EINVAL)?;
    }
    Ok(())
}

fn refuses_writable_mappings() -> Outcome {
    for more in [0, libc::PROT_READ, RX, libc::PROT_EXEC] {
        let prot = libc::PROT_WRITE | more;
        refuse(PAGE, prot, libc::MAP_SHARED, 0, libc::EACCES)?;
    }
    Ok(())
}

/// Makes a region of a handle opened with `mode`, and tries to map it.
fn with_mode(mode: i32, prot: i32, errno: i32) -> Outcome {
    let device = sys::open(c"/dev/jit", mode).or_fail("open /dev/jit")?;
    let argument = abi::Create {
        size: PAGE as u64,
        ..Default::default()
    };
    let _append = calls::create(device.as_raw_fd(), &argument).or_fail("JIT_CREATE")?;
    let map = Mapping::of_file(device.as_raw_fd(), PAGE, prot, 0);
    refused("mmap", map, errno)
}

fn refuses_writable_mappings_of_a_read_only_handle() -> Outcome {
    with_mode(libc::O_RDONLY, sys::RW, libc::EACCES)?;
    with_mode(libc::O_RDONLY, sys::RW | libc::PROT_EXEC, libc::EACCES)
}

fn refuses_a_write_only_handle() -> Outcome {
    with_mode(libc::O_WRONLY, RX, libc::EACCES)
}

fn refuses_the_append_handle() -> Outcome {
    let region = Region::new(1)?;
    region.append(&[0xc3])?;
    region.unchanged_by(|| {
        let map = Mapping::of_file(region.fd(), PAGE, libc::PROT_READ, 0);
        refused("mmap", map, libc::ENODEV)?;
        let map = Mapping::of_file(region.fd(), PAGE, RX, 0);
        refused("mmap, executable", map, libc::EPERM)
    })
}

/// In a mount namespace of its own, /dev does not allow execution.
fn refuses_where_devices_are_not_executable() -> Outcome {
    bad::forbid_execution_in_dev()?;
    let device = calls::open_device()?;
    let argument = abi::Create {
        size: PAGE as u64,
        ..Default::default()
    };
    let _append = calls::create(device.as_raw_fd(), &argument).or_fail("JIT_CREATE")?;
    let map = Mapping::of_file(device.as_raw_fd(), PAGE, RX, 0);
    refused("mmap, executable", map, libc::EPERM)?;
    let map = Mapping::of_file(device.as_raw_fd(), PAGE, libc::PROT_READ, 0);
    let map = map.or_fail("mmap, readable")?;
    let result = sys::mprotect(map.addr(), PAGE, RX);
    refused("mprotect to executable", result, libc::EACCES)
}

/// Flags that the kernel refuses by itself, before the module is asked.
fn refuses_what_no_device_can() -> Outcome {
    let shared = libc::MAP_SHARED;
    refuse(PAGE, RX, shared | libc::MAP_GROWSDOWN, 0, libc::EINVAL)?;
    refuse(PAGE, RX, shared | libc::MAP_HUGETLB, 0, libc::EINVAL)?;
    let sync = libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC;
    refuse(PAGE, RX, sync, 0, libc::EOPNOTSUPP)
}
