// SPDX-License-Identifier: GPL-2.0

//! One publication: segments from userspace become code that CPUs execute.
//!
//! ```text
//!  copy in ─▶ turn ─▶ place ─▶ allocate ─▶ for each page, last to first: ─▶ retire
//!  (may fail, nothing changed yet)         slot, then entries (can't fail)
//! ```
//!
//! What is added to one page that nobody can see takes a shorter way: it needs
//! no memory and replaces nothing.
//!
//! Lock order: see `region.rs`. User memory is read before the turn is taken,
//! and no result is written back.

use kernel::{alloc::KVec, prelude::*, sync::Arc, uaccess::UserSlice};

use crate::{
    error::errno,
    ffi,
    holes::Spare,
    page::{Blank, Version},
    pages::state_of,
    plan::{
        abi::{self, Publish, PAGE_SIZE},
        lifecycle::{change, must_flush_after, must_flush_before, Change, Swapped},
        refusal::Refusal,
        request::{self, page_round, Kind},
        span::{self, Descending, Span, Touched},
        stale::{looks_like_int_3, wants_after, wants_before, INT_IMM8},
    },
    pte,
    region::{Region, Turn},
    retire,
    stage::{user_ptr, Stage, Supply},
    tlb::Cpus,
};

/// `JIT_APPEND` and `JIT_FILL`. Returns the offset of the first segment.
pub(crate) fn publish(region: &Arc<Region>, arg: &Publish, kind: Kind) -> Result<u64> {
    request::publish(arg, kind).map_err(errno)?;
    let mut stage = region.take_stage()?;
    let result = stage
        .copy_in(arg, kind, region)
        .and_then(|()| in_turn(region, arg, kind, &mut stage));
    region.put_stage(stage);
    result
}

fn in_turn(region: &Arc<Region>, arg: &Publish, kind: Kind, stage: &mut Stage) -> Result<u64> {
    let mut turn = region.turn.lock();
    region.check_publisher()?;
    let cursor = match kind {
        Kind::Append => place_append(stage, arg, region, &turn)?,
        Kind::Fill => place_fill(stage, &mut turn)?,
    };
    if kind == Kind::Fill || !add_unseen(region, stage) {
        let supplies = Supplies::get(region, stage, kind)?;
        if makes_old_ambiguous(region, stage) && region.pending() != 0 {
            retire::flush(region, &mut Cpus::none());
        }
        let sync = arg.flags & abi::PUBLISH_SYNC != 0 || is_ambiguous(region, stage);
        commit(region, &mut turn, stage, supplies, sync);
    }
    count(region, stage);
    turn.cursor = cursor;
    Ok(first_offset(stage))
}

/// Writes to a page that no CPU can see, if that is all there is to do. Then
/// nothing of it can be stale, so nothing is flushed whatever was asked for.
fn add_unseen(region: &Region, stage: &Stage) -> bool {
    let &[span] = &stage.spans[..] else {
        return false;
    };
    let page = span.first_page() as usize;
    let done = span.is_on_one_page()
        && region.pages.write_unseen(page, |version| {
            let at = (span.start % PAGE_SIZE as u64) as usize;
            version.write_unseen(at, &stage.bytes);
        });
    region.counters.in_place.add(u64::from(done));
    done
}

fn count(region: &Region, stage: &Stage) {
    let counters = &region.counters;
    counters.publications.add(1);
    counters.segments.add(stage.segments.len() as u64);
    counters.bytes.add(stage.bytes.len() as u64);
}

fn first_offset(stage: &Stage) -> u64 {
    stage.spans.first().map_or(0, |span| span.start)
}

/// Places the segments at the cursor. Returns the cursor behind them.
fn place_append(stage: &mut Stage, arg: &Publish, region: &Region, turn: &Turn) -> Result<u64> {
    let fresh = arg.flags & abi::PUBLISH_FRESH != 0;
    let mut cursor = turn.cursor;
    if fresh {
        cursor = page_round(cursor);
    }
    let mut start = 0;
    for index in 0..stage.segments.len() {
        let segment = stage.segments[index];
        let span = span::place(cursor, region.capacity(), segment.len, segment.align_log2)
            .map_err(errno)?;
        cursor = span.end();
        stage.append_span(span, start)?;
        start += usize::try_from(segment.len)?;
    }
    if fresh {
        cursor = page_round(cursor);
    }
    if arg.expect != abi::ANY_OFFSET && arg.expect != first_offset(stage) {
        return Err(errno(Refusal::Moved));
    }
    Ok(cursor)
}

/// Places the segments where they ask to be. Returns the cursor, unchanged.
fn place_fill(stage: &mut Stage, turn: &mut Turn) -> Result<u64> {
    let mut start = 0;
    for index in 0..stage.segments.len() {
        let segment = stage.segments[index];
        let span = Span {
            start: segment.offset,
            len: segment.len,
        };
        stage.push_span(span, start)?;
        start += usize::try_from(segment.len)?;
    }
    span::check_ascending(&stage.spans).map_err(errno)?;
    turn.holes.check(&stage.spans)?;
    Region::charge_holes(turn, stage.spans.len())?;
    Ok(turn.cursor)
}

/// What a publication needs beside its supplies, so that it can't fail
/// half-way.
struct Supplies {
    reservation: retire::Reservation,
    holes: Spare,
}

impl Supplies {
    fn get(region: &Region, stage: &mut Stage, kind: Kind) -> Result<Self> {
        let mut existing = 0;
        for touched in Descending::new(&stage.spans) {
            ffi::check_alive()?;
            let old = region.pages.get(usize::try_from(touched.page)?);
            existing += usize::from(old.is_some());
            region.pool.make_room(state_of(old.as_deref()));
            let blank = region.blank()?;
            stage
                .supplies
                .push(Supply { old, blank }, GFP_KERNEL_ACCOUNT)?;
        }
        stage.retired.reserve(existing, GFP_KERNEL_ACCOUNT)?;
        let holes = Spare::new(match kind {
            Kind::Append => 0,
            Kind::Fill => stage.spans.len(),
        })?;
        Ok(Supplies {
            reservation: retire::reserve(region, existing),
            holes,
        })
    }
}

/// Whether a stale trap in this code could be taken for `int 3`: it is followed
/// by a flush.
fn is_ambiguous(region: &Region, stage: &Stage) -> bool {
    (0..stage.spans.len()).any(|index| {
        let bytes = stage.bytes_of(index);
        let before = wants_before(bytes).then(|| byte_before(region, stage, index));
        looks_like_int_3(before.flatten(), bytes, None)
    })
}

/// Whether a stale trap in code that was published earlier, right after this,
/// could be taken for `int 3` once this is there: then what is stale goes first.
fn makes_old_ambiguous(region: &Region, stage: &Stage) -> bool {
    (0..stage.spans.len()).any(|index| {
        let bytes = stage.bytes_of(index);
        let end = stage.spans[index].end();
        let last = &bytes[bytes.len().saturating_sub(1)..];
        wants_after(bytes) && looks_like_int_3(None, last, region.pages.byte(end))
    })
}

/// The byte before a span, also where the same publication brings it. A mapping
/// may start with any page: what lies before that can be anything.
fn byte_before(region: &Region, stage: &Stage, index: usize) -> Option<u8> {
    let start = stage.spans[index].start;
    if start % PAGE_SIZE as u64 == 0 {
        return Some(INT_IMM8);
    }
    match index.checked_sub(1) {
        Some(before) if stage.spans[before].end() == start => {
            stage.bytes_of(before).last().copied()
        }
        _ => region.pages.byte(start.checked_sub(1)?),
    }
}

/// Publishes. Can't fail.
fn commit(
    region: &Arc<Region>,
    turn: &mut Turn,
    stage: &mut Stage,
    supplies: Supplies,
    sync: bool,
) {
    turn.cpus.clear();
    let Stage {
        spans,
        starts,
        bytes,
        supplies: pages,
        retired,
        ..
    } = stage;
    let mut stale = false;
    // The page after the one at hand, if this publication swapped it.
    let mut next: Option<(u64, Swapped)> = None;
    for (touched, supply) in Descending::new(spans).zip(pages.drain_all()) {
        let write = Write {
            region,
            spans,
            starts,
            bytes,
            touched,
        };
        let after = match next {
            Some((page, swapped)) if page == touched.page + 1 => swapped,
            _ => Swapped::default(),
        };
        if must_flush_before(write.crosses_after(), after) {
            region.counters.straddles.add(1);
            retire::flush(region, &mut turn.cpus);
            stale = false;
        }
        let swapped = write.publish(supply, turn, retired);
        stale |= swapped.may_be_stale();
        next = Some((touched.page, swapped));
    }
    if must_flush_after(sync, stale) {
        retire::flush(region, &mut turn.cpus);
    }
    turn.holes.take(spans, supplies.holes);
    retire::retire(region, retired, &turn.cpus, supplies.reservation);
}

/// One page of a publication.
struct Write<'a> {
    region: &'a Region,
    spans: &'a [Span],
    starts: &'a [usize],
    bytes: &'a [u8],
    touched: Touched,
}

impl Write<'_> {
    fn page(&self) -> usize {
        self.touched.page as usize
    }

    /// Calls `write` with each piece of the page: offset in the page, bytes.
    fn pieces(&self, mut write: impl FnMut(usize, &[u8])) {
        for index in self.touched.from..self.touched.to {
            if let Some(piece) = self.spans[index].piece(self.touched.page) {
                let from = self.starts[index] + piece.in_span;
                write(piece.in_page, &self.bytes[from..from + piece.len]);
            }
        }
    }

    /// Whether some span goes on from this page to the one after it.
    fn crosses_after(&self) -> bool {
        let last = self.spans.get(self.touched.to - 1);
        last.is_some_and(|span| span.crosses_after(self.touched.page))
    }

    fn publish(
        &self,
        supply: Supply,
        turn: &mut Turn,
        retired: &mut KVec<Arc<Version>>,
    ) -> Swapped {
        let Supply { old, blank } = supply;
        match (change(state_of(old.as_deref())), old) {
            (Change::InPlace, _) if self.in_place() => self.region.pool.keep(blank),
            // A fault may have mapped the page since it was looked at.
            (Change::InPlace | Change::Replace, Some(old)) => {
                return self.replace(old, blank, turn, retired)
            }
            (Change::Create | Change::InPlace | Change::Replace, _) => self.create(blank),
        }
        Swapped::default()
    }

    fn create(&self, mut blank: Blank) {
        self.pieces(|at, bytes| blank.write(at, bytes));
        self.region.pages.put(self.page(), blank.into_version());
    }

    fn in_place(&self) -> bool {
        let done = self.region.pages.write_unseen(self.page(), |version| {
            self.pieces(|at, bytes| version.write_unseen(at, bytes));
        });
        if done {
            self.region.counters.in_place.add(1);
        }
        done
    }

    /// Rule R4: the slot first, then the entries.
    fn replace(
        &self,
        old: Arc<Version>,
        mut blank: Blank,
        turn: &mut Turn,
        retired: &mut KVec<Arc<Version>>,
    ) -> Swapped {
        let Some(space) = &self.region.space else {
            return Swapped::default();
        };
        blank.copy_from(&old);
        // Whoever frees the old version, or uses it again, is the only holder.
        drop(old);
        self.pieces(|at, bytes| blank.write(at, bytes));
        let new = blank.into_version();
        new.set_seen();
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
        self.region.take_back(old, |_| ());
        self.region.counters.freed.add(1);
    }
}

/// The content of a region that nobody can see yet: `JIT_CREATE_CODE`. Fails
/// with `EFAULT`, `ENOMEM`, `EDQUOT` or `EINTR`.
pub(crate) fn fill_new(region: &Region, source: u64, len: u64) -> Result {
    let mut reader = UserSlice::new(user_ptr(source)?, usize::try_from(len)?).reader();
    let mut buffer: KVec<u8> = KVec::from_elem(0, PAGE_SIZE, GFP_KERNEL)?;
    let mut page = 0;
    while !reader.is_empty() {
        ffi::check_alive()?;
        let piece = reader.len().min(PAGE_SIZE);
        reader.read_slice(&mut buffer[..piece])?;
        let mut blank = region.blank()?;
        blank.write(0, &buffer[..piece]);
        region.pages.put(page, blank.into_version());
        page += 1;
    }
    region.finish(len);
    Ok(())
}
