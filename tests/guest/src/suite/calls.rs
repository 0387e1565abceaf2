// SPDX-License-Identifier: GPL-2.0
//! The calls of `/dev/jit`, each as a thin function that refuses nothing.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use jitfd_plan::abi;

use super::outcome::{Checked, OrFail};
use super::sys;

/// An open `/dev/jit`.
pub fn open_device() -> Checked<OwnedFd> {
    sys::open(c"/dev/jit", libc::O_RDWR).or_fail("open /dev/jit")
}

fn new_fd(value: i64) -> OwnedFd {
    let fd = RawFd::try_from(value).expect("a descriptor is an int");
    // SAFETY: the kernel has just given this descriptor to us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// `JIT_CREATE`: the append handle.
pub fn create(device: RawFd, argument: &abi::Create) -> io::Result<OwnedFd> {
    sys::ioctl_in(device, abi::JIT_CREATE, argument).map(new_fd)
}

/// `JIT_CLONE`: the append handle.
pub fn clone_region(device: RawFd, argument: &abi::CloneFrom) -> io::Result<OwnedFd> {
    sys::ioctl_in(device, abi::JIT_CLONE, argument).map(new_fd)
}

/// `JIT_CREATE_CODE`: 0, and the address in the argument.
pub fn create_code(device: RawFd, argument: &mut abi::CreateCode) -> io::Result<i64> {
    sys::ioctl_inout(device, abi::JIT_CREATE_CODE, argument)
}

/// `JIT_STATS`.
pub fn stats(fd: RawFd) -> io::Result<abi::Stats> {
    let mut stats = abi::Stats::default();
    sys::ioctl_inout(fd, abi::JIT_STATS, &mut stats)?;
    Ok(stats)
}

/// `JIT_RESERVE`: the offset.
pub fn reserve(append: RawFd, len: u64, align_log2: u32) -> io::Result<u64> {
    let argument = abi::Reserve {
        len,
        align_log2,
        ..Default::default()
    };
    sys::ioctl_in(append, abi::JIT_RESERVE, &argument).map(offset)
}

/// `JIT_SEAL`.
pub fn seal(append: RawFd) -> io::Result<()> {
    sys::ioctl(append, abi::JIT_SEAL, 0).map(|_| ())
}

fn offset(value: i64) -> u64 {
    u64::try_from(value).expect("no negative value is a success")
}

/// A segment of a publication.
pub fn segment(bytes: &[u8]) -> abi::Segment {
    abi::Segment {
        source: bytes.as_ptr().addr() as u64,
        len: bytes.len() as u64,
        ..Default::default()
    }
}

/// A segment of a fill.
pub fn segment_at(offset: u64, bytes: &[u8]) -> abi::Segment {
    abi::Segment {
        offset,
        ..segment(bytes)
    }
}

/// The argument of a publication without flags at any offset.
pub fn publication(segments: &[abi::Segment]) -> abi::Publish {
    abi::Publish {
        segments: segments.as_ptr().addr() as u64,
        count: u32::try_from(segments.len()).expect("few segments"),
        expect: abi::ANY_OFFSET,
        ..Default::default()
    }
}

/// `JIT_APPEND` or `JIT_FILL`: the offset, or 0.
pub fn publish(append: RawFd, request: u32, argument: &abi::Publish) -> io::Result<u64> {
    sys::ioctl_in(append, request, argument).map(offset)
}

/// `JIT_APPEND` of one segment, with flags.
pub fn append_with(append: RawFd, bytes: &[u8], flags: u32) -> io::Result<u64> {
    let segments = [segment(bytes)];
    let argument = abi::Publish {
        flags,
        ..publication(&segments)
    };
    publish(append, abi::JIT_APPEND, &argument)
}

/// `JIT_APPEND` of one segment.
pub fn append(append: RawFd, bytes: &[u8]) -> io::Result<u64> {
    append_with(append, bytes, 0)
}

/// `JIT_FILL` of one segment.
pub fn fill(append: RawFd, offset: u64, bytes: &[u8]) -> io::Result<u64> {
    let segments = [segment_at(offset, bytes)];
    publish(append, abi::JIT_FILL, &publication(&segments))
}
