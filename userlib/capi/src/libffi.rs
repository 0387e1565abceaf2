// SPDX-License-Identifier: MIT OR Apache-2.0

//! What libffi's users call to get closures.

use crate::guard::{self, Failure};
use crate::options::Choice;
use crate::pointer;
use jitfd_trampoline::LibffiClosures;
use std::ffi::c_void;
use std::sync::OnceLock;

/// Those of the process, once there are any.
static CLOSURES: OnceLock<LibffiClosures> = OnceLock::new();

fn closures() -> Result<&'static LibffiClosures, Failure> {
    if let Some(closures) = CLOSURES.get() {
        return Ok(closures);
    }
    // Two threads may get here; one of the two is dropped again.
    let made = LibffiClosures::with_fallback(Choice::default()?.fallback)?;
    Ok(CLOSURES.get_or_init(|| made))
}

/// As libffi's ffi_closure_alloc, for libffi 3.4 or newer: memory for an ffi_closure
/// of size bytes, and the address where its code will be, which is what
/// ffi_prep_closure_loc wants as codeloc. Give it back with jitfd_ffi_closure_free.
/// The first call sets up what they have in common, as jitfd_allow_fallback says.
///
/// Returns null with errno as jitfd_create; EINVAL also if code is null or size is
/// less than 56, the size of an ffi_closure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_ffi_closure_alloc(
    size: usize,
    code: *mut *mut c_void,
) -> *mut c_void {
    guard::address(|| {
        pointer::wanted(code)?;
        let made = closures()?.alloc(size)?;
        // SAFETY: the header says what this pointer must be.
        unsafe { pointer::store(code, made.code.cast_mut()) };
        Ok(made.closure)
    })
}

/// As libffi's ffi_closure_free: gives back what jitfd_ffi_closure_alloc has returned.
/// Nobody calls its code from now on. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_ffi_closure_free(closure: *mut c_void) {
    guard::quietly(|| {
        if let Some(closures) = CLOSURES.get() {
            // SAFETY: the header says what this pointer must be.
            unsafe { closures.free(closure) };
        }
    });
}
