// SPDX-License-Identifier: MIT OR Apache-2.0

//! System calls, mappings and function pointers: all `unsafe` blocks of the
//! crate.
//!
//! Why they are sound:
//! * A request whose number says "write" only makes the kernel *read* the
//!   argument, and what the argument points to is only read as well (abi.rs).
//!   A bad address in it gives `EFAULT`. Such a call can't harm memory that Rust
//!   knows about, so [`ioctl_in`] is safe.
//! * A request that says "read" only writes the argument, whose size is part of
//!   the number and is compared with the type.
//! * New mappings are at addresses of the kernel's choice, so they replace
//!   nothing. Replacing is [`create_code_at`], which is `unsafe`.
#![expect(unsafe_code, reason = "this is the file for it")]
#![cfg_attr(
    test,
    expect(dead_code, reason = "unit tests call a model of the kernel")
)]

use crate::abi;
use crate::cast::{to_u64, to_usize};
use std::ffi::{CStr, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

/// An argument of an ioctl.
///
/// # Safety
/// The type has no padding and every bit pattern is a value of it.
pub(crate) unsafe trait Argument: Copy + Default {}

// SAFETY: abi.rs: all fields are integers, and padding is explicit.
unsafe impl Argument for abi::Create {}
// SAFETY: as above.
unsafe impl Argument for abi::Publish {}
// SAFETY: as above.
unsafe impl Argument for abi::Reserve {}
// SAFETY: as above.
unsafe impl Argument for abi::Stats {}

/// The direction bits of a request: which way the argument goes.
const fn direction(request: u32) -> u32 {
    request >> 30
}
const NOTHING: u32 = 0;
const TO_KERNEL: u32 = 1;
const FROM_KERNEL: u32 = 2;

const fn argument_size(request: u32) -> usize {
    ((request >> 16) & 0x3fff) as usize
}

fn check(request: u32, way: u32, size: usize) -> io::Result<()> {
    if direction(request) == way && argument_size(request) == size {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }
}

fn result(value: c_int) -> io::Result<c_int> {
    if value < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

/// Opens a device for reading and writing, close-on-exec.
pub(crate) fn open(path: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: `path` is a C string; the call touches no other memory.
    let fd = result(unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) })?;
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A call without an argument.
pub(crate) fn ioctl_none(fd: BorrowedFd<'_>, request: u32) -> io::Result<c_int> {
    check(request, NOTHING, 0)?;
    // SAFETY: the request takes no argument.
    result(unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), 0) })
}

/// A call whose argument the kernel only reads.
pub(crate) fn ioctl_in<T: Argument>(
    fd: BorrowedFd<'_>,
    request: u32,
    argument: &T,
) -> io::Result<c_int> {
    check(request, TO_KERNEL, size_of::<T>())?;
    // SAFETY: `argument` is valid for reads of the size that the request has;
    // the kernel writes nothing (see the top of the file).
    result(unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), argument) })
}

/// A call whose argument the kernel only writes.
pub(crate) fn ioctl_out<T: Argument>(fd: BorrowedFd<'_>, request: u32) -> io::Result<T> {
    check(request, FROM_KERNEL, size_of::<T>())?;
    let mut argument = T::default();
    // SAFETY: `argument` is valid for writes of the size that the request has,
    // and any bytes written are a value of its type.
    result(unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), &raw mut argument) })?;
    Ok(argument)
}

/// As [`ioctl_in`], for a request that returns a new descriptor.
pub(crate) fn ioctl_new_fd<T: Argument>(
    fd: BorrowedFd<'_>,
    request: u32,
    argument: &T,
) -> io::Result<OwnedFd> {
    let fd = ioctl_in(fd, request, argument)?;
    // SAFETY: the callers pass requests that return a new descriptor, which
    // nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A new mapping that holds exactly `source`.
pub(crate) fn create_code(device: BorrowedFd<'_>, source: &[u8]) -> io::Result<Mapped> {
    // SAFETY: without `CREATE_CODE_FIXED` nothing is replaced.
    let address = unsafe { create_code_raw(device, source, 0, 0) }?;
    // SAFETY: the mapping is new, so nobody else owns it.
    unsafe { Mapped::from_raw(address, source.len()) }
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))
}

/// Puts `source` in the place of the pages at `address`.
///
/// # Safety
/// The pages are the caller's own, and nothing that Rust knows about is in them.
pub(crate) unsafe fn create_code_at(
    device: BorrowedFd<'_>,
    source: &[u8],
    address: usize,
) -> io::Result<()> {
    // SAFETY: as promised by the caller.
    unsafe { create_code_raw(device, source, address, abi::CREATE_CODE_FIXED) }?;
    Ok(())
}

/// # Safety
/// As [`create_code_at`] if `flags` has `CREATE_CODE_FIXED`.
unsafe fn create_code_raw(
    device: BorrowedFd<'_>,
    source: &[u8],
    address: usize,
    flags: u32,
) -> io::Result<usize> {
    let mut argument = abi::CreateCode {
        source: to_u64(source.as_ptr().addr()),
        len: to_u64(source.len()),
        addr: to_u64(address),
        flags,
        ..Default::default()
    };
    // SAFETY: `argument` is valid for reads and writes of the size that the
    // request has; the caller answers for what is replaced.
    let value = unsafe {
        libc::ioctl(
            device.as_raw_fd(),
            abi::JIT_CREATE_CODE.into(),
            &raw mut argument,
        )
    };
    result(value)?;
    Ok(to_usize(argument.addr))
}

/// An executable, never writable mapping.
///
/// # Invariants
/// `base` and the `len` bytes after it are one mapping, or the start of one,
/// that this value owns: it is unmapped when the value is dropped.
#[derive(Debug)]
pub(crate) struct Mapped {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is the same from every thread, and never written through
// this type.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the first `len` bytes of a region.
    pub(crate) fn region(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::region_with(fd, len, 0, 0)
    }

    /// The same at `address`, a multiple of the page size; `EEXIST` if something
    /// is mapped there.
    pub(crate) fn region_at(fd: BorrowedFd<'_>, len: usize, address: usize) -> io::Result<Self> {
        let mapped = Self::region_with(fd, len, address, libc::MAP_FIXED_NOREPLACE)?;
        // Kernels before 4.17 take the address for a hint.
        if mapped.address() == address {
            Ok(mapped)
        } else {
            Err(io::Error::from_raw_os_error(libc::EEXIST))
        }
    }

    /// `more` is `MAP_FIXED_NOREPLACE` or 0.
    fn region_with(
        fd: BorrowedFd<'_>,
        len: usize,
        address: usize,
        more: c_int,
    ) -> io::Result<Self> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_SHARED | more);
        let hint = std::ptr::without_provenance_mut(address);
        // SAFETY: without MAP_FIXED nothing is replaced.
        let base = unsafe { libc::mmap(hint, len, access, flags, fd.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        // INVARIANT: the mapping is new, so nobody else owns it.
        Ok(Self { base, len })
    }

    /// Takes over the mapping at `address`; `None` if that is 0.
    ///
    /// # Safety
    /// There is a mapping of `len` bytes which nobody else owns.
    pub(crate) unsafe fn from_raw(address: usize, len: usize) -> Option<Self> {
        let base = NonNull::new(std::ptr::with_exposed_provenance_mut(address))?;
        // INVARIANT: as promised by the caller.
        Some(Self { base, len })
    }

    pub(crate) const fn as_ptr(&self) -> *const u8 {
        self.base.as_ptr()
    }

    pub(crate) fn address(&self) -> usize {
        self.base.addr().get()
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The function at `offset`; `None` if that is not inside, or `F` has not
    /// the size of a pointer.
    ///
    /// # Safety
    /// `F` is a function pointer type, and the code at `offset` is a function
    /// of that type.
    pub(crate) unsafe fn entry<F: Copy>(&self, offset: usize) -> Option<F> {
        if offset >= self.len || size_of::<F>() != size_of::<*const u8>() {
            return None;
        }
        let function = self.as_ptr().wrapping_add(offset);
        // SAFETY: the sizes are equal, and a non-null address is a value of a
        // function pointer type; the caller vouches for the function.
        Some(unsafe { std::mem::transmute_copy(&function) })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: by the type invariant the mapping is ours.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
