// SPDX-License-Identifier: MIT OR Apache-2.0

//! From bytes to a chunk of code that can be published: what the crate `jitfd`
//! does before any system call.
//!
//! A compiler hands in bytes. [`validate`] checks them by the rules in [`Rules`]
//! and gives a [`Chunk`], a chunk. Where chunks come to lie in a region, and
//! whether branches from one to another hit an instruction, is decided here too.
//! The crate `jitfd` offers all of it under its own name; programs need this one
//! only if they check code and execute none.
//!
//! There is no unsafe operation, no system call and nothing of one operating system
//! in here. (The only `unsafe` is in the declaration of
//! [`Chunk::assume_valid`]: its caller has something to promise.)

#![deny(missing_docs, unsafe_code)]
#![deny(rustdoc::broken_intra_doc_links)]
#![warn(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("jitfd-code needs a 64-bit processor");

// In the order in which code passes through them.
mod bitmap;
mod chunk;
mod data;
mod forbid;
mod foreign;
mod length_table;
mod parallel;
mod rules;
mod sweep;
mod validate;

mod align;
mod branch_map;
mod line_writer;
mod placement;

mod error;
#[doc(hidden)]
pub mod num;
mod pushed;
mod reloc;

pub use align::Align;
pub use chunk::Chunk;
pub use error::{CodeError, Reason};
pub use forbid::Class;
pub use line_writer::LineWriter;
pub use reloc::{Reloc, RelocKind, Target};
pub use rules::Rules;
pub use validate::{validate, validate_owned, validate_shared};

/// What the other crates of this project use of this one. Not for others: it
/// changes without notice.
#[doc(hidden)]
#[allow(missing_docs, clippy::missing_errors_doc, reason = "not for others")]
pub mod internal {
    pub use crate::align::{LINE, PAGE_SIZE};
    pub use crate::branch_map::{BranchMap, Placed};
    pub use crate::chunk::Outside;
    pub use crate::data::{LONGEST_CHUNK, check_len};
    pub use crate::line_writer::{next_in_line, nops};
    pub use crate::num;
    pub use crate::placement::{FRESH_FROM, Mode, aligns, end, place};
    pub use crate::pushed::pushed;
    pub use crate::reloc::{STUB, resolve, stub};
    pub use crate::sweep::is_vendor_dependent;
    pub use crate::validate::LOCK;
}
