// SPDX-License-Identifier: GPL-2.0

//! One region: its pages, who may publish into it, its counters. What a
//! publication does is in `publish.rs`.
//!
//! Lock order: [`Region::turn`] (one publication at a time; a mutex whose waiters
//! can be killed) → `i_mmap_rwsem` → page table lock; and turn → the lock of the
//! pages, spinlocks of `retire.rs`, `pool.rs` and `user.rs`. Under the turn no memory is
//! allocated and no user memory is touched, and nothing that holds an mmap_lock
//! takes a turn: so only who publishes into the same region waits for it. A clone
//! and statistics take none.
//! Owner: the open file, the append handle and each VMA hold a reference, and the
//! reclaim thread as long as some of its pages wait.

use kernel::{
    current,
    list::{impl_list_arc_safe, impl_list_item, AtomicTracker, ListLinks, TryNewListArc},
    mm::Mm,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        static_lock_class, Arc, UniqueArc,
    },
};

use crate::{
    counters::Counters,
    error::{errno, quota},
    ffi,
    file_mapping::FileMapping,
    holder::Holders,
    kept::Kept,
    pages::{Pages, Ranges, Rest, Shared},
    plan::{
        abi::{self, PAGE_SIZE},
        request,
        span::{self, Span},
    },
    publish_state::{Guard, PublishState},
    reserved::{self, Reserved, Room, Spare},
    staging::Staging,
    supply::Supply,
    user::{Account, Charge, What},
    waiting::{Stale, Waiting},
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

/// What the turn guards.
struct State {
    /// Bytes published or reserved, as the pages know it too.
    cursor: u64,
    /// For the most reserved ranges that there were.
    holes_charge: Charge,
    /// For the pages that a clone shares with its source.
    shared_charge: Charge,
    /// For the largest queue of replaced pages that there was.
    waiting_charge: Charge,
    /// CPUs that may hold entries which were replaced.
    stale: Stale,
}

impl State {
    /// Has the user pay for `ranges` reserved ranges, or fails with `EDQUOT`.
    fn charge_holes(&mut self, ranges: usize) -> Result {
        self.holes_charge.grow_to(Reserved::memory(ranges))
    }
}

/// The turn of a region: only who has it changes what is published.
pub(crate) struct Turn<'a> {
    region: &'a Arc<Region>,
    state: Guard<'a, State>,
}

impl<'a> Turn<'a> {
    /// The region.
    pub(crate) fn region(&self) -> &'a Arc<Region> {
        self.region
    }

    /// Bytes published or reserved.
    pub(crate) fn cursor(&self) -> u64 {
        self.state.cursor
    }

    /// Sets it, as the pages know it.
    pub(crate) fn set_cursor(&mut self, cursor: u64) {
        self.state.cursor = cursor;
    }

    /// Has the user pay for `ranges` reserved ranges, or fails with `EDQUOT`.
    pub(crate) fn charge_holes(&mut self, ranges: usize) -> Result {
        self.state.charge_holes(ranges)
    }

    /// The CPUs that may hold entries which were replaced.
    ///
    /// # Safety
    ///
    /// None is taken out but those that hold nothing stale.
    pub(crate) unsafe fn stale(&mut self) -> &mut Stale {
        &mut self.state.stale
    }
}

/// A region: one range of code that grows.
#[pin_data(PinnedDrop)]
pub(crate) struct Region {
    /// Where its mappings are. None in unit tests, which map nothing.
    pub(crate) space: Option<Arc<FileMapping>>,
    first_pgoff: usize,
    capacity: u64,
    publishers: Publishers,
    /// Set under the turn, for good.
    sealed: Atomic<bool>,
    /// Others may have some of its pages too.
    is_cloned: Atomic<bool>,
    _charge: Charge,
    _pages_charge: Charge,
    pub(crate) counters: Counters,
    #[pin]
    pub(crate) pages: Pages,
    #[pin]
    turn: PublishState<State>,
    #[pin]
    pub(crate) supply: Supply,
    /// In the list of those whose pages wait (`retire.rs`).
    #[pin]
    links: ListLinks,
    #[pin]
    tracker: AtomicTracker,
    stage: Kept<Staging>,
    #[pin]
    pub(crate) holders: Holders,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for Region { tracked_by tracker: AtomicTracker; }
}
impl_list_item! {
    impl ListItem<0> for Region { using ListLinks { self.links }; }
}

#[pinned_drop]
impl PinnedDrop for Region {
    fn drop(self: Pin<&mut Self>) {
        if self.is_cloned.load(Relaxed) {
            self.pages.give_up(&self.supply.account);
        }
    }
}

/// What a region takes beside its table and its code, in pages: itself, its files, and
/// what it keeps of the arrays of a publication.
const OVERHEAD: usize = 2;

impl Region {
    /// An empty region of `capacity` bytes, whole pages, whose first page is
    /// page `first_pgoff` of its file. Nobody else knows it yet.
    pub(crate) fn new(
        space: Option<Arc<FileMapping>>,
        first_pgoff: usize,
        capacity: u64,
        publishers: Publishers,
    ) -> Result<Pin<UniqueArc<Self>>> {
        let account = Account::new()?;
        let charge = Charge::new(&account, What::Region, 1)?;
        let count = usize::try_from(capacity)? / PAGE_SIZE;
        let pages_charge = Charge::new(&account, What::Page, Pages::memory(count) + OVERHEAD)?;
        let nothing = || Charge::new(&account, What::Page, 0);
        let (holes_charge, shared_charge, waiting_charge) = (nothing()?, nothing()?, nothing()?);
        let pages = Pages::new(count)?;
        // Nothing is ever replaced where nobody publishes, or nothing is mapped.
        let replaces = space.is_some() && !matches!(publishers, Publishers::Nobody);
        let supply = Supply::new(account, replaces)?;
        let state = init!(State {
            cursor: 0,
            holes_charge,
            shared_charge,
            waiting_charge,
            stale <- Stale::none(),
        });
        UniqueArc::pin_init(
            pin_init!(Region {
                space,
                first_pgoff,
                capacity,
                publishers,
                sealed: Atomic::new(false),
                is_cloned: Atomic::new(false),
                _charge: charge,
                _pages_charge: pages_charge,
                counters: Counters::default(),
                pages <- pages,
                turn <- PublishState::new(state, c"jit_turn", static_lock_class!()),
                supply <- supply,
                links <- ListLinks::new(),
                tracker <- AtomicTracker::new(),
                stage: Kept::none(),
                holders <- Holders::new(),
            }),
            ffi::CHARGED,
        )
    }

    /// Waits for the turn. Fails with `EINTR` if the caller is killed meanwhile.
    pub(crate) fn take_turn(self: &Arc<Self>) -> Result<Turn<'_>> {
        Ok(Turn {
            state: self.turn.lock()?,
            region: self,
        })
    }

    /// Its first page, as a page of its file.
    pub(crate) fn first_pgoff(&self) -> usize {
        self.first_pgoff
    }

    /// Its last page.
    pub(crate) fn last_pgoff(&self) -> usize {
        self.first_pgoff + self.capacity as usize / PAGE_SIZE - 1
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

    /// Whether it is the result of one `JIT_CREATE_CODE`.
    pub(crate) fn is_one_code(&self) -> bool {
        matches!(self.publishers, Publishers::Nobody)
    }

    /// Whether nothing will ever be published into it again.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load(Relaxed)
    }

    /// `JIT_RESERVE`: sets a range at the cursor aside. Returns its offset.
    pub(crate) fn reserve(&self, arg: &abi::Reserve) -> Result<u64> {
        request::reserve(arg).map_err(errno)?;
        let room = Room::new()?;
        let mut state = self.turn.lock()?;
        self.check_publisher()?;
        let span: Span =
            span::place(state.cursor, self.capacity, arg.len, arg.align_log2).map_err(errno)?;
        let ranges = self.pages.holes() + 1;
        if ranges > reserved::MOST {
            return Err(quota());
        }
        state.charge_holes(ranges)?;
        self.pages.reserve(span, room);
        state.cursor = span.end();
        Ok(span.start)
    }

    /// `JIT_SEAL`. Sealing twice is no error.
    pub(crate) fn seal(&self) -> Result {
        // Whoever has published so far is through when this returns.
        let _state = self.turn.lock()?;
        if !self.publishers.includes_current() {
            return Err(EPERM);
        }
        self.sealed.store(true, Relaxed);
        Ok(())
    }

    /// `len` bytes are there, and no more will be.
    pub(crate) fn finish(self: Pin<&mut Self>, len: u64) {
        self.pages.set_cursor(len);
        self.sealed.store(true, Relaxed);
    }

    /// `JIT_CLONE`: a region that starts as a copy of this one and shares its
    /// pages. What is published meanwhile is in it as a whole or not at all.
    ///
    /// Who publishes never waits for a clone: it takes no turn, copies what does
    /// not change, then what has changed meanwhile, until that is little enough
    /// to be copied at once, between two publications.
    pub(crate) fn try_clone(
        &self,
        space: Arc<FileMapping>,
        publishers: Publishers,
    ) -> Result<Arc<Region>> {
        self.is_cloned.store(true, Relaxed);
        let mut copy = Region::new(Some(space), self.first_pgoff, self.capacity, publishers)?;
        let is_own = copy.supply.account.user().id() == self.supply.account.user().id();
        let mut shared = Shared::with_room(Shared::GROUPS)?;
        let mut rooms = Spare::new();
        // A clone pays for every page that it shares, as long as it lives: so it can keep
        // nothing on the account of its source.
        let mut paid = Charge::new(&copy.supply.account, What::Page, 0)?;
        let mut since = 0;
        loop {
            let to = copy.as_mut().project().pages;
            since = self.pages.share(since, to, &mut paid)?;
            let ranges = self.pages.holes();
            copy.turn.lock()?.charge_holes(ranges)?;
            // A few more than there are: others may come.
            rooms.reserve(ranges + 8)?;
            // Who publishes must not wait for another user's copy of many.
            let reserved = match is_own {
                true => Ranges::AtMost(reserved::MOST, &mut rooms),
                false if ranges <= reserved::A_FEW => Ranges::AtMost(reserved::A_FEW, &mut rooms),
                false => Ranges::Listed(self.pages.list_reserved(&mut rooms)?),
            };
            let is_list = matches!(reserved, Ranges::Listed(_));
            let to = copy.as_mut().project().pages;
            match self
                .pages
                .share_rest(since, to, &mut shared, reserved, &mut paid)?
            {
                Rest::Copied => break,
                // Making a list takes the lock that publications take.
                Rest::TooMuch if is_list => ffi::pause()?,
                Rest::TooMuch => (),
                Rest::HalfDone => ffi::pause()?,
            }
        }
        let waiting = copy.as_mut().project().supply.project().waiting;
        waiting.start_after(&self.supply.waiting);
        let mut state = copy.turn.lock()?;
        state.cursor = copy.pages.cursor();
        state.shared_charge = paid;
        drop(state);
        Ok(copy.into())
    }

    /// Makes room for `count` replaced pages more to wait. Fails with `ENOMEM`,
    /// `EDQUOT` or `EINTR`; then what was charged stays so for the next try.
    pub(crate) fn make_room(&self, count: usize) -> Result {
        let wanted = self.supply.waiting.wanted(count);
        let memory = Waiting::memory(wanted);
        self.turn.lock()?.waiting_charge.grow_to(memory)?;
        self.supply.waiting.make_room(wanted)
    }

    /// The memory of a publication. Fails with `ENOMEM`.
    pub(crate) fn take_stage(&self) -> Result<KBox<Staging>> {
        match self.stage.take() {
            Some(stage) => Ok(stage),
            None => Ok(KBox::new(Staging::new(), ffi::CHARGED)?),
        }
    }

    /// Keeps it for the next publication.
    pub(crate) fn put_stage(&self, mut stage: KBox<Staging>) {
        stage.clear(&self.supply);
        // One that was put back meanwhile is dropped.
        drop(self.stage.put(stage));
    }

    /// `JIT_STATS`. Waits for nobody.
    pub(crate) fn stats(&self) -> abi::Stats {
        let cursor = self.pages.cursor();
        let sealed = self.is_sealed();
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
            freed: self.supply.freed.get(),
            retired: counters.retired.get(),
            flushes: counters.flushes.get(),
            ipis: counters.ipis.get(),
            straddles: counters.straddles.get(),
            sealed: u64::from(sealed),
            pooled: self.supply.pool.len() as u64,
            ticks: counters.ticks.get(),
            spared: counters.spared.get(),
            reserved: [0; 7],
        }
    }

    /// The counters, a line each.
    pub(crate) fn show(&self, m: &SeqFile) {
        let stats = self.stats();
        seq_print!(m, "jit-capacity:\t{}\n", stats.capacity);
        seq_print!(m, "jit-cursor:\t{}\n", stats.cursor);
        seq_print!(m, "jit-sealed:\t{}\n", stats.sealed);
        seq_print!(m, "jit-pooled:\t{}\n", stats.pooled);
        seq_print!(m, "jit-publications:\t{}\n", stats.publications);
        seq_print!(m, "jit-segments:\t{}\n", stats.segments);
        seq_print!(m, "jit-bytes:\t{}\n", stats.bytes);
        seq_print!(m, "jit-swaps:\t{}\n", stats.swaps);
        seq_print!(m, "jit-in-place:\t{}\n", stats.in_place);
        seq_print!(m, "jit-fixups:\t{}\n", stats.fixups);
        seq_print!(m, "jit-retired:\t{}\n", stats.retired);
        seq_print!(m, "jit-freed:\t{}\n", stats.freed);
        seq_print!(m, "jit-flushes:\t{}\n", stats.flushes);
        seq_print!(m, "jit-ipis:\t{}\n", stats.ipis);
        seq_print!(m, "jit-straddles:\t{}\n", stats.straddles);
        seq_print!(m, "jit-ticks:\t{}\n", stats.ticks);
        seq_print!(m, "jit-spared:\t{}\n", stats.spared);
    }
}
