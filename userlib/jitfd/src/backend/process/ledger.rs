// SPDX-License-Identifier: MIT OR Apache-2.0

//! The ledger of a region in the process's own memory: where segments are placed,
//! and what is refused, in the kernel's order (Documentation/userspace-api/jit.rst).
//! Pure.

use crate::abi;
use crate::backend::process::holes::Holes;
use crate::backend::process::memory::{Effects, Write};
use crate::backend::segment::Segment;
use crate::num::to_u64;
use crate::os::fallible::room;
use jitfd_code::Align;
use std::iter::once;
use std::ops::Range;

/// Why the kernel would refuse a call.
type Errno = i32;

/// The ledger of one region.
///
/// # Invariants
/// The holes end at or before the cursor, which is not above the capacity.
#[derive(Debug)]
pub(crate) struct Ledger {
    stats: abi::Stats,
    capacity: usize,
    cursor: usize,
    sealed: bool,
    /// Reserved ranges, not filled yet.
    holes: Holes,
}

/// An append that can be done: where the pieces go, and the cursor after it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Appending {
    pub(crate) offsets: Vec<usize>,
    pub(crate) end: usize,
}

/// The checks that do not depend on the state of the region.
pub(crate) fn check_pieces(pieces: &[Segment<'_>], capacity: usize) -> Result<(), Errno> {
    let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
    let empty = pieces.iter().any(|piece| piece.bytes.is_empty());
    if empty || count == 0 || count > abi::MAX_SEGMENTS {
        return Err(libc::EINVAL);
    }
    let total = pieces
        .iter()
        .fold(0_usize, |sum, piece| sum.saturating_add(piece.bytes.len()));
    if total > capacity {
        return Err(libc::ENOSPC);
    }
    Ok(())
}

/// Fills go upwards and do not overlap.
pub(crate) fn check_order(pieces: &[Segment<'_>]) -> Result<(), Errno> {
    let mut free = 0;
    for piece in pieces {
        let range = range_of(piece).ok_or(libc::EINVAL)?;
        if range.start < free || to_u64(range.start) >= abi::MAX_REGION {
            return Err(libc::EINVAL);
        }
        free = range.end;
    }
    Ok(())
}

fn range_of(piece: &Segment<'_>) -> Option<Range<usize>> {
    Some(piece.offset..piece.offset.checked_add(piece.bytes.len())?)
}

impl Ledger {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            stats: abi::Stats::default(),
            capacity,
            cursor: 0,
            sealed: false,
            holes: Holes::default(),
        }
    }

    pub(crate) const fn cursor(&self) -> usize {
        self.cursor
    }

    const fn open(&self) -> Result<(), Errno> {
        if self.sealed {
            Err(libc::EROFS)
        } else {
            Ok(())
        }
    }

    /// Where `pieces` go if they are appended now.
    pub(crate) fn plan_append(
        &self,
        pieces: &[Segment<'_>],
        expect: Option<usize>,
        fresh: bool,
    ) -> Result<Appending, Errno> {
        self.open()?;
        let edge = |at| if fresh { Align::PAGE.up(at) } else { Some(at) };
        let mut end = edge(self.cursor).ok_or(libc::ENOSPC)?;
        let mut offsets = room(pieces.len()).ok_or(libc::ENOMEM)?;
        for piece in pieces {
            let offset = piece.align.up(end).ok_or(libc::ENOSPC)?;
            end = offset
                .checked_add(piece.bytes.len())
                .filter(|&end| end <= self.capacity)
                .ok_or(libc::ENOSPC)?;
            offsets.push(offset);
        }
        match (expect, offsets.first()) {
            (Some(expect), Some(&first)) if expect != first => Err(libc::ESTALE),
            // A capacity is whole pages, so the edge is inside.
            _ => Ok(Appending {
                end: edge(end).unwrap_or(end),
                offsets,
            }),
        }
    }

    /// Notes an append that was done.
    pub(crate) fn append(&mut self, done: &Appending, writes: &[Write<'_>], effects: Effects) {
        self.cursor = done.end;
        self.publication(writes, effects);
    }

    /// Whether `pieces` can be filled in now, and noted then.
    pub(crate) fn plan_fill(&mut self, pieces: &[Segment<'_>]) -> Result<(), Errno> {
        self.open()?;
        let free = |piece| range_of(piece).is_some_and(|range| self.holes.has(&range));
        if !pieces.iter().all(free) {
            return Err(libc::EEXIST);
        }
        let enough = self.holes.make_room(pieces.len());
        enough.then_some(()).ok_or(libc::ENOMEM)
    }

    /// Notes a fill that was done.
    pub(crate) fn fill(&mut self, writes: &[Write<'_>], effects: Effects) {
        for write in writes {
            let range = write.offset..write.offset.saturating_add(write.bytes.len());
            self.holes.take(&range);
        }
        self.publication(writes, effects);
    }

    /// The range that a reservation would get, which can be noted then.
    pub(crate) fn plan_reserve(&mut self, len: usize, align: Align) -> Result<Range<usize>, Errno> {
        if len == 0 || to_u64(len) > abi::MAX_REGION {
            return Err(libc::EINVAL);
        }
        self.open()?;
        let start = align.up(self.cursor).ok_or(libc::ENOSPC)?;
        let end = start.checked_add(len).ok_or(libc::ENOSPC)?;
        if end > self.capacity {
            return Err(libc::ENOSPC);
        }
        if !self.holes.make_room(1) {
            return Err(libc::ENOMEM);
        }
        Ok(start..end)
    }

    /// Notes a reservation.
    pub(crate) fn reserve(&mut self, range: &Range<usize>) {
        self.cursor = range.end;
        self.holes.add(range.clone());
    }

    pub(crate) const fn seal(&mut self) {
        self.sealed = true;
    }

    /// What is not published.
    pub(crate) fn free(&self) -> Vec<Range<usize>> {
        self.holes
            .iter()
            .chain(once(self.cursor..self.capacity))
            .collect()
    }

    /// A copy is not sealed and counts anew.
    pub(crate) fn adopt(&mut self) {
        self.sealed = false;
        self.stats = abi::Stats::default();
    }

    fn publication(&mut self, writes: &[Write<'_>], effects: Effects) {
        self.stats.publications += 1;
        for write in writes {
            self.stats.segments += 1;
            self.stats.bytes += to_u64(write.bytes.len());
        }
        self.stats.swaps += effects.swaps;
        self.stats.retired += effects.swaps;
        self.stats.freed += effects.swaps;
        self.stats.in_place += effects.in_place;
        self.stats.flushes += effects.flushes;
    }

    pub(crate) fn stats(&self) -> abi::Stats {
        abi::Stats {
            capacity: to_u64(self.capacity),
            cursor: to_u64(self.cursor),
            sealed: self.sealed.into(),
            ..self.stats
        }
    }
}
