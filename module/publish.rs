// SPDX-License-Identifier: GPL-2.0

//! One publication: segments from userspace become code that CPUs execute.
//!
//! ```text
//!  copy in ─▶ turn ─▶ place ─▶ allocate ─▶ for each page, last to first: ─▶ retire
//!  (may fail, nothing changed yet)         slot, then entries (can't fail)
//! ```
//!
//! Lock order: see `region.rs`. User memory is read before the turn is taken,
//! and no result is written back.

use kernel::{
    alloc::{KVVec, KVec},
    prelude::*,
    sync::Arc,
    uaccess::{UserPtr, UserSlice},
};

use crate::{
    error::errno,
    holes::Spare,
    page::{Blank, Version},
    plan::{
        abi::{self, Publish, Segment, PAGE_SIZE},
        lifecycle::{change, must_flush_after, must_flush_before, Change, PageState, Swapped},
        refusal::Refusal,
        request::{self, page_round, Kind},
        span::{self, Descending, Span, Touched},
        stale::looks_like_int_3,
    },
    pte,
    region::{Region, Turn},
    retire,
};

/// The segments of a publication and their bytes, copied from userspace.
struct Input {
    segments: KVec<Segment>,
    bytes: KVVec<u8>,
}

impl Input {
    /// Fails with `EINVAL`, `EFAULT`, `ENOMEM`, or `ENOSPC` if it can't fit
    /// into `capacity` bytes anyway.
    fn copy_in(arg: &Publish, kind: Kind, capacity: u64) -> Result<Self> {
        let mut segments = KVec::with_capacity(arg.count as usize, GFP_KERNEL_ACCOUNT)?;
        let len = (arg.count as usize) * size_of::<Segment>();
        let mut reader = UserSlice::new(user_ptr(arg.segments)?, len).reader();
        let mut total = 0u64;
        for _ in 0..arg.count {
            let segment: Segment = reader.read()?;
            request::segment(&segment, kind).map_err(errno)?;
            total = total.saturating_add(segment.len);
            segments.push(segment, GFP_KERNEL_ACCOUNT)?;
        }
        if total > capacity {
            return Err(errno(Refusal::Full));
        }
        let mut bytes = KVVec::with_capacity(usize::try_from(total)?, GFP_KERNEL_ACCOUNT)?;
        for segment in &segments {
            UserSlice::new(user_ptr(segment.source)?, usize::try_from(segment.len)?)
                .read_all(&mut bytes, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Input { segments, bytes })
    }
}

fn user_ptr(addr: u64) -> Result<UserPtr> {
    Ok(UserPtr::from_addr(usize::try_from(addr)?))
}

/// A publication that was accepted: where its bytes go.
struct Plan {
    /// Sorted, without overlap.
    spans: KVec<Span>,
    /// Where the bytes of each span start in the input.
    starts: KVec<usize>,
    /// The cursor afterwards.
    cursor: u64,
}

impl Plan {
    fn append(input: &Input, arg: &Publish, region: &Region, turn: &Turn) -> Result<Self> {
        let fresh = arg.flags & abi::PUBLISH_FRESH != 0;
        let mut cursor = turn.cursor;
        if fresh {
            cursor = page_round(cursor);
        }
        let mut plan = Plan::with_capacity(input.segments.len())?;
        let mut start = 0;
        for segment in &input.segments {
            let span = span::place(cursor, region.capacity(), segment.len, segment.align_log2)
                .map_err(errno)?;
            cursor = span.end();
            plan.push(span, start)?;
            start += usize::try_from(segment.len)?;
        }
        if fresh {
            cursor = page_round(cursor);
        }
        plan.cursor = cursor;
        if arg.expect != abi::ANY_OFFSET && arg.expect != plan.first() {
            return Err(errno(Refusal::Moved));
        }
        Ok(plan)
    }

    fn fill(input: &Input, turn: &Turn) -> Result<Self> {
        let mut plan = Plan::with_capacity(input.segments.len())?;
        let mut start = 0;
        for segment in &input.segments {
            let span = Span {
                start: segment.offset,
                len: segment.len,
            };
            plan.push(span, start)?;
            start += usize::try_from(segment.len)?;
        }
        plan.cursor = turn.cursor;
        span::check_ascending(&plan.spans).map_err(errno)?;
        turn.holes.check(&plan.spans)?;
        Ok(plan)
    }

    fn with_capacity(count: usize) -> Result<Self> {
        Ok(Plan {
            spans: KVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?,
            starts: KVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?,
            cursor: 0,
        })
    }

    fn push(&mut self, span: Span, start: usize) -> Result {
        self.spans.push(span, GFP_KERNEL_ACCOUNT)?;
        Ok(self.starts.push(start, GFP_KERNEL_ACCOUNT)?)
    }

    fn first(&self) -> u64 {
        self.spans.first().map_or(0, |span| span.start)
    }

    /// Calls `write` with each piece of a page: offset in the page, bytes.
    fn pieces(&self, touched: Touched, bytes: &[u8], mut write: impl FnMut(usize, &[u8])) {
        for index in touched.from..touched.to {
            let (span, start) = (self.spans[index], self.starts[index]);
            if let Some(piece) = span.piece(touched.page) {
                let from = start + piece.in_span;
                write(piece.in_page, &bytes[from..from + piece.len]);
            }
        }
    }

    /// Whether some span goes on from `touched` to the page after it.
    fn crosses_after(&self, touched: Touched) -> bool {
        let last = self.spans.get(touched.to - 1);
        last.is_some_and(|span| span.crosses_after(touched.page))
    }
}

/// What a publication needs, so that it can't fail half-way.
struct Supplies {
    blanks: KVVec<Blank>,
    retired: KVec<Arc<Version>>,
    reservation: retire::Reservation,
    holes: Spare,
}

impl Supplies {
    fn get(region: &Region, plan: &Plan, kind: Kind) -> Result<Self> {
        let mut blanks = KVVec::new();
        let mut existing = 0;
        for touched in Descending::new(&plan.spans) {
            let page = usize::try_from(touched.page)?;
            existing += usize::from(region.pages.state(page) != PageState::Absent);
            blanks.push(region.blank()?, GFP_KERNEL_ACCOUNT)?;
        }
        let retired = KVec::with_capacity(existing, GFP_KERNEL_ACCOUNT)?;
        let holes = Spare::new(match kind {
            Kind::Append => 0,
            Kind::Fill => plan.spans.len(),
        })?;
        Ok(Supplies {
            blanks,
            retired,
            reservation: retire::reserve(region, existing),
            holes,
        })
    }
}

/// `JIT_APPEND` and `JIT_FILL`. Returns the offset of the first segment.
pub(crate) fn publish(region: &Arc<Region>, arg: &Publish, kind: Kind) -> Result<u64> {
    request::publish(arg, kind).map_err(errno)?;
    let input = Input::copy_in(arg, kind, region.capacity())?;
    let mut turn = region.turn.lock();
    region.check_publisher(&turn)?;
    let plan = match kind {
        Kind::Append => Plan::append(&input, arg, region, &turn)?,
        Kind::Fill => Plan::fill(&input, &turn)?,
    };
    let supplies = Supplies::get(region, &plan, kind)?;
    let sync = arg.flags & abi::PUBLISH_SYNC != 0 || is_ambiguous(region, &plan, &input);
    commit(region, &mut turn, &plan, &input, supplies, sync);
    if kind == Kind::Append {
        turn.cursor = plan.cursor;
    }
    Ok(plan.first())
}

/// Whether a stale trap in this code could be taken for `int 3`.
fn is_ambiguous(region: &Region, plan: &Plan, input: &Input) -> bool {
    plan.spans.iter().zip(&plan.starts).any(|(span, &start)| {
        let before = span.start.checked_sub(1);
        looks_like_int_3(
            before.and_then(|offset| region.pages.byte(offset)),
            &input.bytes[start..start + span.len as usize],
            region.pages.byte(span.end()),
        )
    })
}

/// Publishes. Can't fail.
fn commit(
    region: &Arc<Region>,
    turn: &mut Turn,
    plan: &Plan,
    input: &Input,
    mut supplies: Supplies,
    sync: bool,
) {
    turn.cpus.clear();
    let mut stale = false;
    // The page after the one at hand, if this publication swapped it.
    let mut next: Option<(u64, Swapped)> = None;
    for touched in Descending::new(&plan.spans) {
        let after = match next {
            Some((page, swapped)) if page == touched.page + 1 => swapped,
            _ => Swapped::default(),
        };
        if must_flush_before(plan.crosses_after(touched), after) {
            region.counters.straddles.add(1);
            retire::flush(region, &mut turn.cpus);
            stale = false;
        }
        let Some(blank) = supplies.blanks.pop() else {
            break;
        };
        let write = Write {
            region,
            plan,
            touched,
            bytes: &input.bytes,
        };
        let swapped = write.publish(blank, turn, &mut supplies.retired);
        stale |= swapped.may_be_stale();
        next = Some((touched.page, swapped));
    }
    if must_flush_after(sync, stale) {
        retire::flush(region, &mut turn.cpus);
    }
    supplies.finish(region, turn, plan, input);
}

impl Supplies {
    fn finish(mut self, region: &Arc<Region>, turn: &mut Turn, plan: &Plan, input: &Input) {
        let counters = &region.counters;
        counters.publications.add(1);
        counters.segments.add(plan.spans.len() as u64);
        counters.bytes.add(input.bytes.len() as u64);
        turn.holes.take(&plan.spans, self.holes);
        retire::retire(region, &mut self.retired, &turn.cpus, self.reservation);
    }
}

/// One page of a publication.
struct Write<'a> {
    region: &'a Region,
    plan: &'a Plan,
    touched: Touched,
    bytes: &'a [u8],
}

impl Write<'_> {
    fn page(&self) -> usize {
        self.touched.page as usize
    }

    fn publish(&self, blank: Blank, turn: &mut Turn, retired: &mut KVec<Arc<Version>>) -> Swapped {
        match change(self.region.pages.state(self.page())) {
            Change::Create => self.create(blank),
            Change::InPlace if self.in_place() => self.region.keep(blank),
            // A fault may have mapped the page since it was looked at.
            Change::InPlace | Change::Replace => return self.replace(blank, turn, retired),
        }
        Swapped::default()
    }

    fn create(&self, mut blank: Blank) {
        self.plan
            .pieces(self.touched, self.bytes, |at, bytes| blank.write(at, bytes));
        self.region.pages.put(self.page(), blank.into_version());
    }

    fn in_place(&self) -> bool {
        let done = self.region.pages.write_unseen(self.page(), |version| {
            self.plan.pieces(self.touched, self.bytes, |at, bytes| {
                version.write_unseen(at, bytes)
            });
        });
        if done {
            self.region.counters.in_place.add(1);
        }
        done
    }

    /// Rule R4: the slot first, then the entries.
    fn replace(
        &self,
        mut blank: Blank,
        turn: &mut Turn,
        retired: &mut KVec<Arc<Version>>,
    ) -> Swapped {
        let (Some(old), Some(space)) = (self.region.pages.get(self.page()), &self.region.space)
        else {
            return Swapped::default();
        };
        blank.copy_from(&old);
        self.plan
            .pieces(self.touched, self.bytes, |at, bytes| blank.write(at, bytes));
        let new = blank.into_version();
        new.set_seen();
        drop(old);
        let old = self.region.pages.put(self.page(), new.clone());
        let pgoff = self.region.first_pgoff() + self.page();
        let mut swapped = pte::swap_everywhere(&space.lock(), pgoff, &new, &mut turn.cpus);
        // A TLB may have kept a version from before the last one.
        swapped.outdated = self.region.pending() != 0;
        self.region.counters.swaps.add(u64::from(swapped.entries));
        if let Some(old) = old {
            self.give_up(old, swapped, retired);
        }
        swapped
    }

    /// An entry that no CPU has used was never cached: nothing to wait for.
    fn give_up(&self, old: Arc<Version>, swapped: Swapped, retired: &mut KVec<Arc<Version>>) {
        if swapped.accessed {
            // Room for it was made: the page existed.
            let _ = retired.push_within_capacity(old);
            return;
        }
        self.region.counters.retired.add(1);
        if let Some(blank) = Blank::recycle(old) {
            self.region.keep(blank);
        }
        self.region.counters.freed.add(1);
    }
}

/// The content of a region that nobody can see yet: `JIT_CREATE_CODE`. Fails
/// with `EFAULT`, `ENOMEM` or `EDQUOT`.
pub(crate) fn fill_new(region: &Region, source: u64, len: u64) -> Result {
    let mut reader = UserSlice::new(user_ptr(source)?, usize::try_from(len)?).reader();
    let mut buffer: KVec<u8> = KVec::from_elem(0, PAGE_SIZE, GFP_KERNEL)?;
    let mut page = 0;
    while !reader.is_empty() {
        let piece = reader.len().min(PAGE_SIZE);
        reader.read_slice(&mut buffer[..piece])?;
        let mut blank = region.blank()?;
        blank.write(0, &buffer[..piece]);
        region.pages.put(page, blank.into_version());
        page += 1;
    }
    let mut turn = region.turn.lock();
    turn.cursor = len;
    turn.sealed = true;
    Ok(())
}
