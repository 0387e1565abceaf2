// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kinds of trampolines, and the stubs that a table of one has.

use crate::frame::Cover;
use crate::register::ContextRegister;
use crate::stub::Shape;
use jitfd_code::Chunk;

/// What the tables of a kind have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They carry the context in this register.
    Carrying(ContextRegister),
    /// They are those of [`SaveAllTrampoline`](crate::SaveAllTrampoline)s.
    SaveAll,
}

/// The stubs of a table.
#[derive(Debug)]
pub(crate) struct Stubs {
    pub(crate) code: Chunk,
    pub(crate) shape: Shape,
    pub(crate) kind: Kind,
    pub(crate) cover: Cover,
}
