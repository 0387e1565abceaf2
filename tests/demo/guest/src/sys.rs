// SPDX-License-Identifier: MIT OR Apache-2.0

//! The system calls that neither the standard library nor `jitfd` makes.

use std::io;
use std::ptr::{self, NonNull};

/// The size of a page, in bytes.
const PAGE: usize = 4096;

/// `PR_SET_MDWE` with `PR_MDWE_REFUSE_EXEC_GAIN`: from now on no memory of this
/// process becomes executable that was not so from its start.
pub fn refuse_exec_gain() -> io::Result<()> {
    const PR_SET_MDWE: libc::c_int = 65;
    const PR_MDWE_REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    const UNUSED: libc::c_ulong = 0;
    // SAFETY: this call takes no pointers.
    let result = unsafe {
        libc::prctl(
            PR_SET_MDWE,
            PR_MDWE_REFUSE_EXEC_GAIN,
            UNUSED,
            UNUSED,
            UNUSED,
        )
    };
    check(result)
}

/// A page of anonymous memory; unmapped on drop.
pub struct Page(NonNull<libc::c_void>);

impl Page {
    /// Maps a page with these `PROT_` bits.
    pub fn map(protection: libc::c_int) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address that the kernel chooses takes
        // nothing from anybody.
        let address = unsafe { libc::mmap(ptr::null_mut(), PAGE, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(address)
            .map(Self)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Changes the page's `PROT_` bits.
    pub fn protect(&self, protection: libc::c_int) -> io::Result<()> {
        // SAFETY: the page is this value's own, and nothing refers into it.
        check(unsafe { libc::mprotect(self.0.as_ptr(), PAGE, protection) })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the page is this value's own, and nothing refers into it. A
        // failure would leak it.
        unsafe { libc::munmap(self.0.as_ptr(), PAGE) };
    }
}

/// Tries to make the page of code at `code` writable instead of executable.
///
/// # Safety
/// Should this succeed, the page must not be executed any more.
pub unsafe fn make_writable(code: *const u8) -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the page stays readable, nothing is written to it, and the caller
    // does not execute it.
    check(unsafe { libc::mprotect(code.cast_mut().cast(), PAGE, protection) })
}

/// Keeps the calling thread on one CPU.
pub fn run_on(cpu: usize) -> io::Result<()> {
    // SAFETY: the type is an array of bits; all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the function checks `cpu` against the size of the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the kernel reads as many bytes of `set` as it is told; 0 is the
    // calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
