// SPDX-License-Identifier: GPL-2.0

//! The reserved ranges of a region that are not filled yet.
//!
//! Keyed by their end, so that the one that holds a byte is the first whose
//! end is beyond it. Guarded by the region's publication lock; allocation
//! comes before the change, so that [`Holes::take`] can't fail.

use kernel::{
    alloc::KVec,
    prelude::*,
    rbtree::{RBTree, RBTreeNode, RBTreeNodeReservation},
};

use crate::{
    error::errno,
    ffi,
    plan::{
        refusal::Refusal,
        span::{split_hole, Span},
    },
};

/// Reserved ranges, none of which overlap.
///
/// # Invariants
///
/// `len` is their number.
pub(crate) struct Holes {
    ranges: RBTree<u64, u64>,
    len: usize,
}

/// How many of them take about a page of memory.
const A_PAGE: usize = 64;

/// Memory for one more range.
pub(crate) struct Room(RBTreeNodeReservation<u64, u64>);

impl Room {
    pub(crate) fn new() -> Result<Self> {
        Ok(Room(RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT)?))
    }
}

/// Memory for what remains when some ranges are filled: each leaves at most
/// one range more than there was.
pub(crate) struct Spare(KVec<Room>);

impl Spare {
    pub(crate) fn new(fills: usize) -> Result<Self> {
        let mut spare = KVec::with_capacity(fills, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..fills {
            spare.push(Room::new()?, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Spare(spare))
    }
}

impl Holes {
    pub(crate) fn new() -> Self {
        Holes {
            ranges: RBTree::new(),
            len: 0,
        }
    }

    /// The pages of memory that `more` ranges beside these would take.
    pub(crate) fn pages_with(&self, more: usize) -> usize {
        self.len.saturating_add(more) / A_PAGE
    }

    /// Adds a range behind all others.
    pub(crate) fn add(&mut self, span: Span, room: Room) {
        self.ranges.insert(room.0.into_node(span.end(), span.start));
        self.len += 1;
    }

    fn around(&self, byte: u64) -> Option<Span> {
        let cursor = self.ranges.cursor_lower_bound(&byte.checked_add(1)?)?;
        let (&end, &start) = cursor.current();
        Some(Span {
            start,
            len: end.saturating_sub(start),
        })
    }

    /// Checks that each of `spans` lies in a range.
    pub(crate) fn check(&self, spans: &[Span]) -> Result {
        let free = |span: &Span| {
            self.around(span.start)
                .is_some_and(|hole| split_hole(hole, *span).is_some())
        };
        if spans.iter().all(free) {
            return Ok(());
        }
        Err(errno(Refusal::NotReserved))
    }

    /// Takes `spans`, which [`Holes::check`] has accepted, out of the ranges.
    pub(crate) fn take(&mut self, spans: &[Span], mut spare: Spare) {
        for &span in spans {
            let Some(hole) = self.around(span.start) else {
                continue;
            };
            let Some((before, after)) = split_hole(hole, span) else {
                continue;
            };
            let node = self.ranges.remove_node(&hole.end());
            self.len -= usize::from(node.is_some());
            let mut rooms = [node.map(RBTreeNode::into_reservation), None];
            if before.is_some() && after.is_some() {
                rooms[1] = spare.0.pop().map(|room| room.0);
            }
            let parts = [before, after].into_iter().flatten();
            for (part, room) in parts.zip(rooms.into_iter().flatten()) {
                self.add(part, Room(room));
            }
        }
    }

    /// A copy. Fails with `ENOMEM` or `EINTR`.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        let mut ranges = RBTree::new();
        for (&end, &start) in self.ranges.iter() {
            ffi::check_alive()?;
            ranges.try_create_and_insert(end, start, GFP_KERNEL_ACCOUNT)?;
        }
        let len = self.len;
        Ok(Holes { ranges, len })
    }
}
