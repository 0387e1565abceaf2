// SPDX-License-Identifier: GPL-2.0

//! The authoritative copy of a region: the newest version of each of its pages,
//! where its cursor is, and what is reserved.
//!
//! Lock order: the lock of the book (a spinlock; "slot lock" elsewhere) is
//! innermost but for page table locks: the fault path installs an entry under
//! it, so that it can't install a version which a publication has just
//! replaced; and for the lock of an account's home, where a charge is counted. It is
//! taken in process context and by the #BP handler, which
//! interrupts user mode only and so never code that holds it. Held for a time
//! that its holder's scheduling does not decide: nothing is allocated, freed or
//! waited for under it.

use kernel::{
    alloc::{KVVec, KVec},
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        new_spinlock, Arc, SpinLock,
    },
};

use crate::{
    ffi,
    page::{Replaced, Still, Unseen, Version},
    plan::{
        abi::{FILL, PAGE_SIZE},
        ledger::Ticket,
        lifecycle::PageState,
        span::Span,
    },
    reserved::{self, Reserved, Room, Spare},
    user::{Account, Charge},
};

type Slot = Option<Arc<Version>>;

/// Slots whose changes are noted together.
pub(crate) const GROUP: usize = 512;

/// What the lock guards.
struct Book {
    slots: KVVec<Slot>,
    /// For each [`GROUP`] of slots: `changes` when one of them changed last.
    changed: KVVec<u64>,
    changes: u64,
    /// Bytes published or reserved.
    cursor: u64,
    holes: Reserved,
    /// Pages that have a version.
    published: usize,
}

impl Book {
    fn put(&mut self, page: usize, version: Arc<Version>) -> Slot {
        let slot = self.slots.get_mut(page)?;
        self.changes += 1;
        if let Some(changed) = self.changed.get_mut(page / GROUP) {
            *changed = self.changes;
        }
        let old = slot.replace(version);
        self.published += usize::from(old.is_none());
        old
    }

    /// Whether a page of `group` changed after `since`.
    fn has_changed(&self, group: usize, since: u64) -> bool {
        self.changed
            .get(group)
            .is_some_and(|&changed| changed > since)
    }

    /// How many pages of `group` have a version.
    fn published_in(&self, group: usize) -> usize {
        let slots = self.slots.iter().skip(group * GROUP).take(GROUP);
        slots.flatten().count()
    }

    fn write_unseen(&self, page: usize, write: impl FnOnce(&mut Unseen<'_>)) -> bool {
        let version = self.slots.get(page).and_then(Option::as_deref);
        // SAFETY: Who has the book holds its lock until this returns.
        match version.and_then(|version| unsafe { Unseen::in_slot(version) }) {
            Some(mut unseen) => {
                write(&mut unseen);
                true
            }
            None => false,
        }
    }
}

/// The pages of one region.
#[pin_data]
pub(crate) struct Pages {
    #[pin]
    book: SpinLock<Book>,
    /// A publication has changed some pages and not yet all. Set before the first
    /// change, which the lock orders, and cleared under the lock.
    is_half_done: Atomic<bool>,
}

/// What the world can have seen of a page whose newest version is `version`.
pub(crate) fn state_of(version: Option<&Version>) -> PageState {
    match version {
        None => PageState::Absent,
        Some(version) if version.is_seen() => PageState::Live,
        Some(_) => PageState::Unseen,
    }
}

/// Splits an offset into a page and an offset in it.
fn locate(offset: u64) -> (usize, usize) {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    (offset / PAGE_SIZE, offset % PAGE_SIZE)
}

/// A vector of `count` times the same.
fn filled<T>(count: usize, value: impl Fn() -> T) -> Result<KVVec<T>> {
    let mut vector = KVVec::with_capacity(count, ffi::CHARGED)?;
    for _ in 0..count {
        vector.push(value(), ffi::CHARGED)?;
    }
    Ok(vector)
}

impl Pages {
    /// The memory that `count` pages take here, in pages.
    pub(crate) const fn memory(count: usize) -> usize {
        count * size_of::<Slot>() / PAGE_SIZE
    }

    /// `count` pages, all absent.
    pub(crate) fn new(count: usize) -> Result<impl PinInit<Self>> {
        let book = Book {
            slots: filled(count, || None)?,
            changed: filled(count.div_ceil(GROUP), || 0)?,
            changes: 0,
            cursor: 0,
            holes: Reserved::new(),
            published: 0,
        };
        Ok(pin_init!(Self {
            book <- new_spinlock!(book, "jit_slots"),
            is_half_done: Atomic::new(false),
        }))
    }

    /// The newest version of `page`. Only a publication, of which there is one
    /// at a time, changes it.
    pub(crate) fn get(&self, page: usize) -> Slot {
        self.book.lock().slots.get(page).and_then(Clone::clone)
    }

    /// Makes `version` the first of `page`, which has none. Says whether it did.
    pub(crate) fn put_first(&self, page: usize, version: Arc<Version>) -> bool {
        let mut book = self.book.lock();
        let is_absent = book.slots.get(page).is_some_and(Option::is_none);
        if is_absent {
            book.put(page, version);
        }
        is_absent
    }

    /// Makes `version` the newest of `page` (rule R4: before any page-table
    /// entry) and returns the one before.
    pub(crate) fn replace(&self, page: usize, version: Arc<Version>) -> Option<Replaced> {
        self.book.lock().put(page, version).map(Replaced::new)
    }

    /// Calls `write` with the version of `page` if no page-table entry can
    /// point to it, and keeps it so meanwhile. Says whether it did.
    pub(crate) fn write_unseen(&self, page: usize, write: impl FnOnce(&mut Unseen<'_>)) -> bool {
        self.book.lock().write_unseen(page, write)
    }

    /// The same as a whole publication, which leaves the cursor at `cursor`.
    pub(crate) fn append_unseen(
        &self,
        page: usize,
        cursor: u64,
        write: impl FnOnce(&mut Unseen<'_>),
    ) -> bool {
        let mut book = self.book.lock();
        let done = book.write_unseen(page, write);
        if done {
            book.cursor = cursor;
        }
        done
    }

    /// Calls `use_it` with the state of `page` and its newest version, which
    /// stays the newest meanwhile. `use_it` must not sleep.
    pub(crate) fn with<R>(
        &self,
        page: usize,
        use_it: impl FnOnce(PageState, Option<&Version>) -> R,
    ) -> R {
        let book = self.book.lock();
        let version = book.slots.get(page).and_then(Option::as_deref);
        use_it(state_of(version), version)
    }

    /// Calls `use_it` with the content of `page`, `None` where nothing is
    /// published.
    fn read_page<R>(&self, page: usize, use_it: impl FnOnce(Option<Still<'_>>) -> R) -> R {
        // SAFETY: The lock is held while `use_it` runs.
        self.with(page, |_, version| {
            use_it(version.map(|version| unsafe { Still::in_slot(version) }))
        })
    }

    /// The authoritative byte at `offset`, `None` where nothing is published.
    pub(crate) fn byte(&self, offset: u64) -> Option<u8> {
        let (page, in_page) = locate(offset);
        self.read_page(page, |content| content.map(|content| content.byte(in_page)))
    }

    /// The last ticket under which a version of the page at `offset` was replaced.
    pub(crate) fn replaced(&self, offset: u64) -> Ticket {
        self.with(locate(offset).0, |_, version| {
            version.map_or(0, Version::replaced)
        })
    }

    /// Copies authoritative bytes, 0xCC where nothing is published.
    pub(crate) fn read(&self, mut offset: u64, mut out: &mut [u8]) {
        while !out.is_empty() {
            let (page, in_page) = locate(offset);
            let (now, later) = out.split_at_mut(out.len().min(PAGE_SIZE - in_page));
            self.read_page(page, |content| match content {
                Some(content) => content.read(in_page, now),
                None => now.fill(FILL),
            });
            offset = offset.saturating_add(now.len() as u64);
            out = later;
        }
    }

    /// Bytes published or reserved.
    pub(crate) fn cursor(&self) -> u64 {
        self.book.lock().cursor
    }

    /// Sets it.
    pub(crate) fn set_cursor(&self, cursor: u64) {
        self.book.lock().cursor = cursor;
    }

    /// The region with `account` gives all its pages up. Nobody else uses it.
    pub(crate) fn give_up(&self, account: &Arc<Account>) {
        let count = self.book.lock().slots.len();
        for first in (0..count).step_by(GROUP) {
            // Taken anew, so that this CPU does something else meanwhile.
            let book = self.book.lock();
            let group = book.slots.iter().skip(first).take(GROUP);
            group.flatten().for_each(|version| version.give_up(account));
        }
    }

    /// Unfilled reserved ranges.
    pub(crate) fn holes(&self) -> usize {
        self.book.lock().holes.len()
    }

    /// Checks that each of `spans` lies in a reserved range.
    pub(crate) fn check_reserved(&self, spans: &[Span]) -> Result {
        self.book.lock().holes.check(spans)
    }

    /// Reserves `span`, which begins at the cursor or behind it.
    pub(crate) fn reserve(&self, span: Span, room: Room) {
        let mut book = self.book.lock();
        book.holes.add(span, room);
        book.cursor = span.end();
    }

    /// From here to [`Pages::end`] the pages belong to different states.
    pub(crate) fn begin(&self) {
        self.is_half_done.store(true, Relaxed);
    }

    /// The end of a publication that has filled `spans`, if it was a fill, and
    /// leaves the cursor where it says.
    pub(crate) fn end(&self, cursor: u64, filled: &[Span], spare: &mut Spare) {
        let mut book = self.book.lock();
        book.holes.take(filled, spare);
        book.cursor = cursor;
        self.is_half_done.store(false, Relaxed);
    }

    /// Shares the versions of the pages of `group`, in place of what `copy` has: each
    /// becomes seen, so that neither region writes it. `copy` has room.
    fn share_group(&self, book: &Book, group: usize, copy: &mut Shared) {
        let pages = group * GROUP..(group + 1) * GROUP;
        for page in pages {
            if let Some(version) = book.slots.get(page).and_then(Option::as_ref) {
                version.set_shared();
                let _ = copy.0.push_within_capacity((page, version.clone()));
            }
        }
    }

    /// Copies all that changed after `since` to `copy`, which pays for a page before it
    /// shares it: with `paid` for all that it has.
    /// Returns up to which change. What changes meanwhile may be missing.
    pub(crate) fn share(
        &self,
        since: u64,
        mut copy: Pin<&mut Pages>,
        paid: &mut Charge,
    ) -> Result<u64> {
        let mut shared = Shared::with_room(1)?;
        let (now, groups) = {
            let book = self.book.lock();
            (book.changes, book.changed.len())
        };
        for group in 0..groups {
            ffi::check_alive()?;
            // Most are as they were where this is not the first time.
            if !self.book.lock().has_changed(group, since) {
                continue;
            }
            // Nobody else changes the copy.
            let elsewhere = {
                let book = copy.book.lock();
                book.published - book.published_in(group)
            };
            let book = self.book.lock();
            paid.grow_to(elsewhere + book.published_in(group))?;
            self.share_group(&book, group, &mut shared);
            drop(book);
            shared.give_to(copy.as_mut());
        }
        Ok(now)
    }

    /// Copies what is reserved, a few ranges at a time. What changes meanwhile may be
    /// missing, so the copy says which state it is of.
    pub(crate) fn list_reserved(&self, rooms: &mut Spare) -> Result<Listed> {
        let mut listed = Listed {
            holes: Reserved::new(),
            changes: self.book.lock().holes.changes(),
        };
        let mut some = KVec::with_capacity(reserved::A_FEW, ffi::CHARGED)?;
        let mut from = 0;
        loop {
            ffi::check_alive()?;
            self.book.lock().holes.list(from, &mut some);
            let Some(last) = some.last() else {
                return Ok(listed);
            };
            from = last.end();
            for span in some.drain_all() {
                // A list without it is not taken: see `share_rest`.
                if let Some(room) = rooms.take() {
                    listed.holes.add(span, room);
                }
            }
        }
    }

    /// Copies the last changes after `since`, the cursor and what is reserved, if
    /// they belong to one state, and are so few that nobody waits for it long: at most
    /// `most` reserved ranges, or those that were `listed`. Fails with `EDQUOT`.
    pub(crate) fn share_rest(
        &self,
        since: u64,
        mut copy: Pin<&mut Pages>,
        shared: &mut Shared,
        reserved: Ranges<'_>,
        paid: &mut Charge,
    ) -> Result<Rest> {
        let book = self.book.lock();
        let groups = 0..book.changed.len();
        let changed = groups.filter(|&group| book.has_changed(group, since));
        let can_copy = match &reserved {
            // The list is short if ranges came before it was begun: memory was set
            // aside for those that there were.
            Ranges::Listed(listed) => {
                let of_now = book.holes.changes() == listed.changes;
                of_now && book.holes.len() == listed.holes.len()
            }
            Ranges::AtMost(most, rooms) => book.holes.len() <= rooms.len().min(*most),
        };
        if self.is_half_done.load(Relaxed) || changed.clone().count() > Shared::GROUPS || !can_copy
        {
            return Ok(match self.is_half_done.load(Relaxed) {
                true => Rest::HalfDone,
                false => Rest::TooMuch,
            });
        }
        paid.grow_to(book.published)?;
        for group in changed {
            self.share_group(&book, group, shared);
        }
        let holes = match reserved {
            Ranges::Listed(listed) => listed.holes,
            Ranges::AtMost(_, rooms) => book.holes.copy(rooms),
        };
        let cursor = book.cursor;
        drop(book);
        shared.give_to(copy.as_mut());
        let mut book = copy.book.lock();
        // The empty one is freed after the lock.
        let old = core::mem::replace(&mut book.holes, holes);
        book.cursor = cursor;
        drop(book);
        drop(old);
        Ok(Rest::Copied)
    }
}

/// Reserved ranges, as they were at one time if nothing has changed since.
pub(crate) struct Listed {
    holes: Reserved,
    changes: u64,
}

/// Which reserved ranges a copy gets.
pub(crate) enum Ranges<'a> {
    /// Those that were listed, if they are still the same.
    Listed(Listed),
    /// All, if there are at most so many, in memory that was set aside.
    AtMost(usize, &'a mut Spare),
}

/// What [`Pages::share_rest`] did.
#[derive(PartialEq)]
pub(crate) enum Rest {
    /// The copy is complete.
    Copied,
    /// Nothing: a publication is under way.
    HalfDone,
    /// Nothing: it would take long.
    TooMuch,
}

/// Versions on their way from one region to a copy of it.
pub(crate) struct Shared(KVec<(usize, Arc<Version>)>);

impl Shared {
    /// How many groups are copied at once, at most.
    pub(crate) const GROUPS: usize = 4;

    /// With room for the pages of `groups`.
    pub(crate) fn with_room(groups: usize) -> Result<Self> {
        Ok(Shared(KVec::with_capacity(groups * GROUP, ffi::CHARGED)?))
    }

    fn give_to(&mut self, copy: Pin<&mut Pages>) {
        for (page, version) in self.0.drain_all() {
            let old = copy.book.lock().put(page, version);
            // Nobody else knows the copy, so nothing maps it.
            drop(old);
        }
    }
}
