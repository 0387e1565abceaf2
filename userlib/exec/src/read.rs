// SPDX-License-Identifier: MIT OR Apache-2.0

//! The C library's functions by which the kernel writes into a buffer that may be code
//! which the program may write to: there is no fault that a handler would see, only
//! `EFAULT`. So such pages become writable before.

use core::ffi::{c_int, c_void};

use crate::signals::Next;
use crate::{memory, sys};

static READ: Next = Next::new(c"read");
static PREAD: Next = Next::new(c"pread");

/// Looks all of them up, before there are signals.
pub fn find_all() {
    READ.find();
    PREAD.find();
}

/// Does a call of the C library whose buffer this is. Another thread may execute the
/// buffer's page meanwhile, so that it becomes code again; not for ever.
fn into(buffer: *mut c_void, len: usize, call: impl Fn() -> isize) -> isize {
    const TRIES: u32 = 100;
    let mut tries = 0;
    loop {
        let was_code = memory::make_writable(buffer.expose_provenance(), len);
        let result = call();
        tries += 1;
        if result >= 0 || !was_code || sys::errno() != libc::EFAULT || tries == TRIES {
            return result;
        }
    }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn read(file: c_int, buffer: *mut c_void, len: usize) -> isize {
    type Function = unsafe extern "C" fn(c_int, *mut c_void, usize) -> isize;
    // SAFETY: null, or the function of this name and type.
    let function: Option<Function> = unsafe { core::mem::transmute(READ.find()) };
    function.map_or(-1, |function| {
        // SAFETY: as promised by the caller.
        into(buffer, len, || unsafe { function(file, buffer, len) })
    })
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn pread(
    file: c_int,
    buffer: *mut c_void,
    len: usize,
    offset: libc::off_t,
) -> isize {
    type Function = unsafe extern "C" fn(c_int, *mut c_void, usize, libc::off_t) -> isize;
    // SAFETY: null, or the function of this name and type.
    let function: Option<Function> = unsafe { core::mem::transmute(PREAD.find()) };
    function.map_or(-1, |function| {
        // SAFETY: as promised by the caller.
        into(buffer, len, || unsafe {
            function(file, buffer, len, offset)
        })
    })
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn pread64(
    file: c_int,
    buffer: *mut c_void,
    len: usize,
    offset: libc::off_t,
) -> isize {
    // SAFETY: as promised by the caller.
    unsafe { pread(file, buffer, len, offset) }
}
