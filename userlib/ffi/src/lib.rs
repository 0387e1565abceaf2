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
//!
//! Who maps writable and executable memory for closures by itself, as cffi's
//! `ffi.callback()` does, is not helped; that is said as well, where such memory is
//! refused.

#![deny(missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]

mod refused;

use jitfd::{Error, Fallback, Jit};
use jitfd_trampoline::LibffiClosures;
use std::ffi::c_void;
use std::fmt;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// Those of the process, once there are any: null, or from a box that is never freed.
/// Not a lock, which a child could inherit while it is held.
static CLOSURES: AtomicPtr<LibffiClosures> = AtomicPtr::new(null_mut());
/// What can't be made at first is not tried again: the program may have used other
/// memory meanwhile.
static FAILED: AtomicBool = AtomicBool::new(false);

fn existing() -> Option<&'static LibffiClosures> {
    // SAFETY: as said above.
    unsafe { CLOSURES.load(Ordering::Acquire).as_ref() }
}

fn closures() -> Option<&'static LibffiClosures> {
    if let Some(closures) = existing() {
        return Some(closures);
    }
    if FAILED.load(Ordering::Relaxed) {
        return None;
    }
    // Several threads may get here; those that are not the first drop theirs again.
    let made = fallback().and_then(|fallback| LibffiClosures::new(&Jit::open(fallback)?));
    match made {
        Ok(made) => {
            let made = Box::into_raw(Box::new(made));
            let order = (Ordering::AcqRel, Ordering::Acquire);
            let set = CLOSURES.compare_exchange(null_mut(), made, order.0, order.1);
            if set.is_err() {
                // SAFETY: nobody else knows of it.
                drop(unsafe { Box::from_raw(made) });
            }
        }
        Err(error) => {
            if !FAILED.swap(true, Ordering::Relaxed) {
                say(format_args!("{error}"));
            }
        }
    }
    existing()
}

/// One line on standard error. Not by the library's own stream, whose lock a thread of
/// the parent may have held at the `fork()`.
fn say(text: fmt::Arguments<'_>) {
    let line = format!("libjitfd_ffi: {text}\n");
    // SAFETY: the bytes are valid for reads.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
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
    let Some((closure, entry)) = made else {
        return null_mut();
    };
    // SAFETY: as promised by the caller.
    unsafe { code.write(entry.cast_mut()) };
    closure
}

/// As libffi's: gives memory back.
///
/// # Safety
/// `closure` is null, or from `ffi_closure_alloc` and was not given back; its code is
/// not called any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ffi_closure_free(closure: *mut c_void) {
    if let Some(closures) = existing() {
        // SAFETY: as promised by the caller.
        unsafe { closures.free(closure) };
    }
}

#[cfg(test)]
pub(crate) mod tests {
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

    /// The status of a forked child that does `work`; a child that hangs dies, which is
    /// -1.
    pub(crate) fn in_child(work: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child does `work` and ends.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::alarm(60);
                libc::_exit(work());
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
            if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                -1
            }
        }
    }

    fn makes_one() -> i32 {
        let mut code = null_mut();
        // SAFETY: as the function wants it.
        let closure = unsafe { ffi_closure_alloc(56, &raw mut code) };
        i32::from(closure.is_null())
    }

    /// In a process that has made none yet. One that has to wait for another thread's
    /// tables of instructions is told that there is none.
    fn a_child_that_is_forked_while_the_first_is_made_does_not_hang() {
        for delay in 0..200 {
            let status = in_child(|| {
                std::thread::scope(|scope| {
                    let other = scope.spawn(makes_one);
                    std::thread::sleep(std::time::Duration::from_micros(5 * delay));
                    let ends = in_child(makes_one) >= 0;
                    other.join().unwrap_or(2) + 2 * i32::from(!ends)
                })
            });
            assert_eq!(status, 0, "after {delay} steps");
        }
    }

    #[test]
    fn memory_as_libffi_gives_it() {
        // SAFETY: no other thread of this program reads or writes the environment.
        unsafe { std::env::set_var("JITFD_FFI_FALLBACK", "any") };
        a_child_that_is_forked_while_the_first_is_made_does_not_hang();
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
