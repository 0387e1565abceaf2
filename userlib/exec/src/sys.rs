// SPDX-License-Identifier: MIT OR Apache-2.0

//! System calls, by the instruction: they leave `errno` alone, take no lock, and don't
//! come back to the functions that this library has in the C library's place.

use core::arch::asm;
use core::ffi::{CStr, c_int};

use libc::c_long;

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// An `errno`.
pub type Errno = c_int;
/// What a system call returns.
pub type Result<T = usize> = core::result::Result<T, Errno>;

/// The calling thread's `errno`.
pub fn errno() -> Errno {
    // SAFETY: it is valid for this thread.
    unsafe { *libc::__errno_location() }
}

/// Sets the calling thread's `errno`.
pub fn set_errno(error: Errno) {
    // SAFETY: it is valid for this thread.
    unsafe { *libc::__errno_location() = error };
}

/// A number as a register holds it.
const fn word(number: c_int) -> usize {
    // Sign extension, as the C library does it.
    number as isize as usize
}

/// # Safety
/// As the system call.
unsafe fn call(number: c_long, words: [usize; 6]) -> Result {
    let result: isize;
    // SAFETY: the kernel changes these registers, and the memory that the call is about.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") words[0],
            in("rsi") words[1],
            in("rdx") words[2],
            in("r10") words[3],
            in("r8") words[4],
            in("r9") words[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    match result {
        -4095..=-1 => Err(-(result as c_int)),
        _ => Ok(result as usize),
    }
}

/// Whether the kernel would say that such an address and length are no pages.
pub const fn is_aligned(address: usize, len: usize) -> bool {
    address % PAGE == 0 && len <= usize::MAX - PAGE
}

/// # Safety
/// As `mmap()`.
pub unsafe fn mmap(
    address: usize,
    len: usize,
    access: c_int,
    flags: c_int,
    file: c_int,
    offset: usize,
) -> Result {
    let words = [address, len, word(access), word(flags), word(file), offset];
    // SAFETY: as promised by the caller.
    unsafe { call(libc::SYS_mmap, words) }
}

/// # Safety
/// As `munmap()`.
pub unsafe fn munmap(address: usize, len: usize) -> Result {
    // SAFETY: as promised by the caller.
    unsafe { call(libc::SYS_munmap, [address, len, 0, 0, 0, 0]) }
}

/// # Safety
/// As `mprotect()`.
pub unsafe fn mprotect(address: usize, len: usize, access: c_int) -> Result {
    // SAFETY: as promised by the caller.
    unsafe { call(libc::SYS_mprotect, [address, len, word(access), 0, 0, 0]) }
}

/// # Safety
/// As `mremap()`.
pub unsafe fn mremap(old: usize, old_len: usize, len: usize, flags: c_int, new: usize) -> Result {
    // SAFETY: as promised by the caller.
    unsafe { call(libc::SYS_mremap, [old, old_len, len, word(flags), new, 0]) }
}

/// # Safety
/// As `madvise()`.
pub unsafe fn madvise(address: usize, len: usize, advice: c_int) -> Result {
    // SAFETY: as promised by the caller.
    unsafe { call(libc::SYS_madvise, [address, len, word(advice), 0, 0, 0]) }
}

/// Which pages of a range are in memory, the least bit of each byte.
pub fn mincore(address: usize, pages: &mut [u8]) -> Result {
    let words = [
        address,
        pages.len() * PAGE,
        pages.as_mut_ptr().expose_provenance(),
        0,
        0,
        0,
    ];
    // SAFETY: the kernel writes a byte a page.
    unsafe { call(libc::SYS_mincore, words) }
}

/// Writes all bytes, or gives up.
pub fn write(file: c_int, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let words = [
            word(file),
            bytes.as_ptr().expose_provenance(),
            bytes.len(),
            0,
            0,
            0,
        ];
        // SAFETY: the kernel reads the bytes.
        match unsafe { call(libc::SYS_write, words) } {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(libc::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads some bytes.
pub fn read(file: c_int, bytes: &mut [u8]) -> Result {
    let words = [
        word(file),
        bytes.as_mut_ptr().expose_provenance(),
        bytes.len(),
        0,
        0,
        0,
    ];
    // SAFETY: the kernel writes the bytes.
    unsafe { call(libc::SYS_read, words) }
}

/// Opens a file for reading; the descriptor is closed by `execve()`.
pub fn open(path: &CStr) -> Result<c_int> {
    let flags = word(libc::O_RDONLY | libc::O_CLOEXEC);
    let words = [
        word(libc::AT_FDCWD),
        path.as_ptr().expose_provenance(),
        flags,
        0,
        0,
        0,
    ];
    // SAFETY: the path ends with a NUL.
    unsafe { call(libc::SYS_openat, words) }.map(|file| file as c_int)
}

/// A file in memory.
pub fn memfd_create(name: &CStr) -> Result<c_int> {
    // MFD_EXEC: where files in memory can't be executed unless one asks for it.
    let flags = (libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | 0x10) as usize;
    let words = [name.as_ptr().expose_provenance(), flags, 0, 0, 0, 0];
    // SAFETY: the name ends with a NUL.
    unsafe { call(libc::SYS_memfd_create, words) }.map(|file| file as c_int)
}

/// Closes a descriptor of this library's own.
pub fn close(file: c_int) {
    // SAFETY: no memory is concerned.
    let _ = unsafe { call(libc::SYS_close, [word(file), 0, 0, 0, 0, 0]) };
}

/// `fcntl()` with a number.
pub fn fcntl(file: c_int, command: c_int, argument: c_int) -> Result<c_int> {
    let words = [word(file), word(command), word(argument), 0, 0, 0];
    // SAFETY: the commands that are used here are about no memory.
    unsafe { call(libc::SYS_fcntl, words) }.map(|result| result as c_int)
}

/// # Safety
/// As the ioctl.
pub unsafe fn ioctl(file: c_int, number: u32, argument: usize) -> Result {
    // SAFETY: as promised by the caller.
    unsafe {
        call(
            libc::SYS_ioctl,
            [word(file), number as usize, argument, 0, 0, 0],
        )
    }
}

/// The process.
pub fn getpid() -> c_int {
    // SAFETY: no memory is concerned.
    unsafe { call(libc::SYS_getpid, [0; 6]) }.unwrap_or(0) as c_int
}

/// Sends the calling thread a signal.
pub fn raise(signal: c_int) {
    // SAFETY: no memory is concerned.
    unsafe {
        let thread = call(libc::SYS_gettid, [0; 6]).unwrap_or(0);
        let _ = call(
            libc::SYS_tgkill,
            [getpid() as usize, thread, word(signal), 0, 0, 0],
        );
    }
}

/// Ends the process.
pub fn exit(status: c_int) -> ! {
    loop {
        // SAFETY: no memory is concerned.
        let _ = unsafe { call(libc::SYS_exit_group, [word(status), 0, 0, 0, 0, 0]) };
    }
}

/// Waits while the word has this value.
pub fn futex_wait(word_: &core::sync::atomic::AtomicU32, value: u32) {
    let operation = word(libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG);
    let words = [
        word_.as_ptr().expose_provenance(),
        operation,
        value as usize,
        0,
        0,
        0,
    ];
    // SAFETY: the word is there as long as it is borrowed.
    let _ = unsafe { call(libc::SYS_futex, words) };
}

/// Wakes one of those that wait.
pub fn futex_wake(word_: &core::sync::atomic::AtomicU32) {
    let operation = word(libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG);
    let words = [word_.as_ptr().expose_provenance(), operation, 1, 0, 0, 0];
    // SAFETY: as above.
    let _ = unsafe { call(libc::SYS_futex, words) };
}

/// A set of signals as the kernel has it.
pub type Mask = u64;

/// The bit of a signal.
pub const fn bit(signal: c_int) -> Mask {
    1 << (signal - 1)
}

/// Sets the signals that the calling thread blocks; those it did before.
pub fn block(how: c_int, mask: Mask) -> Mask {
    let mut old: Mask = 0;
    let words = [
        word(how),
        (&raw const mask).expose_provenance(),
        (&raw mut old).expose_provenance(),
        size_of::<Mask>(),
        0,
        0,
    ];
    // SAFETY: the kernel reads one set and writes the other.
    let _ = unsafe { call(libc::SYS_rt_sigprocmask, words) };
    old
}
