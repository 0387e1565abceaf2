// SPDX-License-Identifier: GPL-2.0

//! Which bytes of a region a publication covers, which pages that touches, and
//! in which order they are published.

use super::abi::PAGE_SIZE;
use super::refusal::Refusal;

const PAGE: u64 = PAGE_SIZE as u64;

/// A range of bytes of a region. Never empty, and its end does not overflow:
/// both are checked where one is made from a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte, as an offset into the region.
    pub start: u64,
    /// Number of bytes.
    pub len: u64,
}

/// The part of a [`Span`] that lies on one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First byte, as an offset into the page.
    pub in_page: usize,
    /// First byte, as an offset into the span.
    pub in_span: usize,
    /// Number of bytes, at least 1.
    pub len: usize,
}

impl Span {
    /// One past the last byte.
    pub const fn end(self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// The page that holds the first byte.
    pub const fn first_page(self) -> u64 {
        self.start / PAGE
    }

    /// The page that holds the last byte.
    pub const fn last_page(self) -> u64 {
        self.end().saturating_sub(1) / PAGE
    }

    /// The part of the span that lies on `page`.
    pub fn piece(self, page: u64) -> Option<Piece> {
        let page_start = page.checked_mul(PAGE)?;
        let start = self.start.max(page_start);
        let end = self.end().min(page_start.checked_add(PAGE)?);
        if start >= end {
            return None;
        }
        Some(Piece {
            in_page: usize::try_from(start - page_start).ok()?,
            in_span: usize::try_from(start - self.start).ok()?,
            len: usize::try_from(end - start).ok()?,
        })
    }

    /// Both as one, if `next` begins where this one ends and that is not where
    /// a page begins: no instruction goes on from one span to the next, and a
    /// span across pages is taken to hold one that does.
    pub fn join(self, next: Span) -> Option<Span> {
        if self.end() != next.start || next.start % PAGE == 0 {
            return None;
        }
        Some(Span {
            start: self.start,
            len: self.len.checked_add(next.len)?,
        })
    }

    /// Whether it lies on one page.
    pub const fn is_on_one_page(self) -> bool {
        self.first_page() == self.last_page()
    }

    /// Whether the span goes on from `page` to the page after it, so that an
    /// instruction may lie across the boundary.
    pub fn crosses_after(self, page: u64) -> bool {
        self.first_page() <= page && page < self.last_page()
    }
}

/// The span of `len` bytes at the cursor, aligned to `1 << align_log2`.
pub fn place(cursor: u64, capacity: u64, len: u64, align_log2: u32) -> Result<Span, Refusal> {
    let align = 1u64.checked_shl(align_log2).ok_or(Refusal::Invalid)?;
    let below = align.saturating_sub(1);
    let start = cursor.checked_add(below).ok_or(Refusal::Full)? & !below;
    let end = start.checked_add(len).ok_or(Refusal::Full)?;
    if len == 0 {
        return Err(Refusal::Invalid);
    }
    if end > capacity {
        return Err(Refusal::Full);
    }
    Ok(Span { start, len })
}

/// Checks that `spans` are in ascending order and do not overlap.
pub fn check_ascending(spans: &[Span]) -> Result<(), Refusal> {
    let apart = |pair: &[Span]| match pair {
        [one, next] => one.end() <= next.start,
        _ => true,
    };
    if spans.windows(2).all(apart) {
        Ok(())
    } else {
        Err(Refusal::Invalid)
    }
}

/// What remains of the reserved range `hole` when `fill` is taken out of it:
/// the part before and the part after. `None` if `fill` is not inside.
pub fn split_hole(hole: Span, fill: Span) -> Option<(Option<Span>, Option<Span>)> {
    if fill.len == 0 || fill.start < hole.start || fill.end() > hole.end() {
        return None;
    }
    let part = |start: u64, end: u64| {
        (start < end).then_some(Span {
            start,
            len: end.saturating_sub(start),
        })
    };
    Some((part(hole.start, fill.start), part(fill.end(), hole.end())))
}

/// One page of a publication: its number and which of the sorted spans have
/// bytes on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// The page.
    pub page: u64,
    /// Index of the first span with a piece on it.
    pub from: usize,
    /// One past the index of the last span with a piece on it.
    pub to: usize,
}

/// Rule R3: the pages of a publication from the last to the first, so that
/// whatever an instruction goes on to is there before the instruction starts.
///
/// The spans must be sorted and must not overlap.
pub struct Descending<'a> {
    spans: &'a [Span],
    /// One past the index of the last span that has bytes left to publish.
    to: usize,
    /// The page to look at next, if the span before `to` has bytes on it.
    below: Option<u64>,
}

impl<'a> Descending<'a> {
    /// Starts at the last page of the last span.
    pub fn new(spans: &'a [Span]) -> Self {
        Descending {
            spans,
            to: spans.len(),
            below: None,
        }
    }
}

impl Iterator for Descending<'_> {
    type Item = Touched;

    fn next(&mut self) -> Option<Touched> {
        let last = *self.spans.get(self.to.checked_sub(1)?)?;
        let page = match self.below {
            Some(page) => page.min(last.last_page()),
            None => last.last_page(),
        };
        let live = self.spans.get(..self.to)?;
        let from = live.partition_point(|span| span.last_page() < page);
        let touched = Touched {
            page,
            from,
            to: self.to,
        };
        // Spans that start on this page end here too, seen from below.
        self.to = live.partition_point(|span| span.first_page() < page);
        self.below = page.checked_sub(1);
        Some(touched)
    }
}
