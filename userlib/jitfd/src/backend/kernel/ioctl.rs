// SPDX-License-Identifier: MIT OR Apache-2.0

//! The ioctls as functions: builds the argument, names the call in the error.
//! No policy.

use crate::abi;
use crate::backend::segment::Segment;
use crate::error::{Call, Error, failed};
use crate::num::to_u64;
use crate::os::fallible::list;
use crate::os::sys::{self, Mapped};
use jitfd_code::Align;
use jitfd_code::internal::{LONGEST_CHUNK, Mode, PAGE_SIZE};
use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

// `jitfd_code` knows nothing of the kernel, but has the same limits.
const _: () = assert!(PAGE_SIZE == abi::PAGE_SIZE);
const _: () = assert!(to_u64(LONGEST_CHUNK) == abi::MAX_CODE);
const _: () = assert!(Align::PAGE.log2() == abi::MAX_ALIGN_LOG2);

fn segment(piece: &Segment<'_>) -> abi::Segment {
    abi::Segment {
        source: to_u64(piece.bytes.as_ptr().addr()),
        len: to_u64(piece.bytes.len()),
        offset: to_u64(piece.offset),
        align_log2: piece.align.log2(),
        reserved: 0,
    }
}

/// A mode as the ABI has it.
const fn flags(mode: Mode) -> u32 {
    match mode {
        Mode::Lazy => 0,
        Mode::Sync => abi::PUBLISH_SYNC,
        Mode::Fresh => abi::PUBLISH_FRESH,
    }
}

/// An ioctl's return value as an offset; `sys` lets no negative one through.
fn offset(value: c_int) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Opens `/dev/jit`.
pub(crate) fn open_device() -> Result<OwnedFd, Error> {
    sys::open(c"/dev/jit").map_err(failed(Call::Open))
}

/// `JIT_CREATE_CODE`: a new mapping that holds `bytes`.
pub(crate) fn create_code(device: BorrowedFd<'_>, bytes: &[u8]) -> Result<Mapped, Error> {
    sys::create_code(device, bytes).map_err(failed(Call::CreateCode))
}

/// `JIT_CREATE_CODE` at given pages.
///
/// # Safety
/// As [`sys::create_code_at`].
#[expect(unsafe_code, reason = "replaces memory of the caller's choice")]
pub(crate) unsafe fn create_code_at(
    device: BorrowedFd<'_>,
    bytes: &[u8],
    at: *mut u8,
) -> Result<(), Error> {
    // SAFETY: as promised by the caller.
    unsafe { sys::create_code_at(device, bytes, at.expose_provenance()) }
        .map_err(failed(Call::CreateCode))
}

/// `JIT_CREATE`: returns the append handle.
pub(crate) fn create(device: BorrowedFd<'_>, size: usize, flags: u32) -> Result<OwnedFd, Error> {
    let argument = abi::Create {
        size: to_u64(size),
        flags,
        ..Default::default()
    };
    sys::ioctl_new_fd(device, abi::JIT_CREATE, &argument).map_err(failed(Call::Create))
}

/// `JIT_CLONE`: makes `device` a copy of the region of `source`; returns the
/// append handle.
pub(crate) fn clone(
    device: BorrowedFd<'_>,
    source: BorrowedFd<'_>,
    flags: u32,
) -> Result<OwnedFd, Error> {
    let argument = abi::CloneFrom {
        source_fd: source.as_raw_fd(),
        flags,
        ..Default::default()
    };
    sys::ioctl_new_fd(device, abi::JIT_CLONE, &argument).map_err(failed(Call::Clone))
}

/// `JIT_APPEND`: returns the offset of the first piece.
pub(crate) fn append(
    handle: BorrowedFd<'_>,
    pieces: &[Segment<'_>],
    expect: Option<usize>,
    mode: Mode,
) -> Result<usize, Error> {
    let beyond = |offset: &usize| to_u64(*offset) >= abi::MAX_REGION;
    if let Some(expected) = expect.filter(beyond) {
        // One of these numbers means anywhere to the kernel, and no cursor gets there.
        return Err(Error::Stale { expected });
    }
    let expected = expect.map_or(abi::ANY_OFFSET, to_u64);
    let value = publish(handle, abi::JIT_APPEND, pieces, expected, flags(mode));
    value
        .map(offset)
        .map_err(|error| match (error.raw_os_error(), expect) {
            (Some(libc::ESTALE), Some(expected)) => Error::Stale { expected },
            _ => Error::system(Call::Append, &error),
        })
}

/// `JIT_FILL`.
pub(crate) fn fill(
    handle: BorrowedFd<'_>,
    pieces: &[Segment<'_>],
    mode: Mode,
) -> Result<(), Error> {
    let value = publish(handle, abi::JIT_FILL, pieces, abi::ANY_OFFSET, flags(mode));
    value.map_err(failed(Call::Fill))?;
    Ok(())
}

fn publish(
    handle: BorrowedFd<'_>,
    request: u32,
    pieces: &[Segment<'_>],
    expect: u64,
    flags: u32,
) -> std::io::Result<c_int> {
    let no_memory = || std::io::Error::from_raw_os_error(libc::ENOMEM);
    let segments = list(pieces.iter().map(segment)).ok_or_else(no_memory)?;
    let count = u32::try_from(segments.len()).unwrap_or(u32::MAX);
    let source = to_u64(segments.as_ptr().addr());
    let argument = abi::Publish {
        segments: source,
        count,
        flags,
        expect,
        ..Default::default()
    };
    sys::ioctl_in(handle, request, &argument)
}

/// `JIT_RESERVE`: returns the offset.
pub(crate) fn reserve(handle: BorrowedFd<'_>, len: usize, align: Align) -> Result<usize, Error> {
    let argument = abi::Reserve {
        len: to_u64(len),
        align_log2: align.log2(),
        ..Default::default()
    };
    let value = sys::ioctl_in(handle, abi::JIT_RESERVE, &argument);
    value.map(offset).map_err(failed(Call::Reserve))
}

/// `JIT_SEAL`.
pub(crate) fn seal(handle: BorrowedFd<'_>) -> Result<(), Error> {
    sys::ioctl_none(handle, abi::JIT_SEAL).map_err(failed(Call::Seal))?;
    Ok(())
}

/// `JIT_STATS`.
pub(crate) fn stats(handle: BorrowedFd<'_>) -> Result<abi::Stats, Error> {
    sys::ioctl_out(handle, abi::JIT_STATS).map_err(failed(Call::Stats))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_its_flag() {
        let modes = [Mode::Lazy, Mode::Sync, Mode::Fresh];
        assert_eq!(modes.map(flags), [0, 1, 2]);
    }

    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn no_place_beyond_every_region_is_asked_for() {
        let file = File::open("/dev/null").unwrap();
        let asked = |expect| append(file.as_fd(), &[], expect, Mode::Lazy);
        for expected in [crate::num::to_usize(abi::MAX_REGION), usize::MAX] {
            assert_eq!(asked(Some(expected)), Err(Error::Stale { expected }));
        }
        let calls = [None, Some(0), Some(4096)].map(asked);
        assert!(
            calls
                .iter()
                .all(|call| matches!(call, Err(Error::System { .. })))
        );
    }
}
