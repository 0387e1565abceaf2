// SPDX-License-Identifier: GPL-2.0

//! System calls, and the call of a published function: all unsafe code of the
//! bench but the marks of `profile` and the clock. Mappings are never removed:
//! executing threads may be anywhere in them until the process ends.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;

use crate::error::{Result, last};
use crate::function::Function;

/// A system call that does nothing but return a number.
pub fn empty_call() {
    // SAFETY: Always allowed.
    unsafe { libc::syscall(libc::SYS_getppid) };
}

/// The CPUs that are on line.
pub fn cpus() -> usize {
    // SAFETY: Always allowed.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(count).unwrap_or(1).max(1)
}

/// Binds the calling thread to `cpu`.
pub fn pin(cpu: usize) -> Result<()> {
    // SAFETY: A plain set of bits of this size.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    zero(result, "sched_setaffinity")
}

fn zero(result: libc::c_int, what: &str) -> Result<()> {
    if result == 0 { Ok(()) } else { Err(last(what)) }
}

/// Opens a device.
pub fn open(path: &CStr) -> Result<OwnedFd> {
    // SAFETY: `path` is a C string.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    own(fd, "open /dev/jit")
}

/// A new memory file of `len` bytes.
pub fn memory_file(len: usize) -> Result<OwnedFd> {
    // SAFETY: The name is a C string.
    let fd = unsafe { libc::memfd_create(c"bench".as_ptr(), libc::MFD_CLOEXEC) };
    let fd = own(fd, "memfd_create")?;
    // SAFETY: No memory is involved.
    let result = unsafe { libc::ftruncate(fd.as_raw_fd(), len as libc::off_t) };
    zero(result, "ftruncate")?;
    Ok(fd)
}

/// Takes a descriptor that a system call has just returned.
pub fn own(fd: libc::c_int, what: &str) -> Result<OwnedFd> {
    if fd < 0 {
        return Err(last(what));
    }
    // SAFETY: It is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An ioctl whose argument the kernel reads, or fills as far as `T` goes.
/// Returns its value, negative on failure.
pub fn ioctl<T>(fd: BorrowedFd<'_>, request: u32, argument: &mut T) -> libc::c_int {
    debug_assert!(((request >> 16) & 0x3fff) as usize <= size_of::<T>());
    // SAFETY: The argument has at least the size that the request's number has.
    unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), argument) }
}

/// What a mapping allows.
#[derive(Clone, Copy)]
pub enum Access {
    /// Reading and writing.
    Write,
    /// Reading and executing.
    Execute,
}

impl Access {
    fn bits(self) -> libc::c_int {
        match self {
            Access::Write => libc::PROT_READ | libc::PROT_WRITE,
            Access::Execute => libc::PROT_READ | libc::PROT_EXEC,
        }
    }
}

/// A mapping that stays until the process ends.
#[derive(Clone, Copy)]
pub struct Area {
    base: *mut u8,
    len: usize,
}

impl Area {
    /// Maps a file, or anonymous memory.
    pub fn map(file: Option<BorrowedFd<'_>>, len: usize, access: Access) -> Result<Self> {
        let (fd, flags) = match file {
            Some(file) => (file.as_raw_fd(), libc::MAP_SHARED),
            None => (-1, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
        };
        // SAFETY: Without MAP_FIXED nothing is replaced.
        let base = unsafe { libc::mmap(null_mut(), len, access.bits(), flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(last("mmap"));
        }
        let base = base.cast();
        Ok(Area { base, len })
    }

    /// Its first byte.
    pub fn address(self) -> usize {
        self.base.addr()
    }

    /// Copies `bytes` to `offset`; false if they do not fit.
    pub fn write(self, offset: usize, bytes: &[u8]) -> bool {
        let fits = offset
            .checked_add(bytes.len())
            .is_some_and(|end| end <= self.len);
        if fits {
            // SAFETY: The range is inside the mapping, which only this thread
            // writes; executing threads call what was written before.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(offset), bytes.len())
            };
        }
        fits
    }

    /// Copies `bytes` to the start, eight at a time, as the kernel may do it. What
    /// does not fit is left out.
    pub fn write_words(self, bytes: &[u8]) {
        let words = bytes.len().min(self.len) / 8;
        // SAFETY: The ranges are inside the slice and the mapping, which do not
        // overlap.
        unsafe {
            std::arch::asm!(
                "rep movsq",
                inout("rcx") words => _,
                inout("rsi") bytes.as_ptr() => _,
                inout("rdi") self.base => _,
                options(nostack, preserves_flags),
            )
        };
    }

    /// Changes what the page at `offset` allows.
    pub fn protect(self, offset: usize, access: Access) -> Result<()> {
        let page = offset & !4095;
        // SAFETY: The page is inside the mapping, and nobody executes it.
        let result = unsafe { libc::mprotect(self.base.add(page).cast(), 4096, access.bits()) };
        zero(result, "mprotect")
    }
}

/// Calls the function at `address`.
///
/// # Safety
///
/// A function of this type was published there, and stays.
pub unsafe fn call(address: usize) -> u32 {
    // SAFETY: By this function's contract.
    let function: Function = unsafe { std::mem::transmute(address) };
    function()
}
