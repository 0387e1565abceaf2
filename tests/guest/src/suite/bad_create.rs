// SPDX-License-Identifier: GPL-2.0
//! `JIT_CREATE` and `JIT_CLONE`: each errno, and that the handle is no region
//! after a refusal.

use std::os::fd::{AsRawFd, OwnedFd};

use jitfd_plan::abi::{self, CloneFrom, Create};

use super::bad;
use super::calls;
use super::harness::{Test, tests};
use super::memory::Mapping;
use super::outcome::{OrFail, Outcome, equal, refused};
use super::region::Region;
use super::sys::{self, PAGE};

pub fn tests() -> Vec<Test> {
    tests![
        create_refuses_bad_sizes,
        create_accepts_the_largest_size,
        create_refuses_each_unknown_flag,
        create_refuses_each_reserved_word,
        create_refuses_bad_argument_addresses,
        create_twice_is_busy,
        create_without_a_descriptor_leaves_no_region,
        clone_refuses_descriptors_that_are_no_region,
        clone_refuses_each_unknown_flag,
        clone_refuses_each_reserved_word,
        clone_refuses_bad_argument_addresses,
        clone_into_a_region_is_busy,
        clone_without_a_descriptor_leaves_no_region,
        clone_refused_leaves_the_source,
    ]
}

fn good_create() -> Create {
    Create {
        size: PAGE as u64,
        ..Default::default()
    }
}

/// Fails unless the handle is no region, and can still become one.
fn is_no_region(device: &OwnedFd) -> Outcome {
    let fd = device.as_raw_fd();
    refused("JIT_STATS", calls::stats(fd), libc::ENODATA)?;
    refused(
        "mmap",
        Mapping::of_file(fd, PAGE, sys::RX, 0),
        libc::ENODATA,
    )?;
    calls::create(fd, &good_create()).or_fail("JIT_CREATE afterwards")?;
    Ok(())
}

fn create_refused(what: &str, argument: &Create, errno: i32) -> Outcome {
    let device = calls::open_device()?;
    refused(what, calls::create(device.as_raw_fd(), argument), errno)?;
    is_no_region(&device)
}

fn create_refuses_bad_sizes() -> Outcome {
    let page = PAGE as u64;
    let sizes = [
        ("no size", 0),
        ("one byte", 1),
        ("a page and a byte", page + 1),
        ("a page less a byte", page - 1),
        ("a page beyond the maximum", abi::MAX_REGION + page),
        ("the largest page-aligned number", !(page - 1)),
        ("the largest number", u64::MAX),
    ];
    for (what, size) in sizes {
        let argument = Create {
            size,
            ..Default::default()
        };
        create_refused(what, &argument, libc::EINVAL)?;
    }
    Ok(())
}

fn create_accepts_the_largest_size() -> Outcome {
    let region = Region::new(abi::MAX_REGION as usize / PAGE)?;
    equal("the capacity", region.stats()?.capacity, abi::MAX_REGION)
}

fn create_refuses_each_unknown_flag() -> Outcome {
    bad::each_unknown_flag(abi::CREATE_ANY_MM, |flags| {
        let argument = Create {
            flags,
            ..good_create()
        };
        create_refused("an unknown flag", &argument, libc::EINVAL)
    })
}

fn create_refuses_each_reserved_word() -> Outcome {
    for word in 0..5 {
        let mut argument = good_create();
        argument.reserved[word] = 1;
        create_refused("a reserved word", &argument, libc::EINVAL)?;
    }
    Ok(())
}

fn create_refuses_bad_argument_addresses() -> Outcome {
    let device = calls::open_device()?;
    bad::argument_addresses(device.as_raw_fd(), abi::JIT_CREATE, &good_create())?;
    is_no_region(&device)
}

fn create_twice_is_busy() -> Outcome {
    let region = Region::new(2)?;
    region.append(&[0xc3])?;
    region.unchanged_by(|| {
        let result = calls::create(region.device.as_raw_fd(), &good_create());
        refused("JIT_CREATE again", result, libc::EBUSY)
    })
}

/// Runs `attempt` while no descriptor can be opened.
fn without_descriptors(attempt: impl FnOnce() -> Outcome) -> Outcome {
    let before = sys::set_limit(libc::RLIMIT_NOFILE, 0).or_fail("setrlimit")?;
    let outcome = attempt();
    sys::set_limit(libc::RLIMIT_NOFILE, before).or_fail("setrlimit")?;
    outcome
}

fn create_without_a_descriptor_leaves_no_region() -> Outcome {
    let device = calls::open_device()?;
    without_descriptors(|| {
        let result = calls::create(device.as_raw_fd(), &good_create());
        refused("JIT_CREATE", result, libc::EMFILE)
    })?;
    is_no_region(&device)
}

fn clone_of(source_fd: i32) -> CloneFrom {
    CloneFrom {
        source_fd,
        ..Default::default()
    }
}

fn clone_refused(what: &str, argument: &CloneFrom, errno: i32) -> Outcome {
    let device = calls::open_device()?;
    let result = calls::clone_region(device.as_raw_fd(), argument);
    refused(what, result, errno)?;
    is_no_region(&device)
}

fn clone_refuses_descriptors_that_are_no_region() -> Outcome {
    let region = Region::new(1)?;
    let empty = calls::open_device()?;
    clone_refused("-1", &clone_of(-1), libc::EBADF)?;
    clone_refused("the smallest int", &clone_of(i32::MIN), libc::EBADF)?;
    clone_refused("a large number", &clone_of(i32::MAX), libc::EBADF)?;
    clone_refused(
        "a closed one",
        &clone_of(bad::closed_descriptor()?),
        libc::EBADF,
    )?;
    clone_refused("an append handle", &clone_of(region.fd()), libc::EBADF)?;
    clone_refused(
        "a fresh handle",
        &clone_of(empty.as_raw_fd()),
        libc::ENODATA,
    )?;
    for (what, fd) in bad::foreign_descriptors()? {
        clone_refused(what, &clone_of(fd.as_raw_fd()), libc::EBADF)?;
    }
    let device = calls::open_device()?;
    let itself = calls::clone_region(device.as_raw_fd(), &clone_of(device.as_raw_fd()));
    refused("itself", itself, libc::ENODATA)?;
    is_no_region(&device)
}

fn clone_refuses_each_unknown_flag() -> Outcome {
    let region = Region::new(1)?;
    bad::each_unknown_flag(abi::CREATE_ANY_MM, |flags| {
        let argument = CloneFrom {
            flags,
            ..clone_of(region.device.as_raw_fd())
        };
        clone_refused("an unknown flag", &argument, libc::EINVAL)
    })
}

fn clone_refuses_each_reserved_word() -> Outcome {
    let region = Region::new(1)?;
    for word in 0..6 {
        let mut argument = clone_of(region.device.as_raw_fd());
        argument.reserved[word] = 1;
        clone_refused("a reserved word", &argument, libc::EINVAL)?;
    }
    Ok(())
}

fn clone_refuses_bad_argument_addresses() -> Outcome {
    let region = Region::new(1)?;
    let device = calls::open_device()?;
    let argument = clone_of(region.device.as_raw_fd());
    bad::argument_addresses(device.as_raw_fd(), abi::JIT_CLONE, &argument)?;
    is_no_region(&device)
}

fn clone_into_a_region_is_busy() -> Outcome {
    let region = Region::new(1)?;
    let other = Region::new(2)?;
    other.append(&[0xc3])?;
    other.unchanged_by(|| {
        let argument = clone_of(region.device.as_raw_fd());
        let result = calls::clone_region(other.device.as_raw_fd(), &argument);
        refused("JIT_CLONE into a region", result, libc::EBUSY)
    })
}

fn clone_without_a_descriptor_leaves_no_region() -> Outcome {
    let region = Region::new(1)?;
    region.append(&[0xc3])?;
    let device = calls::open_device()?;
    without_descriptors(|| {
        let argument = clone_of(region.device.as_raw_fd());
        let result = calls::clone_region(device.as_raw_fd(), &argument);
        refused("JIT_CLONE", result, libc::EMFILE)
    })?;
    is_no_region(&device)
}

/// The source of a clone as it was before: its counters, and its page too.
fn clone_refused_leaves_the_source() -> Outcome {
    let region = Region::new(2)?;
    region.append(&[0xc3])?;
    region.unchanged_by(|| {
        let mut argument = clone_of(region.device.as_raw_fd());
        argument.flags = 1 << 7;
        clone_refused("an unknown flag", &argument, libc::EINVAL)
    })
}
