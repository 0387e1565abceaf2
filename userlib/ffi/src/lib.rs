// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ffi_closure_alloc` and `ffi_closure_free` for programs that stay as they are:
//! loaded before libffi, these are found instead of libffi's.
//!
//! ```text
//! LD_PRELOAD=libjitfd_ffi.so python3 program.py
//! ```
//!
//! By `/dev/jit` or not at all, unless the environment variable
//! `JITFD_FFI_FALLBACK` is `dual-mapping` or `any`. Without memory libffi's users get
//! a null pointer; why is said on standard error, once.

#![deny(missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]

use jitfd::{Error, Fallback};
use jitfd_trampoline::LibffiClosures;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::OnceLock;

/// Those of the process. What can't be made at first is not tried again: the program
/// may have used other memory meanwhile.
static CLOSURES: OnceLock<Option<LibffiClosures>> = OnceLock::new();

fn closures() -> Option<&'static LibffiClosures> {
    let made = CLOSURES.get_or_init(|| {
        let made = fallback().and_then(LibffiClosures::with_fallback);
        made.inspect_err(|error| eprintln!("libjitfd_ffi: {error}"))
            .ok()
    });
    made.as_ref()
}

fn fallback() -> Result<Fallback, Error> {
    match std::env::var_os("JITFD_FFI_FALLBACK") {
        None => Ok(Fallback::Never),
        Some(word) if word == "dual-mapping" => Ok(Fallback::DualMapping),
        Some(word) if word == "any" => Ok(Fallback::Any),
        Some(_) => Err(Error::Argument(
            "JITFD_FFI_FALLBACK is neither dual-mapping nor any",
        )),
    }
}

/// As libffi's: memory for a closure, and the address of its code; null if there is
/// none.
///
/// # Safety
/// `code` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ffi_closure_alloc(size: usize, code: *mut *mut c_void) -> *mut c_void {
    if code.is_null() {
        return null_mut();
    }
    let made = closures().and_then(|closures| closures.alloc(size).ok());
    let Some(made) = made else {
        return null_mut();
    };
    // SAFETY: as promised by the caller.
    unsafe { code.write(made.code.cast_mut()) };
    made.closure
}

/// As libffi's: gives memory back.
///
/// # Safety
/// `closure` is null, or from `ffi_closure_alloc` and was not given back; its code is
/// not called any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ffi_closure_free(closure: *mut c_void) {
    if let Some(closures) = closures() {
        // SAFETY: as promised by the caller.
        unsafe { closures.free(closure) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// The line of `/proc/self/maps` about an address.
    fn mapping(address: usize) -> String {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let holds = |line: &&str| {
            let (first, rest) = line.split_once('-').unwrap();
            let end = rest.split(' ').next().unwrap();
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            (number(first)..number(end)).contains(&address)
        };
        maps.lines().find(holds).unwrap().to_owned()
    }

    #[test]
    fn memory_as_libffi_gives_it() {
        // SAFETY: no other thread of this program reads or writes the environment.
        unsafe { std::env::set_var("JITFD_FFI_FALLBACK", "any") };
        let mut code = null_mut();
        // SAFETY: as the functions want it.
        unsafe {
            let closure = ffi_closure_alloc(56, &raw mut code);
            assert!(!closure.is_null());
            assert!(mapping(code.addr()).contains(" r-x"));
            assert!(mapping(closure.addr()).contains(" rw-"));
            ffi_closure_free(closure);
            ffi_closure_free(null_mut());
            assert!(ffi_closure_alloc(56, null_mut()).is_null());
            // What libffi before 3.4 had.
            assert!(ffi_closure_alloc(48, &raw mut code).is_null());
        }
    }
}
