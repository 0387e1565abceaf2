// SPDX-License-Identifier: MIT OR Apache-2.0

//! What every backend is given.

use jitfd_code::Align;

/// One piece of a publication: the bytes, and for an append their alignment, for
/// a fill their offset.
#[derive(Clone, Copy)]
pub(crate) struct Segment<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) offset: usize,
    pub(crate) align: Align,
}
