// SPDX-License-Identifier: MIT OR Apache-2.0

//! Trampolines: small pieces of code that bring a pointer along, or set registers,
//! and go on to code that was there long before.
//!
//! | need | here |
//! |---|---|
//! | a Rust closure as a C function pointer | [`Closure`] |
//! | the same, for a function type that is known at run time only | [`Closure::with_registers`] |
//! | a C function pointer that carries a context pointer, any number of them, that come and go | [`Table`] |
//! | any general registers set, values pushed, from a description; nothing that can be changed later | [`Thunk`] |
//! | all registers saved, and a handler that reads them and changes all but `rsp`; of vector registers the lower 128 bits | [`SaveAllTrampoline`] |
//! | closures of libffi, unchanged | [`LibffiClosures`] |
//!
//! | | [`Table`] | [`Thunk`] |
//! |---|---|---|
//! | sets | one register, of seven | all general registers, `rsp` too; pushes values |
//! | one more costs | two stores | a publication; many can share one |
//! | memory for each | 16 bytes of data | 16 to 40 bytes of code, for one or two registers |
//! | is freed | each by itself, used again | with its code space |
//! | context and target are | data of the program, writable | constants in code, never writable |
//!
//! All begin with `endbr64`, leave the shadow stack in step and the flags as they
//! were, are in readable code that has passed validation, and work under
//! `PR_SET_MDWE` with every backend but mprotect flips.
//!
//! What a trampoline jumps to needs an `endbr64` of its own wherever user programs run
//! with indirect branch tracking. The bodies here have it; the functions that are
//! compiled for each [`Closure`] have not, as stable Rust makes none. Rust objects
//! lack the SHSTK note, so linking them clears the program's.
//!
//! # Unwinders
//!
//! Panics, C++ exceptions, backtraces and debuggers find the callers of a target, of a
//! closure and of a handler. Targets and closures need nothing for that: the trampoline
//! has jumped there, and is not on the stack. The code that saves registers is a
//! function of this library, with a frame and an unwind table. For those who look at a
//! thread in the middle of a trampoline (profilers, signal handlers) each mapped copy
//! of the stubs has an unwind table of one entry, registered as long as it is mapped.

#![deny(missing_docs, unsafe_code)]
#![deny(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]
#![deny(unsafe_op_in_unsafe_fn, rustdoc::broken_intra_doc_links)]
#![warn(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("jitfd-trampoline supports Linux on x86-64 only");

// In the order in which a trampoline is made.
mod assemble;
mod register;

mod embedded;
mod thunk;

mod kind;
mod save_stubs;
mod stub;
mod table;

mod cache;
mod pool;
mod slots;

mod copy;
mod frame;

mod bound;
mod common;
mod place;

mod argument;
mod callable;
mod closure;
mod marshal;
mod registers;
mod signature;

mod return_body;
mod save_all;
mod saved;

mod libffi;

#[cfg(test)]
mod audit;

pub use closure::Closure;
pub use libffi::LibffiClosures;
pub use registers::Registers;
pub use save_all::SaveAllTrampoline;
pub use saved::SavedRegisters;
pub use signature::Callback;
pub use table::{Table, TableOptions, TableStats, Trampoline};
pub use thunk::Thunk;
