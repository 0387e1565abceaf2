// SPDX-License-Identifier: GPL-2.0
//! What the tests get for `ffi_closure_alloc` and `ffi_closure_free`: those of the
//! product, watched.

use crate::common::place;
use crate::suite::outcome::{Checked, OrFail, Outcome, failed};
use crate::suite::sys;
use jitfd::{Fallback, Jit};
use jitfd_trampoline::LibffiClosures;
use std::ffi::c_void;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

static CLOSURES: OnceLock<LibffiClosures> = OnceLock::new();

/// What `count_closures` has set up last.
static COUNTS: AtomicPtr<Counts> = AtomicPtr::new(ptr::null_mut());

/// Of the closures that a process and its children have made.
#[derive(Default)]
pub struct Counts {
    in_jitfd: AtomicU64,
    elsewhere: AtomicU64,
}

/// Counts from now on, in memory that children share.
pub fn count_closures() -> Checked<&'static Counts> {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let page = sys::mmap(0, sys::PAGE, sys::RW, flags, -1, 0).or_fail("mmap")?;
    let counts = ptr::with_exposed_provenance_mut::<Counts>(page);
    // SAFETY: the page is new, zeroed, which is a value of the counts, and stays.
    let shared = unsafe { &*counts };
    COUNTS.store(counts, Ordering::Release);
    Ok(shared)
}

impl Counts {
    /// Fails unless there were closures, all of them in jitfd.
    pub fn all_in_jitfd(&self) -> Outcome {
        let count = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        match (count(&self.in_jitfd), count(&self.elsewhere)) {
            (0, 0) => failed("it made no closure"),
            (_, 0) => Ok(()),
            (here, elsewhere) => failed(format!(
                "{elsewhere} of {} closures are elsewhere",
                here + elsewhere
            )),
        }
    }
}

/// Notes where a new closure is.
fn count(code: *const c_void) {
    // SAFETY: null, or as `count_closures` has stored it.
    let counts = unsafe { COUNTS.load(Ordering::Acquire).as_ref() };
    let Some(counts) = counts else { return };
    let counter = match place::is_in_jitfd(code.addr()) {
        Ok(()) => &counts.in_jitfd,
        Err(text) => {
            eprintln!("{text}");
            &counts.elsewhere
        }
    };
    counter.fetch_add(1, Ordering::Release);
}

/// # Safety
/// As `ffi_closure_alloc`: `code` is valid for a write.
#[unsafe(no_mangle)]
unsafe extern "C" fn tests_closure_alloc(size: usize, code: *mut *const c_void) -> *mut c_void {
    let closures = CLOSURES.get_or_init(|| {
        let jit = Jit::open(Fallback::Never).expect("/dev/jit works");
        LibffiClosures::new(&jit).expect("/dev/jit works")
    });
    let (closure, entry) = closures.alloc(size).expect("there is memory");
    count(entry);
    // SAFETY: as promised by the caller.
    unsafe { code.write(entry) };
    closure
}

/// # Safety
/// As `ffi_closure_free`: it is from `tests_closure_alloc`, and not used any more.
#[unsafe(no_mangle)]
unsafe extern "C" fn tests_closure_free(closure: *mut c_void) {
    let closures = CLOSURES.get().expect("there was one to be freed");
    // SAFETY: as promised by the caller.
    unsafe { closures.free(closure) };
}
