// SPDX-License-Identifier: GPL-2.0

//! One publication: segments from userspace become code that CPUs execute.
//!
//! ```text
//!  copy in ─▶ turn ─▶ place ─▶ is there enough memory? ─▶ for each page, last to
//!  (may fail)  ▲                     │ no                 first: slot, then
//!              └── allocate, ◀───────┘                    entries ─▶ retire
//!                  off turn                               (can't fail)
//! ```
//!
//! What is added to one page that nobody can see takes a shorter way: it needs
//! no memory and replaces nothing.
//!
//! Lock order: see `region.rs`. User memory is read, and memory allocated, while
//! no turn is held; no result is written back.

use kernel::{alloc::KVVec, prelude::*, sync::Arc};

use crate::{
    error::{errno, quota},
    ffi,
    page::{Blank, Replaced, Still, Version},
    pages::state_of,
    parameters,
    plan::{
        abi::{self, Publish, PAGE_SIZE},
        ledger,
        lifecycle::{change, must_flush_after, must_flush_before, Change, Swapped},
        refusal::Refusal,
        request::{self, page_round, Kind},
        span::{self, Descending, Span, Touched},
        stale::{looks_like_int_3, wants_after, wants_before, INT_IMM8},
    },
    pte,
    region::{Region, Turn},
    reserved, retire,
    source::Source,
    staging::{Bytes, Staging},
    waiting,
};

/// `JIT_APPEND` and `JIT_FILL`. Returns the offset of the first segment.
pub(crate) fn publish(region: &Arc<Region>, arg: &Publish, kind: Kind) -> Result<u64> {
    request::publish(arg, kind).map_err(errno)?;
    check_not_stopped()?;
    let mut stage = region.take_stage()?;
    let result = stage
        .copy_in(arg, kind, region.capacity())
        // There is no memory for bytes that nobody will publish.
        .and_then(|()| region.check_publisher())
        .and_then(|()| stage.copy_bytes(&region.supply))
        .and_then(|()| in_turns(region, arg, kind, &mut stage));
    region.put_stage(stage);
    result
}

/// Fails with `ESHUTDOWN` if the administrator has stopped new code.
pub(crate) fn check_not_stopped() -> Result {
    match parameters::stop() {
        true => Err(errno(Refusal::Stopped)),
        false => Ok(()),
    }
}

/// What a publication lacks.
enum Lack {
    /// Pages, for so many that it touches.
    Pages(usize),
    /// Room for so many replaced pages to wait.
    Waiting(usize),
    /// Memory for so many more reserved ranges.
    Ranges(usize),
}

/// Takes turns until it has all the memory it needs: each brings more of it, and
/// a publication needs no more than its segments say.
fn in_turns(region: &Arc<Region>, arg: &Publish, kind: Kind, stage: &mut Staging) -> Result<u64> {
    loop {
        let lack = match in_turn(region, arg, kind, stage)? {
            Ok(offset) => return Ok(offset),
            Err(lack) => lack,
        };
        match lack {
            Lack::Pages(touched) => stage.supply(&region.supply, touched)?,
            Lack::Waiting(count) => region.make_room(count)?,
            Lack::Ranges(count) => stage.spare.reserve(count)?,
        }
    }
}

/// One turn: publishes, or says what is missing.
fn in_turn(
    region: &Arc<Region>,
    arg: &Publish,
    kind: Kind,
    stage: &mut Staging,
) -> Result<Result<u64, Lack>> {
    let turn = &mut region.take_turn()?;
    region.check_publisher()?;
    let cursor = match kind {
        Kind::Append => place_append(stage, arg, region, turn.cursor())?,
        Kind::Fill => place_fill(stage, turn)?,
    };
    if kind == Kind::Fill || !add_unseen(region, stage, cursor) {
        if let Some(lack) = lack(turn, kind, stage) {
            return Ok(Err(lack));
        }
        if makes_old_ambiguous(region, stage) {
            retire::flush(turn);
        }
        let sync = arg.flags & abi::PUBLISH_SYNC != 0 || is_ambiguous(region, stage);
        commit(turn, stage, sync);
        let filled = match kind {
            Kind::Append => &[][..],
            Kind::Fill => &stage.spans,
        };
        region.pages.end(cursor, filled, &mut stage.spare);
    }
    turn.set_cursor(cursor);
    count(region, stage);
    Ok(Ok(first_offset(stage)))
}

/// What is missing, so that from here on it can't fail half-way.
fn lack(turn: &mut Turn<'_>, kind: Kind, stage: &mut Staging) -> Option<Lack> {
    let region = turn.region();
    if kind == Kind::Fill && !stage.spare.is_enough(stage.spans.len()) {
        return Some(Lack::Ranges(stage.spans.len()));
    }
    let touched = stage.touched();
    if !stage.gather(&region.supply, touched) {
        return Some(Lack::Pages(touched));
    }
    // How many may be replaced: behind the cursor's page there is nothing, nor is
    // there on a page that lies wholly in a reserved range.
    let replaced = match kind {
        Kind::Append => 1,
        Kind::Fill => touched.min(2 * stage.spans.len()),
    };
    if is_full(region, replaced) {
        // A page whose wait is over needs no flush.
        while retire::harvest(region, usize::MAX, |_| ()) {}
    }
    if is_full(region, replaced) {
        retire::flush(turn);
        while retire::harvest(region, usize::MAX, |_| ()) {}
    }
    (!region.supply.waiting.has_room(replaced)).then_some(Lack::Waiting(replaced))
}

/// Whether so many pages wait that `replaced` more are beyond the bound.
fn is_full(region: &Region, replaced: usize) -> bool {
    let now = region.supply.waiting.len();
    now != 0 && ledger::must_flush(waiting::bound(), now, replaced)
}

/// Writes to a page that no CPU can see, if that is all there is to do. Then
/// nothing of it can be stale, so nothing is flushed whatever was asked for.
fn add_unseen(region: &Region, stage: &Staging, cursor: u64) -> bool {
    let &[span] = &stage.spans[..] else {
        return false;
    };
    let page = span.first_page() as usize;
    let done = span.is_on_one_page()
        && region.pages.append_unseen(page, cursor, |version| {
            let mut at = (span.start % PAGE_SIZE as u64) as usize;
            stage.bytes.for_each(0, stage.bytes.len(), |piece| {
                version.write(at, piece);
                at += piece.len();
            });
        });
    region.counters.in_place.add(u64::from(done));
    done
}

fn count(region: &Region, stage: &Staging) {
    let counters = &region.counters;
    counters.publications.add(1);
    counters.segments.add(stage.segments.len() as u64);
    counters.bytes.add(stage.bytes.len() as u64);
}

fn first_offset(stage: &Staging) -> u64 {
    stage.spans.first().map_or(0, |span| span.start)
}

/// Places the segments at the cursor. Returns the cursor behind them.
fn place_append(stage: &mut Staging, arg: &Publish, region: &Region, from: u64) -> Result<u64> {
    if let Some((cursor, behind)) = stage.placed {
        if cursor == from {
            return Ok(behind);
        }
    }
    stage.clear_spans();
    let fresh = arg.flags & abi::PUBLISH_FRESH != 0;
    let mut cursor = from;
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
    stage.placed = Some((from, cursor));
    Ok(cursor)
}

/// Places the segments where they ask to be. Returns the cursor, unchanged.
fn place_fill(stage: &mut Staging, turn: &mut Turn<'_>) -> Result<u64> {
    let region = turn.region();
    stage.clear_spans();
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
    region.pages.check_reserved(&stage.spans)?;
    let ranges = region.pages.holes() + stage.spans.len();
    if ranges > reserved::MOST + abi::MAX_SEGMENTS as usize {
        return Err(quota());
    }
    turn.charge_holes(ranges)?;
    Ok(turn.cursor())
}

/// The last byte of a span.
fn last_byte(stage: &Staging, index: usize) -> Option<u8> {
    let end = stage.starts[index] + stage.spans[index].len as usize;
    stage.bytes.slice(end - 1, 1)?.first().copied()
}

/// Whether a stale trap in this code could be taken for `int 3`: it is followed
/// by a flush.
fn is_ambiguous(region: &Region, stage: &Staging) -> bool {
    (0..stage.spans.len()).any(|index| {
        let (start, len) = (stage.starts[index], stage.spans[index].len as usize);
        let before = || byte_before(region, stage, index);
        match stage.bytes.slice(start, len) {
            Some(all) => is_int_3_after(before, all, [all]),
            None => {
                let first = stage.bytes.slice(start, 1).unwrap_or(&[]);
                is_int_3_after(before, first, stage.bytes.pieces(start, len))
            }
        }
    })
}

/// Whether `pieces`, which begin with `first`, look like `int 3` behind `before`.
fn is_int_3_after<'a>(
    before: impl FnOnce() -> Option<u8>,
    first: &[u8],
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> bool {
    let before = wants_before(first).then(before);
    looks_like_int_3(before.flatten(), pieces, None)
}

/// Whether a stale trap in code that was published earlier, right after this,
/// could be taken for `int 3` once this is there, and a CPU may meet one: then
/// what is stale goes first.
fn makes_old_ambiguous(region: &Region, stage: &Staging) -> bool {
    (0..stage.spans.len()).any(|index| {
        let end = stage.spans[index].end();
        last_byte(stage, index).is_some_and(|last| {
            wants_after(&[last])
                && looks_like_int_3(None, [&[last][..]], region.pages.byte(end))
                && region
                    .supply
                    .waiting
                    .is_outdated(region.pages.replaced(end))
        })
    })
}

/// The byte before a span, also where the same publication brings it. A mapping
/// may start with any page: what lies before that can be anything.
fn byte_before(region: &Region, stage: &Staging, index: usize) -> Option<u8> {
    let start = stage.spans[index].start;
    if start % PAGE_SIZE as u64 == 0 {
        return Some(INT_IMM8);
    }
    match index.checked_sub(1) {
        Some(before) if stage.spans[before].end() == start => last_byte(stage, before),
        _ => region.pages.byte(start.checked_sub(1)?),
    }
}

/// Publishes. Can't fail. [`Pages::end`](crate::pages::Pages::end) comes next.
fn commit(turn: &mut Turn<'_>, stage: &mut Staging, sync: bool) {
    let region = turn.region();
    let Staging {
        spans,
        starts,
        bytes,
        blanks,
        retired,
        replaces,
        ..
    } = stage;
    region.pages.begin();
    let mut stale = false;
    // The page after the one at hand, if this publication swapped it.
    let mut next: Option<(u64, Swapped)> = None;
    // Bytes before this one are still to be published.
    let mut left = bytes.len();
    for touched in Descending::new(spans) {
        let write = Write {
            region,
            spans,
            starts,
            touched,
        };
        let after = match next {
            Some((page, swapped)) if page == touched.page + 1 => swapped,
            _ => Swapped::default(),
        };
        if must_flush_before(write.crosses_after(), after) {
            region.counters.straddles.add(1);
            retire::flush(turn);
            stale = false;
        }
        let blank = blanks.pop().or_else(|| bytes.take_empty(left));
        let (swapped, unused) = write.publish(bytes, blank, turn, retired);
        if let Some(blank) = unused {
            // There is room: it was taken out just now, or others were.
            let _ = blanks.push_within_capacity(blank);
        }
        left = write.first_byte();
        stale |= swapped.may_be_stale();
        *replaces |= swapped.entries != 0;
        next = Some((touched.page, swapped));
    }
    if must_flush_after(sync, stale) {
        retire::flush(turn);
    }
    // SAFETY: They were replaced just now, in this turn.
    unsafe { retire::retire(turn, retired) };
}

/// One page of a publication.
struct Write<'a> {
    region: &'a Region,
    spans: &'a [Span],
    starts: &'a [usize],
    touched: Touched,
}

impl Write<'_> {
    fn page(&self) -> usize {
        self.touched.page as usize
    }

    /// Calls `write` with each piece of the page: offset in the page, bytes.
    fn pieces(&self, bytes: &Bytes, mut write: impl FnMut(usize, &[u8])) {
        for index in self.touched.from..self.touched.to {
            if let Some(piece) = self.spans[index].piece(self.touched.page) {
                let mut at = piece.in_page;
                bytes.for_each(self.starts[index] + piece.in_span, piece.len, |some| {
                    write(at, some);
                    at += some.len();
                });
            }
        }
    }

    /// The first of all bytes that lies on the page.
    fn first_byte(&self) -> usize {
        let index = self.touched.from;
        let piece = self
            .spans
            .get(index)
            .and_then(|span| span.piece(self.touched.page));
        piece.map_or(0, |piece| self.starts[index] + piece.in_span)
    }

    /// Whether some span goes on from this page to the one after it.
    fn crosses_after(&self) -> bool {
        let last = self.spans.get(self.touched.to - 1);
        last.is_some_and(|span| span.crosses_after(self.touched.page))
    }

    /// Returns what the swap found, and the blank page if it was not needed.
    fn publish(
        &self,
        bytes: &Bytes,
        blank: Option<Blank>,
        turn: &mut Turn<'_>,
        retired: &mut KVVec<Replaced>,
    ) -> (Swapped, Option<Blank>) {
        // There is one: that many were gathered.
        let Some(blank) = blank else {
            pr_warn!("a publication lacks a page\n");
            return (Swapped::default(), None);
        };
        let old = self.region.pages.get(self.page());
        match (change(state_of(old.as_deref())), old) {
            (Change::InPlace, _) if self.in_place(bytes) => (Swapped::default(), Some(blank)),
            // A fault may have mapped the page since it was looked at.
            (Change::InPlace | Change::Replace, Some(old)) => {
                (self.replace(old, bytes, blank, turn, retired), None)
            }
            (Change::Create | Change::InPlace | Change::Replace, _) => {
                self.create(bytes, blank);
                (Swapped::default(), None)
            }
        }
    }

    fn create(&self, bytes: &Bytes, mut blank: Blank) {
        self.pieces(bytes, |at, some| blank.write(at, some));
        self.region
            .pages
            .put_first(self.page(), blank.into_version());
    }

    fn in_place(&self, bytes: &Bytes) -> bool {
        let done = self.region.pages.write_unseen(self.page(), |version| {
            self.pieces(bytes, |at, some| version.write(at, some));
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
        bytes: &Bytes,
        mut blank: Blank,
        turn: &mut Turn<'_>,
        retired: &mut KVVec<Replaced>,
    ) -> Swapped {
        let (Some(space), Some(still)) = (&self.region.space, Still::seen(&old)) else {
            return Swapped::default();
        };
        blank.copy_from(still);
        let replaced = old.replaced();
        // Whoever frees the old version, or uses it again, is the only holder.
        drop(old);
        self.pieces(bytes, |at, some| blank.write(at, some));
        let new = blank.into_version();
        new.set_seen();
        let old = self.region.pages.replace(self.page(), new.clone());
        let pgoff = self.region.first_pgoff() + self.page();
        // SAFETY: CPUs are added.
        let cpus = unsafe { &mut turn.stale().now };
        // SAFETY: It is in its slot, and `give_up` keeps the one before.
        let mut swapped = unsafe { pte::swap_everywhere(&space.lock(), pgoff, &new, cpus) };
        // A TLB may have kept a version from before the last one.
        swapped.outdated = !swapped.accessed && self.region.supply.waiting.is_outdated(replaced);
        let next = self.region.supply.waiting.next();
        new.set_replaced(ledger::replaced_under(replaced, swapped.accessed, next));
        self.region.counters.swaps.add(u64::from(swapped.entries));
        if let Some(old) = old {
            old.version().give_up(&self.region.supply.account);
            self.give_up(old, swapped, retired);
        }
        swapped
    }

    /// An entry that no CPU has used was never cached: nothing to wait for.
    fn give_up(&self, old: Replaced, swapped: Swapped, retired: &mut KVVec<Replaced>) {
        if swapped.accessed {
            // Can't fail: room was made.
            let _ = retired.push_within_capacity(old);
            return;
        }
        self.region.counters.retired.add(1);
        // SAFETY: No entry points to it any more, and none that did was cached.
        unsafe { self.region.supply.take_back(old.release(), |_| ()) };
        self.region.supply.freed.add(1);
    }
}

/// The content of a region that nobody can see yet: `JIT_CREATE_CODE`. Fails
/// with `EFAULT`, `ENOMEM`, `EDQUOT` or `EINTR`.
pub(crate) fn fill_new(region: Pin<&mut Region>, source: u64, len: u64) -> Result {
    let mut source = Source::new(source, len)?;
    let mut page = 0;
    while source.left() != 0 {
        ffi::check_alive()?;
        let mut blank = region.supply.blank()?;
        blank.read_in(&mut source)?;
        region.pages.put_first(page, blank.into_version());
        page += 1;
    }
    region.finish(len);
    Ok(())
}
