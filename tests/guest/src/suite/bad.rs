// SPDX-License-Identifier: GPL-2.0
//! Bad values that the tests of all calls share.

use std::os::fd::{AsRawFd, OwnedFd};

use super::memory::{Mapping, put_at};
use super::outcome::{Checked, OrFail, Outcome, refused};
use super::sys;

/// An address of the kernel.
pub const KERNEL: u64 = 0xffff_8880_0000_0000;
/// An address that no x86-64 CPU accepts, under 5-level page tables either.
pub const NOT_CANONICAL: u64 = 0x8000_0000_0000_0000;

/// Addresses that can't be read: NULL, the kernel's, no address at all.
pub const ADDRESSES: [(&str, u64); 3] = [
    ("NULL", 0),
    ("a kernel address", KERNEL),
    ("a non-canonical address", NOT_CANONICAL),
];

/// Fails unless `request` on `fd` refuses every bad address for its argument:
/// NULL, the kernel's, and `argument` (a good one) cut in half by a hole.
pub fn argument_addresses<T: Copy>(fd: i32, request: u32, argument: &T) -> Outcome {
    for (what, addr) in ADDRESSES {
        let result = sys::ioctl(fd, request, addr as usize);
        refused(what, result, libc::EFAULT)?;
    }
    let (_pages, cut) = cut_in_half(argument)?;
    refused(
        "an argument cut in half",
        sys::ioctl(fd, request, cut),
        libc::EFAULT,
    )
}

/// The address of a copy of `value` whose second half is not mapped.
pub fn cut_in_half<T: Copy>(value: &T) -> Checked<(Mapping, usize)> {
    let size = size_of::<T>();
    let pages = Mapping::anonymous(3)?;
    let addr = pages.addr() + sys::PAGE - size / 2;
    put_at(addr, value);
    sys::munmap(pages.addr() + sys::PAGE, 2 * sys::PAGE).or_fail("munmap")?;
    Ok((pages, addr))
}

/// Calls `attempt` with each bit that `allowed` lacks.
pub fn each_unknown_flag(allowed: u32, attempt: impl Fn(u32) -> Outcome) -> Outcome {
    (0..32)
        .map(|bit| 1 << bit)
        .filter(|flag| flag & allowed == 0)
        .try_for_each(attempt)
}

/// Mounts /dev without the right to execute, for this process only.
pub fn forbid_execution_in_dev() -> Outcome {
    sys::syscall(
        libc::SYS_unshare,
        [libc::CLONE_NEWNS as usize, 0, 0, 0, 0, 0],
    )
    .or_fail("unshare the mounts")?;
    sys::mount_flags(c"/", libc::MS_PRIVATE | libc::MS_REC).or_fail("keep the mounts apart")?;
    let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_NOEXEC;
    sys::mount_flags(c"/dev", flags).or_fail("remount /dev noexec")
}

/// Descriptors of other things than `/dev/jit`.
pub fn foreign_descriptors() -> Checked<Vec<(&'static str, OwnedFd)>> {
    let (reader, _) = sys::pipe().or_fail("pipe")?;
    Ok(vec![
        ("a pipe", reader.into()),
        (
            "/dev/null",
            sys::open(c"/dev/null", libc::O_RDWR).or_fail("open /dev/null")?,
        ),
        ("a memfd", sys::memfd(4096).or_fail("memfd")?.into()),
    ])
}

/// The number of a descriptor that was just closed, and is not taken again
/// soon.
pub fn closed_descriptor() -> Checked<i32> {
    let fd = sys::open(c"/dev/jit", libc::O_RDWR).or_fail("open /dev/jit")?;
    let high = sys::duplicate(fd.as_raw_fd(), 900).or_fail("fcntl F_DUPFD")?;
    Ok(high.as_raw_fd())
}
