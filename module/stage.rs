// SPDX-License-Identifier: GPL-2.0

//! The working memory of a publication: what was copied from userspace, where
//! it goes, and the pages for it. A region keeps one, so that a publication in
//! steady state allocates nothing.
//!
//! Context: process. Owner: the publication under way, or else the region; a
//! second publication at the same time has one of its own.

use kernel::{
    alloc::{KVVec, KVec},
    prelude::*,
    sync::Arc,
    transmute::FromBytes,
    uaccess::{UserPtr, UserSlice},
};

use crate::{
    error::errno,
    page::{Blank, Version},
    plan::{
        abi::{Publish, Segment},
        refusal::Refusal,
        request::{self, Kind},
        span::Span,
    },
    region::Region,
};

/// What a region keeps of the memory for bytes, at most.
const KEEP: usize = 64 * 1024;

/// The memory of one publication.
pub(crate) struct Stage {
    /// The array of segments, as userspace has it.
    raw: KVec<u8>,
    pub(crate) segments: KVec<Segment>,
    /// The bytes of all segments.
    pub(crate) bytes: KVVec<u8>,
    /// Where they go: sorted, without overlap.
    pub(crate) spans: KVec<Span>,
    /// Where the bytes of each span start in `bytes`.
    pub(crate) starts: KVec<usize>,
    /// One page for each page that is touched.
    pub(crate) blanks: KVVec<Blank>,
    /// Versions that were replaced.
    pub(crate) retired: KVec<Arc<Version>>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Stage {
            raw: KVec::new(),
            segments: KVec::new(),
            bytes: KVVec::new(),
            spans: KVec::new(),
            starts: KVec::new(),
            blanks: KVVec::new(),
            retired: KVec::new(),
        }
    }

    /// Copies segments and bytes in. Fails with `EINVAL`, `EFAULT`, `ENOMEM`,
    /// or `ENOSPC` if they can't fit into `capacity` bytes anyway.
    pub(crate) fn copy_in(&mut self, arg: &Publish, kind: Kind, capacity: u64) -> Result {
        let count = arg.count as usize;
        self.segments.reserve(count, GFP_KERNEL_ACCOUNT)?;
        self.spans.reserve(count, GFP_KERNEL_ACCOUNT)?;
        self.starts.reserve(count, GFP_KERNEL_ACCOUNT)?;
        UserSlice::new(user_ptr(arg.segments)?, count * size_of::<Segment>())
            .read_all(&mut self.raw, GFP_KERNEL_ACCOUNT)?;
        let mut total = 0u64;
        for raw in self.raw.chunks_exact(size_of::<Segment>()) {
            let segment = *Segment::from_bytes(raw).ok_or(EFAULT)?;
            request::segment(&segment, kind).map_err(errno)?;
            total = total.saturating_add(segment.len);
            self.segments.push(segment, GFP_KERNEL_ACCOUNT)?;
        }
        if total > capacity {
            return Err(errno(Refusal::Full));
        }
        let total = usize::try_from(total)?;
        self.bytes.reserve(total, GFP_KERNEL_ACCOUNT)?;
        self.copy_bytes()
    }

    /// Segments that lie next to each other in userspace are copied at once.
    fn copy_bytes(&mut self) -> Result {
        let mut segments = self.segments.iter().peekable();
        while let Some(first) = segments.next() {
            let mut end = first.source.saturating_add(first.len);
            while let Some(next) = segments.next_if(|next| next.source == end) {
                end = end.saturating_add(next.len);
            }
            let len = usize::try_from(end.saturating_sub(first.source))?;
            UserSlice::new(user_ptr(first.source)?, len)
                .read_all(&mut self.bytes, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(())
    }

    /// Adds a span whose bytes start at `start`. There is room for as many as
    /// there are segments.
    pub(crate) fn push_span(&mut self, span: Span, start: usize) -> Result {
        self.spans.push(span, GFP_KERNEL_ACCOUNT)?;
        Ok(self.starts.push(start, GFP_KERNEL_ACCOUNT)?)
    }

    /// The bytes of one span.
    pub(crate) fn bytes_of(&self, index: usize) -> &[u8] {
        let start = self.starts[index];
        &self.bytes[start..start + self.spans[index].len as usize]
    }

    /// Makes it ready for the next publication of `region`.
    pub(crate) fn clear(&mut self, region: &Region) {
        self.raw.clear();
        self.segments.clear();
        self.bytes.clear();
        if self.bytes.capacity() > KEEP {
            self.bytes = KVVec::new();
        }
        self.spans.clear();
        self.starts.clear();
        for blank in self.blanks.drain_all() {
            region.keep(blank);
        }
        self.retired.clear();
    }
}

/// A user address.
pub(crate) fn user_ptr(addr: u64) -> Result<UserPtr> {
    Ok(UserPtr::from_addr(usize::try_from(addr)?))
}
