// SPDX-License-Identifier: GPL-2.0

//! The reserved ranges of a region that are not filled yet.
//!
//! Keyed by their end, so that the one that holds a byte is the first whose
//! end is beyond it. Guarded by the lock of the region's pages; allocation
//! comes before the change, so that [`Reserved::take`] can't fail.

use kernel::{
    alloc::{KVVec, KVec},
    prelude::*,
    rbtree::{RBTree, RBTreeNodeReservation},
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
pub(crate) struct Reserved {
    ranges: RBTree<u64, u64>,
    len: usize,
    /// How often they were changed.
    changes: u64,
}

/// How many of them take about a page of memory.
const A_PAGE: usize = 64;

/// How many a region may have: a clone of the same user's copies them under a spinlock.
pub(crate) const MOST: usize = 16384;

/// How many are copied under a spinlock for another user.
pub(crate) const A_FEW: usize = 256;

/// Memory for one more range.
pub(crate) struct Room(RBTreeNodeReservation<u64, u64>);

impl Room {
    pub(crate) fn new() -> Result<Self> {
        Ok(Room(RBTreeNodeReservation::new(ffi::CHARGED)?))
    }
}

/// Memory for ranges: each fill leaves at most one range more than there was.
///
/// What becomes free on the way is kept, as far as there is room, so that rooms do
/// not run out: see [`Spare::is_enough`].
pub(crate) struct Spare(KVVec<Room>);

impl Spare {
    /// None.
    pub(crate) const fn new() -> Self {
        Spare(KVVec::new())
    }

    /// Makes it at least `count`. Fails with `ENOMEM` or `EINTR`.
    pub(crate) fn reserve(&mut self, count: usize) -> Result {
        let room = (2 * count).saturating_sub(self.0.len());
        self.0.reserve(room, ffi::CHARGED)?;
        while self.0.len() < count {
            ffi::check_alive()?;
            self.0.push(Room::new()?, ffi::CHARGED)?;
        }
        Ok(())
    }

    /// Whether it is enough for `fills`. Each takes two rooms at most and gives one
    /// back. So as many rooms are enough, with a place for one more: then none that is
    /// given back is lost, unless there are more than are needed.
    pub(crate) fn is_enough(&self, fills: usize) -> bool {
        self.0.len() >= fills && self.0.capacity() > fills
    }

    /// Ranges it has memory for.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Gives up what is beyond a few, and a large array.
    pub(crate) fn trim(&mut self) {
        const FEW: usize = 4;
        if self.0.len() > FEW || self.0.capacity() > 4 * FEW {
            *self = Spare::new();
        }
    }

    /// Memory for one range.
    pub(crate) fn take(&mut self) -> Option<Room> {
        self.0.pop()
    }

    fn keep(&mut self, room: Room) {
        // Without a place it is freed: it is one too many.
        let _ = self.0.push_within_capacity(room);
    }
}

impl Reserved {
    pub(crate) fn new() -> Self {
        Reserved {
            ranges: RBTree::new(),
            len: 0,
            changes: 0,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The pages of memory that `count` ranges take.
    pub(crate) fn memory(count: usize) -> usize {
        count / A_PAGE
    }

    /// Adds a range behind all others.
    pub(crate) fn add(&mut self, span: Span, room: Room) {
        self.ranges.insert(room.0.into_node(span.end(), span.start));
        self.len += 1;
        self.changes += 1;
    }

    /// How often they were changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Adds those whose end is behind `from` to `some`, in order, as far as there is room.
    pub(crate) fn list(&self, mut from: u64, some: &mut KVec<Span>) {
        while let Some(next) = self.around(from) {
            if some.push_within_capacity(next).is_err() {
                return;
            }
            from = next.end();
        }
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

    /// Takes `spans`, which [`Reserved::check`] has accepted, out of the ranges.
    pub(crate) fn take(&mut self, spans: &[Span], spare: &mut Spare) {
        for &span in spans {
            let Some(hole) = self.around(span.start) else {
                continue;
            };
            let Some((before, after)) = split_hole(hole, span) else {
                continue;
            };
            self.changes += 1;
            let node = self.ranges.remove_node(&hole.end());
            self.len -= usize::from(node.is_some());
            // What is left over is freed later, not under a lock.
            if let Some(node) = node {
                spare.keep(Room(node.into_reservation()));
            }
            for part in [before, after].into_iter().flatten() {
                if let Some(room) = spare.0.pop() {
                    self.add(part, room);
                }
            }
        }
    }

    /// A copy, in memory of `rooms`, of which there are enough.
    pub(crate) fn copy(&self, rooms: &mut Spare) -> Self {
        let mut copy = Reserved::new();
        for (&end, &start) in self.ranges.iter() {
            let Some(room) = rooms.0.pop() else {
                break;
            };
            let len = end.saturating_sub(start);
            copy.add(Span { start, len }, room);
        }
        copy
    }
}
