// SPDX-License-Identifier: MIT OR Apache-2.0

//! Calls of the kernel's device, mappings and function pointers. The `unsafe` of
//! the other backends is in `own/`.
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

use crate::abi;
use crate::num::{to_u64, to_usize};
use std::ffi::{CStr, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{NonNull, without_provenance_mut};
use std::sync::Arc;

/// An argument of an ioctl.
///
/// # Safety
/// The type has no padding and every bit pattern is a value of it.
pub(crate) unsafe trait Argument: Copy + Default {}

// SAFETY: abi.rs: all fields are integers, and padding is explicit.
unsafe impl Argument for abi::Create {}
// SAFETY: as above.
unsafe impl Argument for abi::CloneFrom {}
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

/// Opens a device for reading, close-on-exec: nothing is ever written to it, so that a
/// policy need not allow that.
pub(crate) fn open(path: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: `path` is a C string; the call touches no other memory.
    let fd = result(unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) })?;
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether it is a character device, as `/dev/jit` is.
pub(crate) fn is_device(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the call fills `status` if it succeeds.
    let status = unsafe {
        result(libc::fstat(fd.as_raw_fd(), status.as_mut_ptr()))?;
        status.assume_init()
    };
    Ok(status.st_mode & libc::S_IFMT == libc::S_IFCHR)
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

/// Maps the first `len` bytes of what `fd` is open on, readable and executable;
/// `at` is as in [`Span::map`].
pub(crate) fn map_code(fd: BorrowedFd<'_>, at: Option<usize>, len: usize) -> io::Result<Mapped> {
    let access = libc::PROT_READ | libc::PROT_EXEC;
    let span = Span::map(at, len, access, libc::MAP_SHARED, Some(fd))?;
    Ok(Mapped::whole(span))
}

/// Maps the first `len` bytes of what `fd` is open on, readable and executable, at
/// `at`, in the place of what is there.
///
/// # Safety
/// The `len` bytes at `at`, rounded up to whole pages, are the caller's own
/// mapping, and nothing that Rust knows about is in them.
pub(crate) unsafe fn map_code_over(fd: BorrowedFd<'_>, at: *mut u8, len: usize) -> io::Result<()> {
    let access = libc::PROT_READ | libc::PROT_EXEC;
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    // SAFETY: the caller answers for what is replaced.
    let base = unsafe { libc::mmap(at.cast(), len, access, flags, fd.as_raw_fd(), 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Writes to standard error what can be written there at once. Not by the library's
/// own stream, whose lock a thread of the parent may have held at the `fork()`.
pub(crate) fn write_error(text: &str) {
    // SAFETY: the bytes are valid for reads.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

/// The number of the calling thread.
pub(crate) fn thread_id() -> u32 {
    // SAFETY: the call has no arguments and can't fail.
    unsafe { libc::gettid() }.unsigned_abs()
}

/// The time by `CLOCK_MONOTONIC`.
pub(crate) fn monotonic_nanoseconds() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writes, and the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let seconds = time.tv_sec.unsigned_abs();
    seconds * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Makes the number of `old` a descriptor of what `new` is open on, in one step.
pub(crate) fn replace_fd(old: BorrowedFd<'_>, new: OwnedFd) -> io::Result<()> {
    // SAFETY: whoever owns the number owns a descriptor before and after it.
    result(unsafe { libc::dup3(new.as_raw_fd(), old.as_raw_fd(), libc::O_CLOEXEC) })?;
    Ok(())
}

/// `EFBIG` if `RLIMIT_FSIZE` does not let a file become `len` bytes long. The kernel
/// would not only refuse that, but end the process (SIGXFSZ).
pub(crate) fn may_become(len: usize) -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit is valid for writes.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) } == 0;
    // A filter of system calls that hides the limit is no reason to give up.
    if known && limit.rlim_cur < to_u64(len) {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    Ok(())
}

/// A range of addresses with nothing of Rust's in it.
///
/// # Invariants
/// `base` and the `len` bytes after it are mapped, or were, by this value's
/// maker, and are this value's: they are unmapped when it is dropped.
#[derive(Debug)]
pub struct Span {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the type itself never accesses the memory.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

impl Span {
    /// A new mapping: at `at`, a multiple of the page size, or `EEXIST` if
    /// something is mapped there; else at an address of the kernel's choice.
    pub(crate) fn map(
        at: Option<usize>,
        len: usize,
        access: c_int,
        flags: c_int,
        fd: Option<BorrowedFd<'_>>,
    ) -> io::Result<Self> {
        let fd = fd.map_or(-1, |fd| fd.as_raw_fd());
        let fixed = at.map_or(0, |_| libc::MAP_FIXED_NOREPLACE);
        let flags = flags & !libc::MAP_FIXED | fixed;
        let hint = without_provenance_mut(at.unwrap_or(0));
        // SAFETY: without MAP_FIXED nothing is replaced.
        let base = unsafe { libc::mmap(hint, len, access, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // INVARIANT: the mapping is new, so nobody else owns it.
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        let span = Self { base, len };
        // Kernels before 4.17 take the address for a hint.
        if at.is_some_and(|at| at != span.base().addr()) {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        Ok(span)
    }

    /// A new mapping of memory for data, private to the process: `len` bytes, whole
    /// pages, and so many around them that `align`, a multiple of the page size, is
    /// kept. Returns the offset of the first of the `len` bytes.
    ///
    /// # Errors
    /// The error of `mmap`; `ENOMEM` for more than there are addresses.
    pub fn aligned_data(len: usize, align: usize) -> io::Result<(Self, usize)> {
        let all = len.checked_add(align - abi::PAGE_SIZE);
        let all = all.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let mut span = Self::map(None, all, access, flags, None)?;
        let start = span.base().addr().next_multiple_of(align);
        span.shrink(start, len);
        let offset = start - span.base().addr();
        Ok((span, offset))
    }

    /// Gives up what is not in the `len` bytes at `start`, which are whole pages
    /// inside. What can't be unmapped (a mapping more could be needed for it) stays
    /// the span's.
    fn shrink(&mut self, start: usize, len: usize) {
        let (before, after) = (start - self.base().addr(), start + len);
        // SAFETY: the pages are the span's own, and are not any more if the call
        // does not fail. INVARIANT: as just said.
        unsafe {
            if before > 0 && libc::munmap(self.base().cast(), before) == 0 {
                self.base = self.base.add(before);
                self.len -= before;
            }
            let rest = self.base().addr() + self.len - after;
            let end = self.base().wrapping_add(self.len - rest);
            if rest > 0 && libc::munmap(end.cast(), rest) == 0 {
                self.len -= rest;
            }
        }
    }

    /// Unmaps what is before and behind `range`, whole pages, in bytes from the
    /// start: the addresses in it are somebody else's.
    pub(crate) fn unmap_around(self, range: std::ops::Range<usize>) {
        let span = std::mem::ManuallyDrop::new(self);
        let end = range.end.min(span.len);
        // SAFETY: the pages are the span's own, which nobody uses after this.
        unsafe {
            libc::munmap(span.base().cast(), range.start.min(end));
            libc::munmap(span.base().wrapping_add(end).cast(), span.len - end);
        }
    }

    /// The first address.
    #[must_use]
    pub const fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // SAFETY: by the type invariant the mapping is ours.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Executable memory, not writable through this type: the first bytes of a span.
///
/// # Invariants
/// `len` is not above the span's.
#[derive(Clone, Debug)]
pub(crate) struct Mapped {
    span: Arc<Span>,
    len: usize,
}

impl Mapped {
    pub(crate) fn whole(span: Span) -> Self {
        let len = span.len();
        Self::part(&Arc::new(span), len)
    }

    /// The first `len` bytes of `span`, or all if it has fewer.
    pub(crate) fn part(span: &Arc<Span>, len: usize) -> Self {
        Self {
            span: Arc::clone(span),
            len: len.min(span.len()),
        }
    }

    /// Moves the mapping to `at`, as in [`Span::map`], in the place of anonymous
    /// executable memory, which is made for that. Profilers, which are told of
    /// mappings but not of moves, take it for such memory from then on.
    ///
    /// `EBUSY` if somebody else relies on the addresses.
    pub(crate) fn pose_as_memory(&mut self, at: Option<usize>) -> io::Result<()> {
        let busy = || io::Error::from_raw_os_error(libc::EBUSY);
        let span = Arc::get_mut(&mut self.span).ok_or_else(busy)?;
        let access = libc::PROT_READ | libc::PROT_EXEC;
        let place = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let mut place = Span::map(at, span.len, access, place, None)?;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let (from, to, len) = (span.base().cast(), place.base(), span.len);
        // SAFETY: both ranges are ours, and nobody uses either.
        if unsafe { libc::mremap(from, len, len, flags, to) } == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // INVARIANT: what was `place` is the mapping; nothing is where that was.
        std::mem::swap(span, &mut place);
        std::mem::forget(place);
        Ok(())
    }

    /// Takes over the mapping at `address`; `None` if that is 0.
    ///
    /// # Safety
    /// There is a mapping of `len` bytes which nobody else owns.
    pub(crate) unsafe fn from_raw(address: usize, len: usize) -> Option<Self> {
        let base = NonNull::new(std::ptr::with_exposed_provenance_mut(address))?;
        // INVARIANT: as promised by the caller.
        Some(Self::whole(Span { base, len }))
    }

    /// Gives the mapping away: it is not unmapped.
    pub(crate) fn into_raw(self) -> (*const u8, usize) {
        let raw = (self.as_ptr(), self.len());
        // Not `self`: the counter is given back.
        if let Ok(span) = Arc::try_unwrap(self.span).map_err(std::mem::forget) {
            std::mem::forget(span);
        }
        raw
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.span.base()
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Maps what `fd` is open on, readable and executable, in the place of this,
    /// in one step. It has all code that is here, at the same offsets.
    pub(crate) fn replace(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: the addresses are the span's own, and nothing of Rust's is
        // there.
        unsafe { map_code_over(fd, self.span.base(), self.len) }
    }
}
