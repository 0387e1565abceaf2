// SPDX-License-Identifier: GPL-2.0

//! One code space: its pages, who may publish into it, its counters. What a
//! publication does is in `publish.rs`.
//!
//! Lock order: [`Region::turn`] (one publication at a time; sleeps) →
//! `i_mmap_rwsem` → page table lock; and turn → slot lock, retire locks, locks
//! of `pool.rs`. Nothing that holds an mmap_lock takes a turn, and user memory is
//! never touched under it, so no process can hold up another's publication.
//! Owner: the open file, the append handle, each VMA and each retired page
//! hold a reference.

use kernel::{
    alloc::KVec,
    current,
    mm::Mm,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        new_mutex, new_spinlock, Arc, Mutex, SpinLock,
    },
};

use crate::{
    error::errno,
    ffi,
    holes::{Holes, Room},
    page::{Blank, Effort, Version},
    pages::Pages,
    plan::{
        abi::{self, PAGE_SIZE},
        request,
        span::{self, Span},
    },
    pool::{self, Pool},
    space::Space,
    stage::Stage,
    tlb::Cpus,
    user::{Charge, User, What},
};

/// Who may publish into a region.
pub(crate) enum Publishers {
    /// Whoever holds the append handle.
    Any,
    /// The append handle, used from one address space.
    Only(ARef<Mm>),
    /// Nobody: the result of `JIT_CREATE_CODE`.
    Nobody,
}

impl Publishers {
    /// What the flags of a creation ask for.
    pub(crate) fn from_flags(flags: u32) -> Result<Self> {
        if flags & abi::CREATE_ANY_MM != 0 {
            return Ok(Publishers::Any);
        }
        let current = current!();
        let mm = current.mm().ok_or(EINVAL)?;
        Ok(Publishers::Only((&**mm).into()))
    }

    fn includes_current(&self) -> bool {
        let current = current!();
        match self {
            Publishers::Any => true,
            Publishers::Nobody => false,
            Publishers::Only(mm) => current
                .mm()
                .is_some_and(|ours| core::ptr::eq(ours.as_raw(), mm.as_raw())),
        }
    }
}

/// What a publication changes, beside pages.
pub(crate) struct Turn {
    /// Bytes published or reserved.
    pub(crate) cursor: u64,
    pub(crate) holes: Holes,
    /// For the most of them that there were.
    holes_charge: Charge,
    /// CPUs that may hold entries which this publication replaced.
    pub(crate) cpus: Cpus,
}

/// Where a new region's first publication goes.
struct Start {
    cursor: u64,
    holes: Holes,
}

/// The counters of [`abi::Stats`].
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) publications: Counter,
    pub(crate) segments: Counter,
    pub(crate) bytes: Counter,
    pub(crate) swaps: Counter,
    pub(crate) in_place: Counter,
    pub(crate) fixups: Counter,
    pub(crate) retired: Counter,
    pub(crate) freed: Counter,
    pub(crate) flushes: Counter,
    pub(crate) ipis: Counter,
    pub(crate) straddles: Counter,
}

/// An event count.
pub(crate) struct Counter(Atomic<i64>);

impl Default for Counter {
    fn default() -> Self {
        Counter(Atomic::new(0))
    }
}

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n as i64, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed) as u64
    }
}

/// A code space.
#[pin_data]
pub(crate) struct Region {
    /// Where its mappings are. None for the result of `JIT_CREATE_CODE`, of
    /// which nothing is ever replaced.
    pub(crate) space: Option<Arc<Space>>,
    first_pgoff: usize,
    capacity: u64,
    publishers: Publishers,
    /// Set under the turn, for good.
    sealed: Atomic<bool>,
    pub(crate) user: Arc<User>,
    _charge: Charge,
    _pages_charge: Charge,
    pub(crate) counters: Counters,
    #[pin]
    pub(crate) pages: Pages,
    #[pin]
    pub(crate) turn: Mutex<Turn>,
    pub(crate) pool: Pool,
    #[pin]
    stage: SpinLock<Option<KBox<Stage>>>,
}

impl Region {
    /// An empty region of `capacity` bytes, whole pages, whose first page is
    /// page `first_pgoff` of its file.
    pub(crate) fn new(
        space: Option<Arc<Space>>,
        first_pgoff: usize,
        capacity: u64,
        publishers: Publishers,
    ) -> Result<Arc<Self>> {
        let start = Start {
            cursor: 0,
            holes: Holes::new(),
        };
        Region::starting_at(start, space, first_pgoff, capacity, publishers)
    }

    fn starting_at(
        start: Start,
        space: Option<Arc<Space>>,
        first_pgoff: usize,
        capacity: u64,
        publishers: Publishers,
    ) -> Result<Arc<Self>> {
        let (user, charge) = User::charged(What::Region)?;
        let count = usize::try_from(capacity)? / PAGE_SIZE;
        let pages_charge = Charge::new(&user, What::Page, Pages::memory(count))?;
        let holes_charge = Charge::new(&user, What::Page, start.holes.pages_with(0))?;
        let pages = Pages::new(count)?;
        // Nothing is ever replaced without a space.
        let pool = match space {
            Some(_) => Pool::new(&user)?,
            None => Pool::none(),
        };
        Arc::pin_init(
            pin_init!(Region {
                space,
                first_pgoff,
                capacity,
                publishers,
                sealed: Atomic::new(false),
                user,
                _charge: charge,
                _pages_charge: pages_charge,
                counters: Counters::default(),
                pages <- pages,
                turn <- new_mutex!(Turn {
                    cursor: start.cursor,
                    holes: start.holes,
                    holes_charge,
                    cpus: Cpus::none(),
                }, "jit_turn"),
                pool,
                stage <- new_spinlock!(None, "jit_stage"),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Its first page, as a page of its file.
    pub(crate) fn first_pgoff(&self) -> usize {
        self.first_pgoff
    }

    /// Its capacity in bytes.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Whether pages `first..first + count` of the file are all in it.
    pub(crate) fn covers(&self, first: usize, count: usize) -> bool {
        first >= self.first_pgoff
            && (first - self.first_pgoff)
                .checked_add(count)
                .is_some_and(|end| end as u64 * PAGE_SIZE as u64 <= self.capacity)
    }

    /// Whether the caller may publish. Fails with `EPERM` or `EROFS`. Final only under
    /// the turn.
    pub(crate) fn check_publisher(&self) -> Result {
        let any = matches!(self.publishers, Publishers::Any);
        let sealed = self.sealed.load(Relaxed);
        request::may_publish(sealed, any, self.publishers.includes_current()).map_err(errno)
    }

    /// Has the user pay for `more` reserved ranges, or fails with `EDQUOT`.
    pub(crate) fn charge_holes(turn: &mut Turn, more: usize) -> Result {
        turn.holes_charge.grow_to(turn.holes.pages_with(more))
    }

    /// `JIT_RESERVE`: sets a range at the cursor aside. Returns its offset.
    pub(crate) fn reserve(&self, arg: &abi::Reserve) -> Result<u64> {
        request::reserve(arg).map_err(errno)?;
        let room = Room::new()?;
        let mut turn = self.turn.lock();
        self.check_publisher()?;
        let span: Span =
            span::place(turn.cursor, self.capacity, arg.len, arg.align_log2).map_err(errno)?;
        Region::charge_holes(&mut turn, 1)?;
        turn.holes.add(span, room);
        turn.cursor = span.end();
        Ok(span.start)
    }

    /// `JIT_SEAL`. Sealing twice is no error.
    pub(crate) fn seal(&self) -> Result {
        // Whoever has published so far is through when this returns.
        let _turn = self.turn.lock();
        if !self.publishers.includes_current() {
            return Err(EPERM);
        }
        self.sealed.store(true, Relaxed);
        Ok(())
    }

    /// `len` bytes are there, and no more will be.
    pub(crate) fn finish(&self, len: u64) {
        self.turn.lock().cursor = len;
        self.sealed.store(true, Relaxed);
    }

    /// `JIT_CLONE`: a region that starts as a copy of this one and shares its
    /// pages. Nobody publishes into this one meanwhile.
    pub(crate) fn try_clone(
        &self,
        space: Arc<Space>,
        publishers: Publishers,
    ) -> Result<Arc<Region>> {
        const STEP: usize = 512;
        let mut versions = KVec::with_capacity(STEP, GFP_KERNEL)?;
        let turn = self.turn.lock();
        let start = Start {
            cursor: turn.cursor,
            holes: turn.holes.try_clone()?,
        };
        let first_pgoff = self.first_pgoff;
        let copy = Region::starting_at(start, Some(space), first_pgoff, self.capacity, publishers)?;
        let count = usize::try_from(self.capacity)? / PAGE_SIZE;
        for first in (0..count).step_by(STEP) {
            ffi::check_alive()?;
            let pages = first..count.min(first + STEP);
            self.pages.share(pages, &mut versions);
            for (page, version) in versions.drain_all() {
                copy.pages.put(page, version);
            }
        }
        Ok(copy)
    }

    /// A blank page, from the pool or new. Fails with `ENOMEM` or `EDQUOT`, but
    /// not for the sake of pages that the user's regions keep.
    pub(crate) fn blank(&self) -> Result<Blank> {
        if let Some(blank) = self.pool.take() {
            return Ok(blank);
        }
        Blank::new(&self.user, Effort::Little).or_else(|_| {
            pool::trim(&self.user);
            Blank::new(&self.user, Effort::Full)
        })
    }

    /// Keeps the page of `version` for later, as `prepare` leaves it, or frees
    /// it. Another's page, that a clone shared, goes back to its own account.
    ///
    /// The caller knows that no page-table entry points to it and no TLB holds
    /// one that did.
    pub(crate) fn take_back(&self, version: Arc<Version>, prepare: impl FnOnce(&mut Blank)) {
        if !self.pool.has_room() || !version.is_charged_to(&self.user) {
            return;
        }
        if let Some(mut blank) = Blank::recycle(version) {
            prepare(&mut blank);
            self.pool.keep(blank);
        }
    }

    /// The memory of a publication. Fails with `ENOMEM`.
    pub(crate) fn take_stage(&self) -> Result<KBox<Stage>> {
        let kept = self.stage.lock().take();
        match kept {
            Some(stage) => Ok(stage),
            None => Ok(KBox::new(Stage::new(), GFP_KERNEL_ACCOUNT)?),
        }
    }

    /// Keeps it for the next publication.
    pub(crate) fn put_stage(&self, mut stage: KBox<Stage>) {
        stage.clear(self);
        // One that was put back meanwhile is dropped after the lock.
        let other = self.stage.lock().replace(stage);
        drop(other);
    }

    /// Replaced pages that wait to be freed.
    pub(crate) fn pending(&self) -> usize {
        let counters = &self.counters;
        counters.retired.get().saturating_sub(counters.freed.get()) as usize
    }

    /// `JIT_STATS`.
    pub(crate) fn stats(&self) -> abi::Stats {
        let (cursor, sealed) = {
            let turn = self.turn.lock();
            (turn.cursor, self.sealed.load(Relaxed))
        };
        let counters = &self.counters;
        abi::Stats {
            capacity: self.capacity,
            cursor,
            publications: counters.publications.get(),
            segments: counters.segments.get(),
            bytes: counters.bytes.get(),
            swaps: counters.swaps.get(),
            in_place: counters.in_place.get(),
            fixups: counters.fixups.get(),
            // Freed first: a page is retired before it is freed, so what is
            // read here never shows more freed than retired.
            freed: counters.freed.get(),
            retired: counters.retired.get(),
            flushes: counters.flushes.get(),
            ipis: counters.ipis.get(),
            straddles: counters.straddles.get(),
            sealed: u64::from(sealed),
            pooled: self.pool.len() as u64,
            reserved: [0; 9],
        }
    }
}
