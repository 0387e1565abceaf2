// SPDX-License-Identifier: GPL-2.0
//! Calls on the wrong handle: unknown numbers, closed and foreign descriptors,
//! and reads and writes of the handles themselves.

use std::os::fd::{AsRawFd, RawFd};

use jitfd_plan::abi;

use super::bad;
use super::calls;
use super::harness::{Test, tests};
use super::memory::{Mapping, load};
use super::outcome::{OrFail, Outcome, equal, holds, refused};
use super::region::Region;
use super::sys;

pub fn tests() -> Vec<Test> {
    tests![
        unknown_numbers,
        numbers_of_another_size,
        calls_of_the_other_handle,
        closed_descriptors,
        foreign_descriptors,
        append_handle_outlives_the_device_handle,
        handles_are_close_on_exec,
        handles_cannot_be_read_or_written,
        calls_before_create_find_no_region,
        bytes_behind_the_argument_are_left_alone,
    ]
}

const ALL: [u32; 8] = [
    abi::JIT_CREATE_CODE,
    abi::JIT_CREATE,
    abi::JIT_APPEND,
    abi::JIT_RESERVE,
    abi::JIT_FILL,
    abi::JIT_SEAL,
    abi::JIT_STATS,
    abi::JIT_CLONE,
];

fn each_refused(fd: RawFd, requests: &[u32], errno: i32) -> Outcome {
    for request in requests {
        let what = format!("ioctl {request:#x}");
        refused(&what, sys::ioctl(fd, *request, 0), errno)?;
    }
    Ok(())
}

/// Fails unless both handles of a region refuse `requests`, unchanged.
fn both_refuse(requests: &[u32]) -> Outcome {
    let region = Region::new(1)?;
    region.append(&[0xc3])?;
    region.unchanged_by(|| {
        each_refused(region.fd(), requests, libc::ENOTTY)?;
        each_refused(region.device.as_raw_fd(), requests, libc::ENOTTY)
    })
}

fn unknown_numbers() -> Outcome {
    let number = |number: u32| (abi::JIT_SEAL & !0xff) | number;
    let unknown: Vec<u32> = (0..=0xff)
        .filter(|candidate| !(0x20..=0x27).contains(candidate))
        .map(number)
        .chain([0, u32::MAX, 0x7fff_ffff, 0x8000_0000])
        .collect();
    both_refuse(&unknown)
}

fn numbers_of_another_size() -> Outcome {
    let others: Vec<u32> = ALL
        .iter()
        .flat_map(|request| {
            let size_bit = 1 << 16;
            [request ^ size_bit, request ^ (1 << 30), request ^ (1 << 31)]
        })
        .collect();
    both_refuse(&others)
}

fn calls_of_the_other_handle() -> Outcome {
    let region = Region::new(1)?;
    let of_append = [
        abi::JIT_APPEND,
        abi::JIT_RESERVE,
        abi::JIT_FILL,
        abi::JIT_SEAL,
    ];
    let of_device = [abi::JIT_CREATE_CODE, abi::JIT_CREATE, abi::JIT_CLONE];
    region.unchanged_by(|| {
        each_refused(region.device.as_raw_fd(), &of_append, libc::ENOTTY)?;
        each_refused(region.fd(), &of_device, libc::ENOTTY)
    })
}

fn closed_descriptors() -> Outcome {
    let closed = bad::closed_descriptor()?;
    each_refused(closed, &ALL, libc::EBADF)?;
    each_refused(-1, &ALL, libc::EBADF)?;
    let map = Mapping::of_file(closed, sys::PAGE, sys::RX, 0);
    refused("mmap", map, libc::EBADF)
}

fn foreign_descriptors() -> Outcome {
    for (_, fd) in bad::foreign_descriptors()? {
        each_refused(fd.as_raw_fd(), &ALL, libc::ENOTTY)?;
    }
    Ok(())
}

fn append_handle_outlives_the_device_handle() -> Outcome {
    let Region {
        device,
        append,
        map,
    } = Region::new(1)?;
    drop((device, map));
    let fd = append.as_raw_fd();
    calls::append(fd, &[0xc3]).or_fail("JIT_APPEND without a mapping")?;
    let stats = calls::stats(fd).or_fail("JIT_STATS")?;
    holds(stats.cursor == 1, "the cursor is behind the byte")
}

fn handles_are_close_on_exec() -> Outcome {
    let region = Region::new(1)?;
    // SAFETY: no memory is concerned.
    let flags = unsafe { libc::fcntl(region.fd(), libc::F_GETFD) };
    holds(
        flags == libc::FD_CLOEXEC,
        "the append handle has FD_CLOEXEC",
    )
}

fn handles_cannot_be_read_or_written() -> Outcome {
    let region = Region::new(1)?;
    region.append(&[0xc3])?;
    let page = Mapping::anonymous(1)?;
    region.unchanged_by(|| {
        for fd in [region.fd(), region.device.as_raw_fd()] {
            refused("read", sys::read_to(fd, page.addr(), 8), libc::EINVAL)?;
            refused("write", sys::write_from(fd, page.addr(), 8), libc::EINVAL)?;
            // SAFETY: no memory is concerned.
            let size = unsafe { libc::ftruncate(fd, 4096) };
            let result = sys::check(i64::from(size));
            refused("ftruncate", result, libc::EINVAL)?;
        }
        Ok(())
    })
}

fn calls_before_create_find_no_region() -> Outcome {
    let device = calls::open_device()?;
    let fd = device.as_raw_fd();
    refused("JIT_STATS", calls::stats(fd), libc::ENODATA)?;
    let map = Mapping::of_file(fd, sys::PAGE, sys::RX, 0);
    refused("mmap", map, libc::ENODATA)
}

/// The kernel writes `JIT_STATS` results of exactly the size it says.
fn bytes_behind_the_argument_are_left_alone() -> Outcome {
    let region = Region::new(1)?;
    let page = Mapping::anonymous(1)?;
    let size = size_of::<abi::Stats>();
    page.write(0, &vec![0x77; size + 64]);
    sys::ioctl(region.fd(), abi::JIT_STATS, page.addr()).or_fail("JIT_STATS")?;
    let behind = load(page.addr() + size, 64);
    equal("the bytes behind the result", behind, vec![0x77; 64])
}
