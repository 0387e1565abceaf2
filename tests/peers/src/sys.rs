// SPDX-License-Identifier: GPL-2.0

//! System calls as functions, with errnos as `io::Error`. No policy.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;

/// The page size.
pub const PAGE: usize = 4096;

/// Takes a descriptor that a system call has just returned.
fn own(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: It is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// open(2), to read and write.
pub fn open(path: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: `path` is a C string.
    own(unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) })
}

/// An ioctl without argument that returns a descriptor.
pub fn ioctl_open(fd: &OwnedFd, request: libc::c_ulong) -> io::Result<OwnedFd> {
    // SAFETY: No memory is involved.
    own(unsafe { libc::ioctl(fd.as_raw_fd(), request) })
}

/// Loads a kernel module without parameters.
pub fn load_module(file: &File) -> io::Result<()> {
    // SAFETY: An open file, a C string and flags.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// pwrite(2) of words, all of them.
pub fn write_words(fd: &OwnedFd, words: &[u64], offset: libc::off_t) -> io::Result<()> {
    let len = size_of_val(words);
    // SAFETY: The words are `len` bytes.
    let written = unsafe { libc::pwrite(fd.as_raw_fd(), words.as_ptr().cast(), len, offset) };
    match usize::try_from(written) {
        Ok(all) if all == len => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// A mapping, unmapped when it is dropped.
#[derive(Debug)]
pub struct Mapping {
    base: usize,
    len: usize,
}

impl Mapping {
    /// Maps the start of a file, shared, or anonymous memory that has no cost
    /// until it is used.
    pub fn new(file: Option<&OwnedFd>, len: usize, prot: libc::c_int) -> io::Result<Self> {
        let (fd, flags) = match file {
            Some(file) => (file.as_raw_fd(), libc::MAP_SHARED),
            None => (
                -1,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            ),
        };
        // SAFETY: Without MAP_FIXED nothing is replaced.
        let base = unsafe { libc::mmap(null_mut(), len, prot, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = base.addr();
        Ok(Mapping { base, len })
    }

    /// Its first address.
    pub fn base(&self) -> usize {
        self.base
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own; nothing refers into it, for it
        // holds no data of ours, and whoever calls code in it has to know that it
        // lives.
        unsafe { libc::munmap(self.base as *mut libc::c_void, self.len) };
    }
}
