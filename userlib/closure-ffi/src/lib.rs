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
//! // `new()` is the same for `/dev/jit` only.
//! let jit = JitFdAlloc::with_options(
//!     jitfd::RegionOptions::new().fallback(jitfd::Fallback::Any),
//!     JitFdAlloc::REGION_CAPACITY,
//! );
//! let numbers = [0, 5, 10];
//! let pick = BareFn::new_c_in(|index: usize| numbers[index], &jit);
//! // SAFETY: `pick` outlives the call, which is one at a time.
//! assert_eq!(unsafe { (pick.bare())(2) }, 10);
//! ```
//!
//! As the allocator of a whole program, with the feature `global_jit_alloc` of
//! `closure_ffi`:
//!
//! ```ignore
//! static JIT: JitFdAlloc = JitFdAlloc::new();
//! closure_ffi::global_jit_alloc!(JIT);
//! ```
//!
//! # When this, when `jitfd_trampoline`
//!
//! Each function pointer of `closure_ffi` is code of its own: a system call and a
//! flush of all CPUs that run the process, since the address of the closure is data
//! beside its code. Closures of [`jitfd_trampoline`] need neither. Here are more
//! signatures: arguments of any type, calling conventions other than that of C.

#![deny(missing_docs, unsafe_code)]
#![deny(clippy::undocumented_unsafe_blocks)]

mod allocations;
mod draft;

use allocations::Allocations;
use closure_ffi::jit_alloc::{JitAlloc, JitAllocError, ProtectJitAccess};
use jitfd::internal::ForkLock;
use jitfd::{Backend, Error, RegionOptions};
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
    options: RegionOptions,
    capacity: usize,
    state: ForkLock<Allocations>,
}

impl JitFdAlloc {
    /// The capacity of a region unless another is set, in bytes: about a thousand
    /// functions.
    pub const REGION_CAPACITY: usize = 128 << 10;

    /// `/dev/jit` or an error, and regions of
    /// [`REGION_CAPACITY`](Self::REGION_CAPACITY).
    #[must_use]
    pub const fn new() -> Self {
        Self::with_options(RegionOptions::new(), Self::REGION_CAPACITY)
    }

    /// With another choice of backends, or other regions; `capacity` is in bytes
    /// and rounded up to whole pages. A function needs some 100 bytes, and at most
    /// the capacity.
    #[must_use]
    pub const fn with_options(options: RegionOptions, capacity: usize) -> Self {
        Self {
            options,
            capacity,
            state: ForkLock::new(Allocations::new()),
        }
    }

    /// Makes the first region, if there is none. `closure_ffi` can't tell why
    /// memory was refused; this can.
    ///
    /// ```
    /// use jitfd_closure_ffi::JitFdAlloc;
    ///
    /// match JitFdAlloc::new().prepare() {
    ///     Ok(backend) => println!("closures by {backend}"),
    ///     Err(error) => println!("no closures: {error}"),
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`RegionOptions::create`].
    pub fn prepare(&self) -> Result<Backend, Error> {
        let region = self.state()?.region(self.options, self.capacity)?;
        Ok(region.backend())
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

impl Default for JitFdAlloc {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(
    unsafe_code,
    reason = "the trait has unsafe functions; none does anything unsafe here"
)]
impl JitAlloc for JitFdAlloc {
    fn alloc(&self, size: usize) -> Result<(*const u8, *mut u8), JitAllocError> {
        let state = self.state();
        let made = state.and_then(|mut state| state.add(self.options, self.capacity, size));
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
    use jitfd::Fallback;

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
        let options = RegionOptions::new().fallback(Fallback::Any);
        let all = JitFdAlloc::with_options(options, 4096);
        assert!(all.alloc(23).is_ok());
        assert_eq!(in_child(|| all.alloc(23).is_ok().into()), 1);
        let held = all.state().unwrap();
        let refused = || all.alloc(23).is_err() && all.prepare() == Err(FORKED_MEANWHILE);
        assert_eq!(in_child(|| refused().into()), 1);
        drop(held);
        assert!(all.alloc(23).is_ok());
    }
}
