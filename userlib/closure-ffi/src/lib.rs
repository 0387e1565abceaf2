// SPDX-License-Identifier: MIT OR Apache-2.0

//! Function pointers that call closures, made by the crate [`closure_ffi`], with
//! their code in `jitfd`: for processes in which no memory is ever both writable
//! and executable (`PR_SET_MDWE`, SELinux without `execmem`).
//!
//! `closure_ffi` copies the beginning of a function that the compiler made, writes
//! the address of the closure behind it, and asks a [`JitAlloc`] for memory to do
//! that in. [`JitFdAlloc`] is one.
//!
//! ```
//! use closure_ffi::BareFn;
//! use jitfd_closure_ffi::JitFdAlloc;
//!
//! # fn main() -> Result<(), jitfd::Error> {
//! let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
//! let alloc = JitFdAlloc::new(&jit, JitFdAlloc::REGION_CAPACITY);
//! let numbers = [0, 5, 10];
//! let pick = BareFn::new_c_in(|index: usize| numbers[index], &alloc);
//! // SAFETY: `pick` outlives the call, which is one at a time.
//! assert_eq!(unsafe { (pick.bare())(2) }, 10);
//! # Ok(())
//! # }
//! ```
//!
//! As the allocator of a whole program, with the feature `global_jit_alloc` of
//! `closure_ffi`:
//!
//! ```ignore
//! static ALLOC: JitFdAlloc = JitFdAlloc::for_static(jitfd::Fallback::Never);
//! closure_ffi::global_jit_alloc!(ALLOC);
//! ```
//!
//! # When this, when `jitfd_trampoline`
//!
//! Each function pointer of `closure_ffi` is code of its own: a system call and a
//! flush of all CPUs that run the process, since the address of the closure is data
//! beside its code. Closures of `jitfd_trampoline` need neither. Here are more
//! signatures: arguments of any type, calling conventions other than that of C.

#![deny(missing_docs, unsafe_code)]
#![deny(clippy::undocumented_unsafe_blocks)]

mod allocations;
mod draft;

use allocations::Allocations;
use closure_ffi::jit_alloc::{JitAlloc, JitAllocError, ProtectJitAccess};
use jitfd::internal::{First, ForkLock};
use jitfd::{Error, Fallback, Jit, RegionOptions};
use std::fmt;
use std::ops::DerefMut;

/// Memory for `closure_ffi`: regions of `jitfd`.
///
/// `closure_ffi` writes a function into memory that is never executable, and the
/// whole of it is validated and published when that is finished. Published code
/// stays as it is, and its place is not used again: a region is unmapped when no
/// function in it is left and another region is in use.
///
/// After a `fork()` the child calls what its parent has made, and what it makes
/// itself is in regions of its own. If another thread of the parent was making or
/// releasing a function at the `fork()`, the child can do neither with this value: an
/// error, and it waits for nobody.
///
/// # Panics
/// Making a function panics, with the reason, if its code can't be published: if
/// the kernel has no memory for it, or if what `closure_ffi` has made is not whole,
/// valid instructions with two words of data behind. `closure_ffi` has no other way
/// to hear of that. No function is there then.
#[derive(Debug)]
pub struct JitFdAlloc {
    source: Source,
    capacity: usize,
    state: ForkLock<Allocations>,
}

enum Source {
    Given(Jit),
    /// Chosen at first use, and not dropped.
    Later(Fallback, First<Jit>),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(jit) => f.debug_tuple("Given").field(jit).finish(),
            Self::Later(fallback, _) => f.debug_tuple("Later").field(fallback).finish(),
        }
    }
}

impl JitFdAlloc {
    /// The capacity of a region unless another is wanted, in bytes: about a thousand
    /// functions.
    pub const REGION_CAPACITY: usize = 128 << 10;

    /// By `jit`, in regions of this capacity, in bytes and rounded up to whole pages. A
    /// function needs some 100 bytes, and at most the capacity.
    #[must_use]
    pub fn new(jit: &Jit, capacity: usize) -> Self {
        Self {
            source: Source::Given(jit.clone()),
            capacity,
            state: ForkLock::new(Allocations::new()),
        }
    }

    /// For a `static`: the backend is chosen when the first function is made, and regions
    /// have [`REGION_CAPACITY`](Self::REGION_CAPACITY). `closure_ffi` can't tell why
    /// memory was refused; [`Jit::open`] can.
    ///
    /// ```
    /// use jitfd::{Fallback, Jit};
    /// use jitfd_closure_ffi::JitFdAlloc;
    ///
    /// static ALLOC: JitFdAlloc = JitFdAlloc::for_static(Fallback::Any);
    ///
    /// match Jit::open(Fallback::Any) {
    ///     Ok(jit) => println!("{jit}"),
    ///     Err(error) => println!("no closures: {error}"),
    /// }
    /// # let number = 42;
    /// # let get = closure_ffi::BareFn::new_c_in(|| number, &ALLOC);
    /// # // SAFETY: `get` is there.
    /// # assert_eq!(unsafe { (get.bare())() }, 42);
    /// ```
    #[must_use]
    pub const fn for_static(fallback: Fallback) -> Self {
        Self {
            source: Source::Later(fallback, First::new()),
            capacity: Self::REGION_CAPACITY,
            state: ForkLock::new(Allocations::new()),
        }
    }

    fn jit(&self) -> Result<&Jit, Error> {
        match &self.source {
            Source::Given(jit) => Ok(jit),
            // Two threads may get here; what one of them has opened is closed again.
            Source::Later(fallback, first) => match first.get() {
                Some(jit) => Ok(jit),
                None => Ok(first.get_or_set(Jit::open(*fallback)?)),
            },
        }
    }

    /// How regions are made.
    fn options(&self) -> RegionOptions {
        RegionOptions::from(self.capacity)
    }

    fn state(&self) -> Result<impl DerefMut<Target = Allocations> + '_, Error> {
        // After a panic nothing in there is half changed.
        let state = self.state.lock().map_err(|_| NO_FORKS)?;
        state.ok_or(FORKED_MEANWHILE)
    }
}

const NO_FORKS: Error = Error::Argument("this system does not tell a forked child from its parent");
const FORKED_MEANWHILE: Error = Error::Argument(
    "another thread was making or releasing a function when the process was forked; make \
     another allocator",
);

#[expect(
    unsafe_code,
    reason = "the trait has unsafe functions; none does anything unsafe here"
)]
impl JitAlloc for JitFdAlloc {
    fn alloc(&self, size: usize) -> Result<(*const u8, *mut u8), JitAllocError> {
        let made = self.jit().and_then(|jit| {
            let mut state = self.state()?;
            state.add(jit, self.options(), size)
        });
        made.map_err(|_| JitAllocError)
    }

    unsafe fn release(&self, rx_ptr: *const u8) -> Result<(), JitAllocError> {
        // Unmapped, if it was the last of its region, when nothing is locked.
        let mut state = self.state().map_err(|_| JitAllocError)?;
        let released = state.remove(rx_ptr.addr());
        drop(state);
        released.map(drop).ok_or(JitAllocError)
    }

    /// Nothing: the executable memory is never writable, and the writable memory
    /// always is.
    unsafe fn protect_jit_memory(&self, _: *const u8, _: usize, _: ProtectJitAccess) {}

    /// What is written is complete: publishes it.
    unsafe fn flush_instruction_cache(&self, rx_ptr: *const u8, size: usize) {
        let state = self.state();
        let published = state.and_then(|mut state| state.publish(rx_ptr.addr(), size));
        if let Err(error) = published {
            panic!("the code of a closure was not published: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status of a forked child that does `work`; -1 if it was killed, as one that
    /// hangs is.
    fn in_child(work: impl FnOnce() -> i32) -> i32 {
        #[expect(unsafe_code, reason = "there is no safe way to fork")]
        // SAFETY: the child does `work`, which needs no other thread, and ends.
        unsafe {
            let pid = libc::fork();
            assert!(pid >= 0, "fork");
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

    #[test]
    fn a_child_waits_for_no_thread_of_its_parent() {
        let all = JitFdAlloc::new(&Jit::open(Fallback::Any).unwrap(), 4096);
        assert!(all.alloc(23).is_ok());
        assert_eq!(in_child(|| all.alloc(23).is_ok().into()), 1);
        let held = all.state().unwrap();
        let refused = || all.alloc(23).is_err() && all.state().err() == Some(FORKED_MEANWHILE);
        assert_eq!(in_child(|| refused().into()), 1);
        drop(held);
        assert!(all.alloc(23).is_ok());
    }

    #[test]
    fn one_in_a_static_chooses_when_it_is_used() {
        static ALLOC: JitFdAlloc = JitFdAlloc::for_static(Fallback::Any);
        let chosen = || matches!(&ALLOC.source, Source::Later(_, first) if first.get().is_some());
        assert!(!chosen());
        assert!(ALLOC.alloc(23).is_ok() && chosen());
        assert!(ALLOC.alloc(JitFdAlloc::REGION_CAPACITY + 1).is_err());
    }
}
