// SPDX-License-Identifier: GPL-2.0

//! The working memory of a publication: what was copied from userspace, where
//! it goes, and the pages for it. The bytes are in pages that are charged as
//! code is, and become the code's pages as they run empty: so a publication
//! never holds more than the code and one page. A region keeps one stage, so
//! that a publication in steady state allocates nothing.
//!
//! ```text
//!  bytes:  |  staged 0  |  staged 1  | st. 2 |        copied in, before the turn
//!               \            \    \       \
//!  pages:  | ...... | ............ | .......... | ... |   built from the last
//!                                                         to the first
//! ```
//!
//! Context: process. Owner: the publication under way, or else the region; a
//! second publication at the same time has one of its own.

use kernel::{
    alloc::{Allocator, KVVec, KVec, Vec},
    prelude::*,
    transmute::AsBytes,
    uaccess::{UserPtr, UserSlice},
};

use crate::{
    error::errno,
    ffi,
    page::{Blank, Replaced},
    plan::{
        abi::{Publish, Segment, PAGE_SIZE},
        lifecycle::PageState,
        refusal::Refusal,
        request::{self, Kind},
        span::{Descending, Span},
    },
    reserved::Spare,
    source::{user_ptr, Source},
    supply::Supply,
};

/// The memory of one publication.
pub(crate) struct Staging {
    pub(crate) segments: KVec<Segment>,
    pub(crate) bytes: Bytes,
    /// Where they go: sorted, without overlap.
    pub(crate) spans: KVec<Span>,
    /// Where the bytes of each span start in `bytes`.
    pub(crate) starts: KVec<usize>,
    /// Pages for the code, beside those of `bytes`.
    pub(crate) blanks: KVVec<Blank>,
    /// Versions that were replaced.
    pub(crate) retired: KVVec<Replaced>,
    /// For what remains of reserved ranges.
    pub(crate) spare: Spare,
    /// Entries were swapped.
    pub(crate) replaces: bool,
    /// For which cursor the spans are, and the cursor behind them.
    pub(crate) placed: Option<(u64, u64)>,
}

/// What is kept of an array for the next publication, in elements: no more than the
/// region has paid for.
const KEEP: usize = 64;

/// Empties an array, and gives it back if it is large.
fn empty<T, A: Allocator>(array: &mut Vec<T, A>) {
    array.clear();
    if array.capacity() > KEEP {
        *array = Vec::new();
    }
}

impl Staging {
    pub(crate) fn new() -> Self {
        Staging {
            segments: KVec::new(),
            bytes: Bytes::new(),
            spans: KVec::new(),
            starts: KVec::new(),
            blanks: KVVec::new(),
            retired: KVVec::new(),
            spare: Spare::new(),
            replaces: false,
            placed: None,
        }
    }

    /// Copies segments in. Fails with `EINVAL`, `EFAULT`, `ENOMEM`, or with `ENOSPC` if
    /// they can't fit into `capacity` bytes anyway.
    pub(crate) fn copy_in(&mut self, arg: &Publish, kind: Kind, capacity: u64) -> Result {
        let count = arg.count as usize;
        self.spans.reserve(count, ffi::CHARGED)?;
        self.starts.reserve(count, ffi::CHARGED)?;
        self.copy_segments(user_ptr(arg.segments)?, count)?;
        let mut total = 0u64;
        for segment in self.segments.iter() {
            request::segment(segment, kind).map_err(errno)?;
            total = total.saturating_add(segment.len);
        }
        if total > capacity {
            return Err(errno(Refusal::Full));
        }
        Ok(())
    }

    /// One segment is copied by way of the stack, which costs less.
    fn copy_segments(&mut self, first: UserPtr, count: usize) -> Result {
        let mut array = UserSlice::new(first, count * size_of::<Segment>()).reader();
        if count == 1 {
            return Ok(self.segments.push(array.read()?, ffi::CHARGED)?);
        }
        let empty = Segment::default();
        self.segments.resize(count, empty, ffi::CHARGED)?;
        array.read_slice(self.segments.as_bytes_mut())
    }

    /// Copies their bytes in. Fails with `EFAULT`, `ENOMEM`, `EDQUOT` or `EINTR`.
    /// Segments that lie next to each other in userspace are copied at once.
    pub(crate) fn copy_bytes(&mut self, supply: &Supply) -> Result {
        if let &[only] = &self.segments[..] {
            return self
                .bytes
                .read_in(Source::new(only.source, only.len)?, supply);
        }
        let mut segments = self.segments.iter().peekable();
        while let Some(first) = segments.next() {
            let mut end = first.source.saturating_add(first.len);
            while let Some(next) = segments.next_if(|next| next.source == end) {
                end = end.saturating_add(next.len);
            }
            let len = end.saturating_sub(first.source);
            self.bytes
                .read_in(Source::new(first.source, len)?, supply)?;
        }
        Ok(())
    }

    /// Adds a span whose bytes are those after the last one's, in one with it
    /// if it can be. There is room for as many as there are segments.
    pub(crate) fn append_span(&mut self, span: Span, start: usize) -> Result {
        if let Some(last) = self.spans.last_mut() {
            if let Some(joined) = last.join(span) {
                *last = joined;
                return Ok(());
            }
        }
        self.push_span(span, start)
    }

    /// Adds a span whose bytes start at `start`. There is room for as many as
    /// there are segments.
    pub(crate) fn push_span(&mut self, span: Span, start: usize) -> Result {
        self.spans.push_within_capacity(span).map_err(|_| ENOMEM)?;
        self.starts.push_within_capacity(start).map_err(|_| ENOMEM)
    }

    /// Forgets where the bytes go.
    pub(crate) fn clear_spans(&mut self) {
        self.spans.clear();
        self.starts.clear();
        self.placed = None;
    }

    /// The pages that the spans touch.
    pub(crate) fn touched(&self) -> usize {
        match &self.spans[..] {
            [span] => (span.last_page() - span.first_page() + 1) as usize,
            spans => Descending::new(spans).count(),
        }
    }

    /// Pages that are missing for `touched` of them: one is in use for each page
    /// of bytes that are left, and one more is needed to build the next.
    fn missing(&self, touched: usize) -> usize {
        (touched + 1).saturating_sub(self.bytes.pages.len() + self.blanks.len())
    }

    /// Takes what is missing for `touched` pages from spare ones,
    /// as far as that goes without an allocation. Says whether it is enough.
    pub(crate) fn gather(&mut self, supply: &Supply, touched: usize) -> bool {
        if self.retired.capacity() < touched {
            return false;
        }
        for _ in 0..self.missing(touched) {
            if self.blanks.len() == self.blanks.capacity() {
                return false;
            }
            let Some(blank) = supply.spare_blank() else {
                return false;
            };
            // There is room.
            let _ = self.blanks.push_within_capacity(blank);
        }
        true
    }

    /// Allocates what is missing for `touched` pages. Fails with `ENOMEM`,
    /// `EDQUOT` or `EINTR`.
    pub(crate) fn supply(&mut self, supply: &Supply, touched: usize) -> Result {
        let more = touched.saturating_sub(self.retired.len());
        self.retired.reserve(more, ffi::CHARGED)?;
        let missing = self.missing(touched);
        self.blanks.reserve(missing, ffi::CHARGED)?;
        for _ in 0..missing {
            ffi::check_alive()?;
            self.blanks.push(supply.blank()?, ffi::CHARGED)?;
        }
        Ok(())
    }

    /// Makes it ready for the next publication.
    pub(crate) fn clear(&mut self, supply: &Supply) {
        empty(&mut self.segments);
        empty(&mut self.spans);
        empty(&mut self.starts);
        self.placed = None;
        supply
            .pool
            .make_room(match core::mem::take(&mut self.replaces) {
                true => PageState::Live,
                false => PageState::Unseen,
            });
        for blank in self.blanks.drain_all() {
            supply.pool.keep(blank);
        }
        empty(&mut self.blanks);
        self.bytes.clear(supply);
        empty(&mut self.retired);
        self.spare.trim();
    }
}

/// The bytes of all segments, one after the other, in pages.
pub(crate) struct Bytes {
    pages: KVVec<Blank>,
    len: usize,
}

impl Bytes {
    const fn new() -> Self {
        Bytes {
            pages: KVVec::new(),
            len: 0,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds all that `source` has. Fails with `EFAULT`, `ENOMEM`, `EDQUOT` or
    /// `EINTR`.
    fn read_in(&mut self, mut source: Source, supply: &Supply) -> Result {
        while source.left() != 0 {
            let at = self.len / PAGE_SIZE;
            if at == self.pages.len() {
                ffi::check_alive()?;
                self.pages.push(supply.blank()?, ffi::CHARGED)?;
            }
            let Some(page) = self.pages.get_mut(at) else {
                return Err(ENOMEM);
            };
            self.len += page.read_in(&mut source)?;
        }
        Ok(())
    }

    /// `len` bytes from `start` on, if they are on one page, as they mostly are.
    pub(crate) fn slice(&self, start: usize, len: usize) -> Option<&[u8]> {
        let from = start % PAGE_SIZE;
        let page = self.pages.get(start / PAGE_SIZE)?;
        page.bytes().get(from..from.checked_add(len)?)
    }

    /// Calls `visit` with `len` bytes from `start` on, in order.
    pub(crate) fn for_each(&self, start: usize, len: usize, mut visit: impl FnMut(&[u8])) {
        match self.slice(start, len) {
            Some(all) => visit(all),
            None => self.pieces(start, len).for_each(visit),
        }
    }

    /// `len` bytes from `start` on, in order.
    pub(crate) fn pieces(&self, start: usize, len: usize) -> impl Iterator<Item = &[u8]> {
        let end = start.saturating_add(len).min(self.len);
        let mut at = start;
        core::iter::from_fn(move || {
            let page = self.pages.get(at / PAGE_SIZE)?;
            let from = at % PAGE_SIZE;
            let piece = (PAGE_SIZE - from).min(end.checked_sub(at)?);
            at += piece;
            (piece != 0).then(|| page.bytes().get(from..from + piece))?
        })
    }

    /// A page that has none of the first `left` bytes: the others are published.
    pub(crate) fn take_empty(&mut self, left: usize) -> Option<Blank> {
        if self.pages.len() <= left.div_ceil(PAGE_SIZE) {
            return None;
        }
        let mut page = self.pages.pop()?;
        page.reset();
        Some(page)
    }

    /// Keeps one page.
    fn clear(&mut self, supply: &Supply) {
        self.len = 0;
        while self.pages.len() > 1 {
            if let Some(page) = self.pages.pop() {
                supply.pool.keep(page);
            }
        }
        if self.pages.capacity() > KEEP {
            self.pages = KVVec::new();
        }
        if let Some(page) = self.pages.first_mut() {
            page.reset();
        }
    }
}
