// SPDX-License-Identifier: MIT OR Apache-2.0

//! `libjitfd`: the C interface of the crate `jitfd`, for `jitfd.h`.
//!
//! The header is generated from the files of this crate, so what the public
//! items say here is what a C programmer reads. See `tests/header.rs` for the
//! command.
//!
//! Rules of the interface:
//! * A function that returns `int` returns 0, or -1 with `errno`; one that
//!   returns a pointer returns null with `errno`. `jitfd_error` has the text.
//! * No panic reaches C: `guard.rs` turns it into `ENOTRECOVERABLE`.
//! * Structs that may grow begin with their size, see `versioned.rs`.
//! * Objects are made by `..._create` (or what says so) and given back by
//!   `..._destroy`.
//! * Everything is thread-safe except giving an object back while it is used.
//!
//! Unsafe: what C passes is read and written by the functions of `pointer.rs`
//! and `versioned.rs` only; the exported functions are `unsafe` because they
//! believe the caller's pointers.

#![deny(missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
#![expect(non_camel_case_types, reason = "the types have their C names")]

// What the exported functions are made of.
mod guard;
#[cfg(test)]
mod no_memory;
mod pointer;
mod text;
mod versioned;

// The exported functions.
mod backend;
mod chunk;
mod closure;
mod code;
mod code_error;
mod eh_frame;
mod libffi;
mod lines;
mod link;
mod probe;
mod region;
mod registers;
mod registration;
mod rules;
mod save_all;
mod space;
mod stats;
mod table;
mod thunk;
mod version;
