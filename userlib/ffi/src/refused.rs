// SPDX-License-Identifier: MIT OR Apache-2.0

//! Says who makes closures in another way: a library that maps memory which is
//! writable and executable itself, as Python's cffi does, gets nothing from this one.
//! Where such memory is refused it fails, and its users are not told why.
//!
//! So this has `mmap`, which does what the C library's does, and says it once.

use std::ffi::{CStr, c_int, c_long, c_void};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

unsafe extern "C" {
    // Of the unwinder that the standard library uses.
    fn _Unwind_Backtrace(
        visit: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
}

const GO_ON: c_int = 0;
const STOP: c_int = 4;

/// The program or library that has an address: where it begins, and its name.
fn object(address: usize) -> Option<(usize, &'static CStr)> {
    let mut info = MaybeUninit::<libc::Dl_info>::uninit();
    let address = std::ptr::without_provenance(address);
    // SAFETY: any address may be asked about; the result is filled if there is one, and
    // names are there as long as the library is loaded: the caller is in it.
    unsafe {
        if libc::dladdr(address, info.as_mut_ptr()) == 0 {
            return None;
        }
        let info = info.assume_init();
        let name = (!info.dli_fname.is_null()).then(|| CStr::from_ptr(info.dli_fname));
        Some((info.dli_fbase.addr(), name.unwrap_or_default()))
    }
}

/// Leaves the first address that is not of this library in the argument.
extern "C" fn visit(context: *mut c_void, argument: *mut c_void) -> c_int {
    // SAFETY: the unwinder passes its context, and what `caller` gave it.
    let (address, found) = unsafe { (_Unwind_GetIP(context), &mut *argument.cast::<usize>()) };
    let own = object(visit as *const () as usize).map(|(base, _)| base);
    if object(address).map(|(base, _)| base) == own {
        return GO_ON;
    }
    *found = address;
    STOP
}

/// The name of the library that has called a function of this one.
fn caller() -> &'static CStr {
    let mut address: usize = 0;
    // SAFETY: the function takes such an argument, which is there during the call.
    unsafe { _Unwind_Backtrace(visit, (&raw mut address).cast()) };
    let name = object(address).map(|(_, name)| name);
    name.filter(|name| !name.is_empty()).unwrap_or(c"something")
}

/// Whether a mapping that failed like this is what closures need that are not of this
/// library.
const fn is_for_code(access: c_int, flags: c_int) -> bool {
    let both = libc::PROT_WRITE | libc::PROT_EXEC;
    access & both == both && flags & libc::MAP_ANONYMOUS != 0
}

fn errno() -> *mut c_int {
    // SAFETY: it has one in each thread.
    unsafe { libc::__errno_location() }
}

#[cold]
fn refused() {
    static SAID: AtomicBool = AtomicBool::new(false);
    // SAFETY: it is valid for this thread.
    let error = unsafe { *errno() };
    if ![libc::EACCES, libc::EPERM].contains(&error) || SAID.swap(true, Ordering::Relaxed) {
        return;
    }
    let name = caller().to_string_lossy();
    crate::say(format_args!(
        "writable and executable memory was refused to {name}; closures that it makes there \
         do not come from ffi_closure_alloc(), so this library can't make them (cffi's \
         ffi.callback() is like that; its extern \"Python\" functions need no such memory)"
    ));
    // SAFETY: as above.
    unsafe { *errno() = error };
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(
    address: *mut c_void,
    len: usize,
    access: c_int,
    flags: c_int,
    file: c_int,
    offset: libc::off_t,
) -> *mut c_void {
    let [access_long, flags_long, file] = [access, flags, file].map(c_long::from);
    let number = libc::SYS_mmap;
    // SAFETY: as promised by the caller.
    let mapped =
        unsafe { libc::syscall(number, address, len, access_long, flags_long, file, offset) };
    if mapped == -1 && is_for_code(access, flags) {
        refused();
    }
    std::ptr::with_exposed_provenance_mut(usize::from_ne_bytes(mapped.to_ne_bytes()))
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64(
    address: *mut c_void,
    len: usize,
    access: c_int,
    flags: c_int,
    file: c_int,
    offset: libc::off64_t,
) -> *mut c_void {
    // SAFETY: as promised by the caller.
    unsafe { mmap(address, len, access, flags, file, offset) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::in_child;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::FromRawFd;

    const PR_SET_MDWE: c_int = 65;
    const SKIPPED: i32 = 77;

    /// What closures take their memory from that are not libffi's.
    fn ask(access: c_int) -> bool {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: nothing is replaced.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, flags, -1, 0) };
        at != libc::MAP_FAILED
    }

    #[test]
    fn memory_that_is_refused_to_others_is_said_once() {
        let mut pipe = [0; 2];
        // SAFETY: the array has room for two descriptors, which are this test's.
        let (mut here, there) = unsafe {
            assert_eq!(libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC), 0);
            (File::from_raw_fd(pipe[0]), File::from_raw_fd(pipe[1]))
        };
        let status = in_child(|| {
            let both = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: the child's own descriptors and process.
            unsafe {
                libc::dup2(pipe[1], libc::STDERR_FILENO);
                if libc::prctl(PR_SET_MDWE, 1, 0, 0, 0) != 0 {
                    return SKIPPED;
                }
            }
            let plain = ask(both);
            let refused = (0..3).filter(|_| !ask(both | libc::PROT_EXEC)).count();
            // SAFETY: it is valid for this thread.
            let told = unsafe { *errno() } == libc::EACCES;
            i32::from(!plain || refused != 3 || !told)
        });
        drop(there);
        if status == SKIPPED {
            eprintln!("SKIP: this kernel has no PR_SET_MDWE");
            return;
        }
        let mut said = String::new();
        here.read_to_string(&mut said).unwrap();
        assert_eq!((status, said.lines().count()), (0, 1), "{said}");
        assert!(
            said.starts_with("libjitfd_ffi: writable and executable"),
            "{said}"
        );
        assert!(said.contains("ffi.callback()"), "{said}");
    }
}
