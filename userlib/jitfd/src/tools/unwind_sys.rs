// SPDX-License-Identifier: MIT OR Apache-2.0

//! The unwinder's functions for generated code: all `unsafe` of it.
//!
//! Two libraries have functions of the same names and different meanings. In
//! libgcc `__register_frame` takes a whole `.eh_frame` section, in LLVM's
//! libunwind one entry of it. Which one the program uses is told by a symbol that
//! only the latter defines, and by who has defined the function that is called: a
//! program may have both libraries.
//!
//! Locks: both libraries have their own, which a child can't wait for that was forked
//! while another thread held it. So there is one of ours around each call, which tells
//! (`fork_lock.rs`). Nothing else is locked inside it.
#![expect(unsafe_code, reason = "this is the file for it")]

use super::eh_section::functions;
use crate::os::fork_lock::ForkLock;
use std::ffi::c_void;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU8, Ordering};

unsafe extern "C" {
    fn __register_frame(table: *const u8);
    fn __deregister_frame(table: *const u8);
}

/// Whether the unwinder is LLVM's.
fn is_llvm() -> bool {
    const UNKNOWN: u8 = 0;
    const YES: u8 = 1;
    const NO: u8 = 2;
    // Not a lock, which a child could inherit while it is held.
    static LLVM: AtomicU8 = AtomicU8::new(UNKNOWN);
    if LLVM.load(Ordering::Relaxed) == UNKNOWN {
        LLVM.store(if find() { YES } else { NO }, Ordering::Relaxed);
    }
    LLVM.load(Ordering::Relaxed) == YES
}

fn find() -> bool {
    if cfg!(target_feature = "crt-static") {
        return cfg!(target_env = "musl");
    }
    let symbol = c"__unw_add_dynamic_fde";
    // SAFETY: the name is a C string; nothing is called.
    let of_llvm = unsafe { libc::dlsym(libc::RTLD_DEFAULT, symbol.as_ptr()) };
    let called = __register_frame as *const () as *const c_void;
    !of_llvm.is_null() && object(of_llvm) == object(called)
}

/// The start of the program or library that this address lies in.
fn object(address: *const c_void) -> *mut c_void {
    let mut info = MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: any address may be asked about; the result is filled if there is one.
    unsafe {
        if libc::dladdr(address, info.as_mut_ptr()) == 0 {
            return null_mut();
        }
        info.assume_init().dli_fbase
    }
}

/// Held while the unwinder's functions are called.
static CALLS: ForkLock<()> = ForkLock::new(());

/// Does `work` alone, unless a thread of the parent was doing some at the `fork()`: then
/// the unwinder may wait for ever. Returns whether it was done.
fn alone(work: impl FnOnce()) -> bool {
    let turn = CALLS.lock();
    // Where a child can't be told from its parent it is as if there was none.
    let may = !matches!(turn, Ok(None));
    if may {
        work();
    }
    may
}

/// A table that the unwinder knows until this is dropped.
///
/// # Invariants
/// The bytes are a table that is registered if `known`.
#[derive(Debug)]
pub(super) struct Registered {
    bytes: ManuallyDrop<Box<[u8]>>,
    /// Not in a forked child that could not have it registered.
    known: bool,
}

impl Registered {
    /// # Safety
    /// `bytes` is a well-formed `.eh_frame` section with a zero at its end
    /// (`eh_section::check` looks at its structure), which describes the code at its
    /// addresses truly, as long as the result lives.
    pub(super) unsafe fn new(bytes: Box<[u8]>) -> Self {
        let handles = handles(&bytes);
        let known = alone(|| {
            for at in handles {
                // SAFETY: as promised by the caller; the box does not move.
                unsafe { __register_frame(at) };
            }
        });
        // INVARIANT: as just done.
        Self {
            bytes: ManuallyDrop::new(bytes),
            known,
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let handles = handles(&self.bytes);
        let forgotten = !self.known
            || alone(|| {
                for at in handles {
                    // SAFETY: by the type invariant it is registered.
                    unsafe { __deregister_frame(at) };
                }
            });
        // What the unwinder still knows stays.
        if forgotten {
            // SAFETY: not used again.
            unsafe { ManuallyDrop::drop(&mut self.bytes) };
        }
    }
}

/// What is registered: the table, or each function of it. Nothing if there are none:
/// libgcc 13 aborts when it is to forget such a table.
fn handles(table: &[u8]) -> Vec<*const u8> {
    let mut functions = functions(table).map(<[u8]>::as_ptr);
    if is_llvm() {
        functions.collect()
    } else {
        functions
            .next()
            .map(|_| table.as_ptr())
            .into_iter()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::fork::tests::in_child;
    use crate::tools::{EhFrame, Frame};
    use std::ffi::CString;

    #[test]
    fn a_table_without_functions_is_not_registered() {
        assert_eq!(handles(&EhFrame::default().into_bytes()).len(), 0);
        assert_eq!(handles(&[0; 4]).len(), 0);
        let mut table = EhFrame::default();
        table.add(0x1000, 16, &Frame::leaf()).unwrap();
        assert_eq!(handles(&table.into_bytes()).len(), 1);
    }

    #[test]
    fn a_child_waits_for_no_thread_of_its_parent() {
        let table = || {
            let mut table = EhFrame::default();
            table.add(0x1000, 16, &Frame::leaf()).unwrap();
            // SAFETY: nobody executes what is at that address.
            unsafe { Registered::new(table.into_bytes().into_boxed_slice()) }
        };
        let mut before = Some(table());
        assert!(before.as_ref().is_some_and(|before| before.known));
        let held = CALLS.lock();
        let status = in_child(|| {
            let own = table();
            let known = own.known;
            drop(own);
            // It stays known.
            drop(before.take());
            u8::from(known)
        });
        drop(held);
        assert_eq!(status, 0);
    }

    /// In a child: the library stays loaded. Which of Debian's versions it is makes
    /// no difference.
    #[test]
    fn a_second_unwinder_is_not_taken_for_the_one_in_use() {
        let paths: Vec<_> = (14..40)
            .map(|version| CString::new(format!("/usr/lib/llvm-{version}/lib/libunwind.so.1")))
            .map(Result::unwrap)
            .collect();
        let before = find();
        let status = in_child(|| {
            // SAFETY: the library only defines functions.
            let load = |path: &CString| unsafe {
                libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL)
            };
            let loaded = paths.iter().any(|path| !load(path).is_null());
            if loaded { find().into() } else { 2 }
        });
        if status == 2 {
            eprintln!("SKIP: LLVM's libunwind is not installed; tests/tools.sh does that");
            return;
        }
        assert_eq!(status, i32::from(before));
    }
}
