// SPDX-License-Identifier: MIT OR Apache-2.0

//! What libffi's users call to get closures.

use crate::backend::{JITFD_FALLBACK_DEFAULT, jit};
use crate::guard::{self, Failure};
use crate::pointer;
use jitfd_trampoline::LibffiClosures;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Those of the process, once there are any: null, or from a box that is never freed.
/// Not a lock, which a child could inherit while it is held.
static CLOSURES: AtomicPtr<LibffiClosures> = AtomicPtr::new(null_mut());

fn existing() -> Option<&'static LibffiClosures> {
    // SAFETY: as said above.
    unsafe { CLOSURES.load(Ordering::Acquire).as_ref() }
}

fn closures() -> Result<&'static LibffiClosures, Failure> {
    if let Some(closures) = existing() {
        return Ok(closures);
    }
    // Two threads may get here; one of the two is dropped again.
    let made = LibffiClosures::new(jit(JITFD_FALLBACK_DEFAULT)?)?;
    let made = Box::into_raw(Box::new(made));
    let order = (Ordering::AcqRel, Ordering::Acquire);
    let set = CLOSURES.compare_exchange(null_mut(), made, order.0, order.1);
    // SAFETY: if another thread was first, nobody else knows of `made`; what is set is
    // never freed.
    unsafe {
        if set.is_err() {
            drop(Box::from_raw(made));
        }
        Ok(&*set.map_or_else(|first| first, |_| made))
    }
}

/// As libffi's ffi_closure_alloc, for libffi 3.4 or newer: memory for an ffi_closure
/// of size bytes, and the address where its code will be, which is what
/// ffi_prep_closure_loc wants as codeloc. Give it back with jitfd_ffi_closure_free.
/// The first call sets up what they have in common, as jitfd_allow_fallback says.
///
/// Returns null with errno as jitfd_region_create; EINVAL also if code is null or size is
/// less than 56, the size of an ffi_closure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_ffi_closure_alloc(
    size: usize,
    code: *mut *mut c_void,
) -> *mut c_void {
    guard::address(|| {
        pointer::wanted(code)?;
        let (closure, entry) = closures()?.alloc(size)?;
        // SAFETY: the header says what this pointer must be.
        unsafe { pointer::store(code, entry.cast_mut()) };
        Ok(closure)
    })
}

/// As libffi's ffi_closure_free: gives back what jitfd_ffi_closure_alloc has returned.
/// Nobody calls its code from now on. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_ffi_closure_free(closure: *mut c_void) {
    guard::quietly(|| {
        if let Some(closures) = existing() {
            // SAFETY: the header says what this pointer must be.
            unsafe { closures.free(closure) };
        }
    });
}
