// SPDX-License-Identifier: MIT OR Apache-2.0

//! Turns a program's ordinary calls for executable memory into publications of
//! `/dev/jit`; the program stays as it is.
//!
//! ```text
//! jitfd-run luajit program.lua
//! ```
//!
//! `mprotect()` of private memory to executable is a `JIT_CREATE_CODE` over the same
//! pages; back to writable, the pages that are then written to become ordinary memory
//! with the same bytes. Memory that is writable and executable at once is refused, or
//! (`--faults`) each page of it is one of both, as it is used.
//! `Documentation/engines.rst` says what that is worth and for which engines it does.
//!
//! # What these functions may do
//! The C library's are called from signal handlers, in children of `fork()` and
//! `vfork()`, and before and after `main()`. So nothing here allocates, or takes a lock
//! of another library; the one lock (`shared.rs`) is held with all signals blocked, and
//! is free in every child. A child may see a page in the middle of a change: then that
//! is noted (`Page::Unsure`), and what comes next is right whichever it is.

#![deny(missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]
#![cfg_attr(
    test,
    allow(
        dead_code,
        reason = "the tests' own program keeps the C library's functions"
    )
)]

/// The interface of `/dev/jit`.
#[expect(dead_code, reason = "one call of it is needed")]
#[path = "../../../module/uapi/abi.rs"]
mod abi;
mod caller;
mod code;
mod fault;
#[forbid(unsafe_code)]
mod maps;
mod memory;
mod options;
#[forbid(unsafe_code)]
mod page;
mod read;
mod shared;
mod signals;
mod sys;
mod table;
#[forbid(unsafe_code)]
mod text;

use core::ffi::{c_int, c_void};

/// What a function of the C library returns.
fn answer(result: sys::Result) -> usize {
    result.unwrap_or_else(|error| {
        sys::set_errno(error);
        usize::MAX
    })
}

fn number(result: sys::Result) -> c_int {
    match answer(result) {
        usize::MAX => -1,
        _ => 0,
    }
}

fn pointer(result: sys::Result) -> *mut c_void {
    core::ptr::with_exposed_provenance_mut(answer(result))
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn mmap(
    address: *mut c_void,
    len: usize,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: usize,
    behind: caller::Behind,
) -> *mut c_void {
    let (asker, address) = (behind.return_address(), address.expose_provenance());
    // SAFETY: as promised by the caller.
    pointer(unsafe { memory::mmap(asker, address, len, protection, flags, file, offset) })
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn mmap64(
    address: *mut c_void,
    len: usize,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: usize,
    behind: caller::Behind,
) -> *mut c_void {
    let (asker, address) = (behind.return_address(), address.expose_provenance());
    // SAFETY: as promised by the caller.
    pointer(unsafe { memory::mmap(asker, address, len, protection, flags, file, offset) })
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn munmap(address: *mut c_void, len: usize) -> c_int {
    // SAFETY: as promised by the caller.
    number(unsafe { memory::munmap(address.expose_provenance(), len) })
}

/// As the C library's, which takes its last argument only with some flags: without them
/// this one reads a register that nobody has set, and does not use it.
///
/// # Safety
/// As the C library's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn mremap(
    old: *mut c_void,
    old_len: usize,
    len: usize,
    flags: c_int,
    new: *mut c_void,
) -> *mut c_void {
    let (old, new) = (old.expose_provenance(), new.expose_provenance());
    // SAFETY: as promised by the caller.
    pointer(unsafe { memory::mremap(old, old_len, len, flags, new) })
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn mprotect(
    address: *mut c_void,
    len: usize,
    protection: c_int,
    behind: caller::Behind,
) -> c_int {
    let asker = behind.return_address();
    // SAFETY: as promised by the caller.
    number(unsafe { memory::mprotect(asker, address.expose_provenance(), len, protection) })
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn madvise(address: *mut c_void, len: usize, advice: c_int) -> c_int {
    // SAFETY: as promised by the caller.
    number(unsafe { memory::madvise(address.expose_provenance(), len, advice) })
}

/// There are no protection keys: code of `/dev/jit` takes none.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn pkey_alloc(_flags: u32, _rights: u32) -> c_int {
    number(Err(libc::ENOSPC))
}

/// As the C library's, with the key that means none.
///
/// # Safety
/// As the C library's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn pkey_mprotect(
    address: *mut c_void,
    len: usize,
    protection: c_int,
    key: c_int,
    behind: caller::Behind,
) -> c_int {
    let (asker, address) = (behind.return_address(), address.expose_provenance());
    match key {
        // SAFETY: as promised by the caller.
        -1 => number(unsafe { memory::mprotect(asker, address, len, protection) }),
        _ => number(Err(libc::EINVAL)),
    }
}

/// As the C library's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn _exit(status: c_int) -> ! {
    end();
    sys::exit(status)
}

/// As the C library's.
#[allow(non_snake_case, reason = "its name")]
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn _Exit(status: c_int) -> ! {
    _exit(status)
}

extern "C" fn begin() {
    options::get();
    signals::find_all();
    read::find_all();
    // Who started the program may have blocked it.
    sys::block(libc::SIG_UNBLOCK, sys::bit(libc::SIGSEGV));
}

extern "C" fn end() {
    if options::get().report {
        options::report(code::mappings());
    }
}

/// The loader calls it before `main()`.
#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

/// `exit()` calls it.
#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".fini_array")]
static END: extern "C" fn() = end;
