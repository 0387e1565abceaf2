// SPDX-License-Identifier: GPL-2.0

//! Other ways to have trampolines, each as its users would have it, to be tested
//! and measured next to jitfd's:
//!
//! - `kernel`: a kernel that does the work of a trampoline, reached by a page fault
//!   or by a system call. Needs the module of `trampfd/`.
//! - `signal`: a signal is raised, its handler modifies the state, and returns.
//! - `ffi`: libffi's closures, and its static trampolines alone.
//! - `text`: jitfd's own stub, linked into the program's text.
//!
//! [`Description`] is what the first two are told. `sys` has the system calls.

mod description;
mod ffi;
mod kernel;
pub mod probe;
mod signal;
mod sys;
mod text;

pub use description::{Description, NAMES, PUSHES, RSP, Refused};
pub use ffi::{Bare, Ffi, Signature, mapping_of};
pub use kernel::{Blank, Entry, Kernel, Trampoline, UNUSED_CALL};
pub use signal::{Signal, Signals};
pub use text::Text;

/// What every peer can be asked for as a closure: the first argument plus the
/// number that the context points to. The context comes as the second argument.
///
/// # Safety
///
/// `context` points to a number.
#[inline(never)]
pub unsafe extern "C" fn target(argument: u64, context: *const u64) -> u64 {
    // SAFETY: By this function's contract.
    argument.wrapping_add(unsafe { context.read() })
}
