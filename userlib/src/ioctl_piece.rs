// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `ioctl.rs` and its model in tests both take.

use crate::layout::Align;

/// One piece of a publication: the bytes, and for an append their alignment, for
/// a fill their offset.
pub(crate) struct Piece<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) offset: usize,
    pub(crate) align: Align,
}
