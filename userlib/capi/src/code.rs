// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finished code in a mapping of its own.

use crate::backend::{JITFD_FALLBACK_DEFAULT, jit};
use crate::chunk::jitfd_chunk;
use crate::guard::{self, Failure};
use crate::pointer;
use rust::{Rules, validate_owned};
use std::ffi::{c_int, c_void};

/// A new mapping that holds exactly len bytes of code from source, readable and
/// executable, never writable. The rest of the last page is 0xCC.
///
/// A copy of the code is checked as by jitfd_validate without rules, and that
/// copy is published. For code with data, or to go around the check, make a
/// chunk and use jitfd_create_code.
///
/// It ends with munmap(code, len), or jit_destroy_code, which is the same.
///
/// Returns null with errno EILSEQ if the code is refused; EINVAL for a null
/// source or a length of 0 or above 1 GiB; ENOENT if the module is not loaded;
/// EACCES if a file mode or policy forbids it; EPERM if /dev is mounted noexec;
/// ENOMEM; EDQUOT at the user's bound; EMFILE or ENFILE if the first call can't
/// open the device. If fallbacks are allowed and refused too, the errno is that of
/// the device, and jitfd_error has all of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jit_create_code(source: *const c_void, len: usize) -> *mut c_void {
    guard::address(|| {
        // SAFETY: the header says what this pointer must be.
        let copy = unsafe { pointer::copy(source, len) }?;
        let chunk = validate_owned(copy, &Rules::new())?;
        let code = jit(JITFD_FALLBACK_DEFAULT)?.code(&chunk)?;
        Ok(code.into_raw().0.cast_mut().cast())
    })
}

/// Unmaps code of jit_create_code or jitfd_create_code. len is its length.
///
/// As munmap it knows pages, not code: whatever is mapped there goes, and where
/// nothing is, a second time for instance, it returns 0.
///
/// Returns 0, or -1 with errno EINVAL if code is null or not the start of a page of
/// user space, or len is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jit_destroy_code(code: *mut c_void, len: usize) -> c_int {
    guard::status(|| {
        pointer::wanted(code)?;
        // SAFETY: the caller gives up the mapping, and all that executes it.
        match unsafe { libc::munmap(code, len) } {
            0 => Ok(()),
            _ => Err(Failure::Refused(libc::EINVAL, "there is no code to unmap")),
        }
    })
}

/// As jit_create_code, with a chunk, and one of JITFD_FALLBACK_: 0 is as the process
/// allows.
///
/// Returns null with errno as jit_create_code, but never EILSEQ; EINVAL also if there
/// is no such fallback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_create_code(
    chunk: *const jitfd_chunk,
    fallback: u32,
) -> *mut c_void {
    // SAFETY: the header says what this pointer must be.
    guard::address(|| unsafe {
        let chunk = pointer::object(chunk)?;
        let code = jit(fallback)?.code(&chunk.code)?;
        Ok(code.into_raw().0.cast_mut().cast())
    })
}

/// Replaces the pages at address by a chunk, in one step: for engines that write
/// code at the address at which they will execute it. The pages are the caller's
/// private memory, and no thread uses them meanwhile; the rest of the last one
/// becomes 0xCC. They stay the caller's to unmap.
///
/// Returns 0, or -1 with errno as jitfd_create_code, and EINVAL also if address
/// is not the start of a page or some page is neither private memory nor earlier
/// code (only the kernel checks that). The pages are unchanged then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_create_code_at(
    chunk: *const jitfd_chunk,
    address: *mut c_void,
    fallback: u32,
) -> c_int {
    // SAFETY: the header says what these pointers must be, and that the pages
    // are the caller's to replace.
    guard::status(|| unsafe {
        let chunk = pointer::object(chunk)?;
        Ok(jit(fallback)?.code_at(&chunk.code, address.cast())?)
    })
}

/// Makes the pages from address on code, as they are: for engines with a hook that is
/// told where its code lies, but not what of it is data. It is mprotect to PROT_READ |
/// PROT_EXEC where that is refused. All pages with one of the len bytes keep all their
/// bytes; nothing is validated. The pages are the caller's private memory, readable, and
/// no thread uses them meanwhile. A len of 0 does nothing.
///
/// Returns 0, or -1 with errno as jitfd_create_code_at. The pages are unchanged then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_make_executable(
    address: *mut c_void,
    len: usize,
    fallback: u32,
) -> c_int {
    // SAFETY: the header says that the pages are the caller's to replace.
    guard::status(|| unsafe { Ok(jit(fallback)?.make_executable(address.cast(), len)?) })
}

/// The way back: makes the pages from address on ordinary memory with the same bytes,
/// which can be written and not executed, in one step. The pages are of
/// jitfd_make_executable, jitfd_create_code_at or private memory, and no thread uses them
/// meanwhile. A len of 0 does nothing.
///
/// Returns 0, or -1 with errno EINVAL if address is not the start of a page, or ENOMEM.
/// The pages are unchanged then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_make_writable(
    address: *mut c_void,
    len: usize,
    fallback: u32,
) -> c_int {
    // SAFETY: the header says that the pages are the caller's to replace.
    guard::status(|| unsafe { Ok(jit(fallback)?.make_writable(address.cast(), len)?) })
}
