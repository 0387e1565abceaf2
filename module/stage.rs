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
    transmute::AsBytes,
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

/// What the publication of one page needs.
pub(crate) struct Supply {
    /// The version that is the newest until then.
    pub(crate) old: Option<Arc<Version>>,
    /// Becomes the next one.
    pub(crate) blank: Blank,
}

/// The memory of one publication.
pub(crate) struct Stage {
    pub(crate) segments: KVec<Segment>,
    /// The bytes of all segments.
    pub(crate) bytes: KVVec<u8>,
    /// Where they go: sorted, without overlap.
    pub(crate) spans: KVec<Span>,
    /// Where the bytes of each span start in `bytes`.
    pub(crate) starts: KVec<usize>,
    /// One supply for each page that is touched, the last page first.
    pub(crate) supplies: KVVec<Supply>,
    /// Versions that were replaced.
    pub(crate) retired: KVec<Arc<Version>>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Stage {
            segments: KVec::new(),
            bytes: KVVec::new(),
            spans: KVec::new(),
            starts: KVec::new(),
            supplies: KVVec::new(),
            retired: KVec::new(),
        }
    }

    /// Copies segments and bytes in. Fails with `EINVAL`, `EFAULT`, `ENOMEM`,
    /// with `ENOSPC` if they can't fit into `region` anyway, or with `EPERM` or
    /// `EROFS`: there is no memory for bytes that nobody will publish.
    pub(crate) fn copy_in(&mut self, arg: &Publish, kind: Kind, region: &Region) -> Result {
        let count = arg.count as usize;
        self.spans.reserve(count, GFP_KERNEL_ACCOUNT)?;
        self.starts.reserve(count, GFP_KERNEL_ACCOUNT)?;
        self.copy_segments(user_ptr(arg.segments)?, count)?;
        let mut total = 0u64;
        for segment in self.segments.iter() {
            request::segment(segment, kind).map_err(errno)?;
            total = total.saturating_add(segment.len);
        }
        if total > region.capacity() {
            return Err(errno(Refusal::Full));
        }
        region.check_publisher()?;
        let total = usize::try_from(total)?;
        self.bytes.reserve(total, GFP_KERNEL_ACCOUNT)?;
        self.copy_bytes()
    }

    /// One segment is copied by way of the stack, which costs less.
    fn copy_segments(&mut self, first: UserPtr, count: usize) -> Result {
        let mut array = UserSlice::new(first, count * size_of::<Segment>()).reader();
        if count == 1 {
            return Ok(self.segments.push(array.read()?, GFP_KERNEL_ACCOUNT)?);
        }
        let empty = Segment::default();
        self.segments.resize(count, empty, GFP_KERNEL_ACCOUNT)?;
        array.read_slice(self.segments.as_bytes_mut())
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
        self.segments.clear();
        self.bytes.clear();
        if self.bytes.capacity() > KEEP {
            self.bytes = KVVec::new();
        }
        self.spans.clear();
        self.starts.clear();
        for supply in self.supplies.drain_all() {
            region.pool.keep(supply.blank);
        }
        self.retired.clear();
    }
}

/// A user address.
pub(crate) fn user_ptr(addr: u64) -> Result<UserPtr> {
    Ok(UserPtr::from_addr(usize::try_from(addr)?))
}
