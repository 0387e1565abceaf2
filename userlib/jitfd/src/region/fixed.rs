// SPDX-License-Identifier: MIT OR Apache-2.0

//! Publishing at a place that the caller knows: for the interface of C, where a range is
//! plain numbers and a part of a region may be all there is, and for the tests. By a
//! [`Region`] all of it is [`publish_with`](Region::publish_with), or room that is
//! [reserved](Region::reserve).

use super::Region;
use crate::error::Error;
use crate::region::handle::AppendHandle;
use crate::region::slot::{Published, Slot};
use jitfd_code::{Align, Chunk};

/// The offset that the next chunk of this alignment gets in `region`, unless another
/// thread publishes first.
///
/// # Errors
/// [`Error::System`] of kind [`Full`](crate::Kind::Full) if no byte is left, or
/// [`NotOwner`](crate::Kind::NotOwner).
pub fn next_offset(region: &Region, align: Align) -> Result<usize, Error> {
    region.next_offset(align)
}

/// Publishes one chunk that was made for `offset`.
///
/// # Errors
/// [`Error::Stale`] if the cursor has moved on; [`Error::Argument`] if `offset` is no
/// multiple of the chunk's alignment; else as [`Region::publish_all`].
pub fn publish_at(region: &Region, offset: usize, chunk: &Chunk) -> Result<Published, Error> {
    region.publish_at(offset, chunk)
}

/// Publishes chunks of which the first is to lie at `expect`.
///
/// # Errors
/// [`Error::Stale`] if the cursor is not where `expect` needs it; [`Error::Argument`] if
/// `expect` is no multiple of 64 for a first chunk that stays within lines; else as
/// [`AppendHandle::publish_all`].
pub fn publish_all_at(
    append: &AppendHandle,
    chunks: &[&Chunk],
    expect: Option<usize>,
) -> Result<Vec<usize>, Error> {
    append.publish_all_at(chunks, expect)
}

/// The slot of a region with these numbers. One that was never reserved is refused when
/// it is filled.
#[must_use]
pub const fn slot(offset: usize, address: usize, len: usize) -> Slot {
    Slot {
        offset,
        address,
        len,
        home: None,
    }
}

/// As [`Region::fill`], `skip` bytes behind the start of the slot.
///
/// # Errors
/// As [`Region::fill`].
pub fn fill_at(
    region: &Region,
    slot: &Slot,
    skip: usize,
    chunk: &Chunk,
) -> Result<Published, Error> {
    region.fill_at(slot, skip, chunk)
}
