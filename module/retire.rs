// SPDX-License-Identifier: GPL-2.0

//! Replaced pages until no TLB can hold a translation to them (rule R6).
//!
//! ```text
//!  publish ─▶ the region's queue ─────▶ epoch is over ─▶ pool or free
//!       └───▶ OPEN: CPUs to flush ─▶ epoch: CPUs flush at their next
//!                                    tick, or are lazy, or offline
//! ```
//!
//! Each region has its own queue, and pays for what is in it; all share the
//! epochs, one of which is in flight at a time. No interrupt is sent, except
//! where CPUs do not tick, and where a region's queue is full: then that region
//! flushes for itself. Nobody waits for another region's pages.
//!
//! A page in the queue is over ([`Wait::is_over`]) when its epoch is, or after a
//! flush of the region's own. Whoever finds it first gives it back: the kthread,
//! or the next publication of the region.
//!
//! Lock order: a region's turn → its queue's lock, `OPEN`; `BUSY` → a queue's
//! lock (all spinlocks). Nothing is allocated, freed or waited for under them.
//! Context: process. The kthread sleeps while nothing waits.

use core::ptr::{addr_of, NonNull};

use kernel::{
    alloc::KVVec,
    bindings,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed, Release},
        global_lock, new_spinlock, Arc, SpinLock,
    },
    time::msecs_to_jiffies,
};

use crate::{
    ffi,
    page::{Blank, Replaced, Version},
    parameters,
    percpu::Tickers,
    plan::{
        abi::{MAX_SEGMENTS, PAGE_SIZE},
        ledger::{is_outdated, patience, Flushed, Patience, Ticket, Wait},
    },
    pool,
    region::{Region, Turn},
    tlb::Cpus,
};

/// How long a CPU may take to tick before it is interrupted.
const PATIENCE_MS: u32 = 40;

/// How often idle pools are looked for.
const IDLE_MS: u32 = 1000;

/// The smallest bound: one publication replaces at most two pages a segment.
const MIN_BOUND: usize = 2 * MAX_SEGMENTS as usize;

/// Pages that are given back at once, before others have their turn.
const AT_ONCE: usize = 32;

/// CPUs that the next epoch has to wait for.
struct Open {
    cpus: Cpus,
    is_wanted: bool,
}

global_lock! {
    // SAFETY: Initialised by `Reclaim::start`, before any region exists.
    unsafe(uninit) static OPEN: SpinLock<Open> = Open {
        cpus: Cpus::new(0),
        is_wanted: false,
    };
}
global_lock! {
    // SAFETY: Initialised by `Reclaim::start`, before any region exists.
    unsafe(uninit) static BUSY: SpinLock<Busy> = Busy {
        regions: KVVec::new(),
        members: 0,
    };
}

/// Regions whose queue is not empty.
///
/// # Invariants
///
/// There is room for `members`, and a region is in here once at most.
struct Busy {
    regions: KVVec<Arc<Region>>,
    members: usize,
}

/// The last epoch that was started. Changed under `OPEN`.
static STARTED: Atomic<i64> = Atomic::new(0);
/// The last epoch that is over.
static COMPLETED: Atomic<i64> = Atomic::new(0);
/// Not zero while the kthread has work.
static WORK: Atomic<i32> = Atomic::new(0);
/// Not zero while the kthread sleeps until somebody wakes it.
static SLEEPS: Atomic<i32> = Atomic::new(0);
static THREAD: Atomic<*mut bindings::task_struct> = Atomic::new(core::ptr::null_mut());

/// Replaced pages that may wait in one region.
pub(crate) fn bound() -> usize {
    usize::try_from(parameters::retired_region())
        .unwrap_or(0)
        .max(MIN_BOUND)
}

/// Room for one region in `BUSY`.
///
/// # Invariants
///
/// Counted in [`Busy::members`].
pub(crate) struct Member(());

impl Member {
    /// Makes it. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let mut more = KVVec::new();
        loop {
            let mut busy = BUSY.lock();
            if more.capacity() > busy.regions.capacity() {
                for region in busy.regions.drain_all() {
                    // There is room for more than were there.
                    let _ = more.push_within_capacity(region);
                }
                core::mem::swap(&mut busy.regions, &mut more);
            }
            if busy.members < busy.regions.capacity() {
                busy.members += 1;
                return Ok(Member(()));
            }
            let wanted = (busy.members + 1) * 2;
            drop(busy);
            more = KVVec::with_capacity(wanted, ffi::CHARGED)?;
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        BUSY.lock().members -= 1;
    }
}

/// One replaced page.
struct Item {
    version: Replaced,
    wait: Wait,
}

/// The replaced pages of one region, in the order of their tickets.
struct Queue {
    items: KVVec<Option<Item>>,
    /// The first that is still there.
    head: usize,
    /// The last ticket before the region's own last flush.
    flushed: Ticket,
    /// The region is in `BUSY`, or about to be.
    is_busy: bool,
}

impl Queue {
    fn len(&self) -> usize {
        self.items.len() - self.head
    }

    fn waiting(&self) -> &[Option<Item>] {
        self.items.get(self.head..).unwrap_or(&[])
    }

    fn flushed(&self) -> Flushed {
        Flushed {
            epoch: COMPLETED.load(Acquire),
            ticket: self.flushed,
        }
    }

    /// The first whose wait is not over.
    fn oldest(&self) -> Option<Ticket> {
        let flushed = self.flushed();
        let is_over =
            |item: &Option<Item>| item.as_ref().is_none_or(|item| item.wait.is_over(flushed));
        let over = self.waiting().partition_point(is_over);
        self.waiting()
            .get(over)?
            .as_ref()
            .map(|item| item.wait.ticket)
    }

    fn pop_if_over(&mut self) -> Option<Arc<Version>> {
        let flushed = self.flushed();
        let item = self.items.get_mut(self.head)?;
        if !item.as_ref()?.wait.is_over(flushed) {
            return None;
        }
        // SAFETY: No entry has pointed to it since it was retired, and all CPUs that
        // might have held one that did have flushed.
        let version = item.take().map(|item| unsafe { item.version.release() });
        self.head += 1;
        if self.head == self.items.len() {
            self.items.clear();
            self.head = 0;
        }
        version
    }

    fn push(&mut self, item: Item) {
        if self.items.len() == self.items.capacity() {
            self.items.as_mut_slice().rotate_left(self.head);
            self.items.truncate(self.len());
            self.head = 0;
        }
        keep(&mut self.items, Some(item));
    }

    /// Moves what waits to `larger`, if that has more room.
    fn enlarge(&mut self, larger: &mut KVVec<Option<Item>>) {
        if larger.capacity() <= self.items.capacity() {
            return;
        }
        for item in self.items.drain_all().filter(Option::is_some) {
            keep(larger, item);
        }
        self.head = 0;
        core::mem::swap(&mut self.items, larger);
    }
}

/// Adds an item where there is room for it.
fn keep(items: &mut KVVec<Option<Item>>, item: Option<Item>) {
    // Can't fail: room was made.
    let _ = items.push_within_capacity(item);
}

/// What a region has to wait with.
#[pin_data]
pub(crate) struct Waiting {
    #[pin]
    queue: SpinLock<Queue>,
    /// Its length and its capacity, for a look without the lock. Only who has the
    /// turn makes the one grow; the other never shrinks.
    len: Atomic<usize>,
    capacity: Atomic<usize>,
    /// The last ticket that was drawn. Changed under the turn.
    last: Atomic<Ticket>,
    _member: Option<Member>,
}

impl Waiting {
    /// Nothing waits, and nothing ever will unless `can_wait`.
    pub(crate) fn new(can_wait: bool) -> Result<impl PinInit<Self>> {
        let member = if can_wait { Some(Member::new()?) } else { None };
        Ok(pin_init!(Waiting {
            queue <- new_spinlock!(Queue {
                items: KVVec::new(),
                head: 0,
                flushed: 0,
                is_busy: false,
            }, "jit_waiting"),
            len: Atomic::new(0),
            capacity: Atomic::new(0),
            last: Atomic::new(0),
            _member: member,
        }))
    }

    /// How many pages wait.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Whether `count` more can wait. The turn is held.
    pub(crate) fn has_room(&self, count: usize) -> bool {
        self.capacity.load(Relaxed) >= self.len() + count
    }

    /// The room to make where `count` more are to wait: some in advance.
    pub(crate) fn wanted(&self, count: usize) -> usize {
        (self.len() + count).next_power_of_two().max(AT_ONCE)
    }

    /// The memory that room for `count` takes, in pages.
    pub(crate) const fn memory(count: usize) -> usize {
        count * size_of::<Option<Item>>() / PAGE_SIZE
    }

    /// Makes room for `wanted` in all. Fails with `ENOMEM`.
    pub(crate) fn make_room(&self, wanted: usize) -> Result {
        let mut larger = KVVec::with_capacity(wanted, ffi::CHARGED)?;
        let mut queue = self.queue.lock();
        queue.enlarge(&mut larger);
        self.capacity.store(queue.items.capacity(), Relaxed);
        drop(queue);
        // The old array is freed after the lock.
        Ok(())
    }

    /// Whether a TLB may hold an older version of a page that was last replaced
    /// under `ticket`.
    pub(crate) fn is_outdated(&self, ticket: Ticket) -> bool {
        ticket != 0 && is_outdated(ticket, self.queue.lock().oldest())
    }

    /// The wait of all pages up to the last ticket is over: the region has
    /// flushed.
    ///
    /// # Safety
    ///
    /// It has, or nothing has ever waited.
    unsafe fn end_all(&self) {
        self.queue.lock().flushed = self.last.load(Relaxed);
    }

    /// The ticket that the publication under way will draw. The turn is held.
    pub(crate) fn next(&self) -> Ticket {
        self.last.load(Relaxed) + 1
    }

    /// The pages of this region are those of another, under whose mappings they
    /// may be outdated, not under ours: none is by the other's tickets.
    pub(crate) fn start_after(self: Pin<&mut Self>, other: &Waiting) {
        self.last.store(other.last.load(Relaxed), Relaxed);
        // SAFETY: Nobody else knows the region, so nothing was ever retired.
        unsafe { self.end_all() };
    }

    /// One page whose wait is over.
    pub(crate) fn take(&self) -> Option<Arc<Version>> {
        if self.len() == 0 {
            return None;
        }
        let mut queue = self.queue.lock();
        let version = queue.pop_if_over();
        self.len.store(queue.len(), Relaxed);
        version
    }
}

/// The CPUs that may hold something stale of a region. Guarded by its turn.
pub(crate) struct Stale {
    /// Entries that the publication under way has replaced.
    pub(crate) now: Cpus,
    /// Entries that earlier ones have replaced.
    before: Cpus,
}

impl Stale {
    /// None.
    pub(crate) fn none() -> impl Init<Self> {
        init!(Stale {
            now <- Cpus::none_in_place(),
            before <- Cpus::none_in_place(),
        })
    }
}

/// Rids all CPUs of everything stale of the region: what the publication under way
/// has replaced, and everything earlier. Interrupts those that may have any.
pub(crate) fn flush(turn: &mut Turn<'_>) {
    let region = turn.region();
    // SAFETY: Who is taken out is interrupted.
    let Stale { now, before } = unsafe { turn.stale() };
    before.absorb(now);
    let ipis = before.interrupt();
    // SAFETY: All have flushed that were noted with a page which waits.
    unsafe { region.waiting.end_all() };
    region.counters.flushes.add(1);
    region.counters.ipis.add(ipis);
}

/// Has `versions` wait for the CPUs that the publication under way has noted. Room
/// was made.
///
/// # Safety
///
/// They were replaced in this turn, and no page-table entry points to them any more.
pub(crate) unsafe fn retire(turn: &mut Turn<'_>, versions: &mut KVVec<Replaced>) {
    if versions.is_empty() {
        return;
    }
    let region = turn.region();
    // SAFETY: Who is taken out was noted elsewhere.
    let stale = unsafe { turn.stale() };
    region.counters.retired.add(versions.len() as u64);
    let ticket = region.waiting.next();
    region.waiting.last.store(ticket, Relaxed);
    // A flush came after the swap.
    if stale.now.is_empty() {
        for version in versions.drain_all() {
            // SAFETY: No entry points to it any more, and all CPUs that could
            // have held one that did have flushed.
            unsafe { give_back(region, version.release(), |_| ()) };
        }
        return;
    }
    // Drawn when all entries are swapped, while the CPUs are noted (rule R12).
    let epoch = {
        let mut open = OPEN.lock();
        open.cpus.union(&stale.now);
        open.is_wanted = true;
        STARTED.load(Relaxed) + 1
    };
    if region.waiting.len() == 0 {
        // SAFETY: Each has flushed, or what waited for it would wait still.
        unsafe { stale.before.forget() };
    }
    stale.before.absorb(&mut stale.now);
    let wait = Wait { ticket, epoch };
    let mut queue = region.waiting.queue.lock();
    for version in versions.drain_all() {
        queue.push(Item { version, wait });
    }
    region.waiting.len.store(queue.len(), Relaxed);
    let is_new = !core::mem::replace(&mut queue.is_busy, true);
    drop(queue);
    if is_new {
        // Can't fail, by the invariants of `Busy`.
        let _ = BUSY.lock().regions.push_within_capacity(region.clone());
    }
    if WORK.xchg(1, Full) == 0 {
        wake();
    }
}

/// Gives a page back. `prepare` is called with what its region keeps.
///
/// # Safety
///
/// As for [`Blank::recycle`].
unsafe fn give_back(region: &Region, version: Arc<Version>, prepare: impl FnOnce(&mut Blank)) {
    // SAFETY: By this function's contract.
    unsafe { region.take_back(version, prepare) };
    region.counters.freed.add(1);
}

/// Gives back what waits and is over, `most` at most. Says whether there may be
/// more.
pub(crate) fn harvest(region: &Region, most: usize, prepare: impl Fn(&mut Blank)) -> bool {
    for _ in 0..most {
        let Some(version) = region.waiting.take() else {
            return false;
        };
        // SAFETY: Its wait is over.
        unsafe { give_back(region, version, &prepare) };
    }
    true
}

/// A blank page of one whose wait is over.
pub(crate) fn ripe_blank(region: &Region) -> Option<Blank> {
    loop {
        let version = region.waiting.take()?;
        region.counters.freed.add(1);
        if !version.is_on(&region.account) {
            continue;
        }
        // SAFETY: Its wait is over.
        if let Some(blank) = unsafe { Blank::recycle(version) } {
            return Some(blank);
        }
    }
}

/// The running reclaim thread.
pub(crate) struct Reclaim {
    task: NonNull<bindings::task_struct>,
    /// What it owns, if it ever runs.
    thread: *mut Thread,
}

// SAFETY: The task is only stopped, which any thread may do; what it owns is used
// when it has ended.
unsafe impl Send for Reclaim {}
// SAFETY: As above.
unsafe impl Sync for Reclaim {}

impl Reclaim {
    /// Starts it. Called once, before any region exists.
    pub(crate) fn start() -> Result<Self> {
        // SAFETY: Called once, by the module's init.
        unsafe { OPEN.init() };
        // SAFETY: As above.
        unsafe { BUSY.init() };
        OPEN.lock().cpus = Cpus::none();
        let thread = KBox::new(Thread::new()?, GFP_KERNEL)?;
        let data = KBox::into_raw(thread);
        // SAFETY: `main` takes the box.
        let task = unsafe { ffi::jit_kthread_run(main, data.cast()) };
        let task = kernel::error::from_err_ptr(task).inspect_err(|_| {
            // SAFETY: No thread was made that could have taken it.
            drop(unsafe { KBox::from_raw(data) });
        })?;
        THREAD.store(task, Release);
        let task = NonNull::new(task).ok_or(ENOMEM)?;
        Ok(Reclaim { task, thread: data })
    }
}

impl Drop for Reclaim {
    /// Called when no region can be used any more. The thread gives everything
    /// back before it ends.
    fn drop(&mut self) {
        // SAFETY: The thread runs until it is told to stop.
        let status = unsafe { ffi::kthread_stop(self.task.as_ptr()) };
        THREAD.store(core::ptr::null_mut(), Release);
        if status == EINTR.to_errno() {
            // SAFETY: It was stopped before it ran: `main`, which returns 0, was
            // not called and has not taken the box.
            drop(unsafe { KBox::from_raw(self.thread) });
        }
        // The array is freed after the lock.
        let regions = core::mem::replace(&mut BUSY.lock().regions, KVVec::new());
        drop(regions);
    }
}

/// There are pages in pools: has the kthread look whether they are used, once a
/// second, if it doesn't.
pub(crate) fn look_after_pools() {
    if SLEEPS.load(Relaxed) != 0 {
        wake();
    }
}

/// Has the kthread look for work.
fn wake() {
    let thread = THREAD.load(Relaxed);
    if !thread.is_null() {
        // SAFETY: The thread lives until no region exists any more, and is
        // forgotten when it has ended.
        unsafe { bindings::wake_up_process(thread) };
    }
}

fn jiffies() -> c_ulong {
    // SAFETY: A plain counter, which the timer interrupt changes.
    unsafe { addr_of!(bindings::jiffies).read_volatile() }
}

fn pause(ticks: c_long) {
    // SAFETY: In the kthread, holding no lock.
    unsafe { bindings::schedule_timeout_interruptible(ticks) };
}

/// What the kthread has.
struct Thread {
    tickers: Tickers,
    /// The epoch in flight.
    epoch: Option<Epoch>,
}

/// An epoch in flight.
struct Epoch {
    number: i64,
    cpus: Cpus,
    started: c_ulong,
    /// Flushes and interrupts that took the place of ticks.
    ipis: u64,
}

/// What the kthread does next.
enum Step {
    /// The same after a tick.
    Wait,
    /// Nothing.
    Idle,
}

/// Whether anything was added. If not, who adds something from here on wakes the
/// thread.
fn has_work() -> bool {
    WORK.xchg(0, Full);
    let has_work = OPEN.lock().is_wanted || !BUSY.lock().regions.is_empty();
    if has_work {
        WORK.xchg(1, Full);
    }
    has_work
}

/// # Safety
///
/// The body of the kthread; `data` is a box of [`Thread`].
unsafe extern "C" fn main(data: *mut c_void) -> c_int {
    // SAFETY: By this function's contract.
    let mut thread = unsafe { KBox::<Thread>::from_raw(data.cast()) };
    let mut last_trim = jiffies();
    while !ffi::must_stop() {
        match thread.step() {
            Step::Wait => pause(1),
            Step::Idle => sleep(),
        }
        if jiffies().wrapping_sub(last_trim) >= msecs_to_jiffies(IDLE_MS) as c_ulong {
            pool::trim_idle();
            last_trim = jiffies();
        }
    }
    thread.finish();
    0
}

/// Sleeps until there is work, or idle pools may have to be emptied.
fn sleep() {
    let pause = msecs_to_jiffies(IDLE_MS) as c_long;
    // SAFETY: `WORK` and `SLEEPS` are static and have the layout of an `int`, what
    // `kept` returns that of a `long`.
    unsafe { ffi::jit_kthread_sleep(WORK.as_ptr(), pool::kept(), SLEEPS.as_ptr(), pause) };
}

impl Thread {
    fn new() -> Result<Self> {
        Ok(Thread {
            tickers: Tickers::new()?,
            epoch: None,
        })
    }

    /// One look at the epoch in flight.
    fn step(&mut self) -> Step {
        if self.epoch.is_none() {
            self.begin();
        }
        let Some(epoch) = &mut self.epoch else {
            let is_busy = harvest_all(Counts::default());
            return if is_busy || has_work() {
                Step::Wait
            } else {
                Step::Idle
            };
        };
        if !epoch.poll(&self.tickers) {
            return Step::Wait;
        }
        let (ticks, spared) = self.tickers.counts();
        let counts = Counts {
            ticks,
            spared,
            ipis: epoch.ipis,
        };
        COMPLETED.store(epoch.number, Release);
        self.epoch = None;
        self.begin();
        harvest_all(counts);
        Step::Wait
    }

    /// Starts an epoch with all that was retired meanwhile, if anything was.
    fn begin(&mut self) {
        let mut cpus = Cpus::none();
        let number = {
            let mut open = OPEN.lock();
            if !core::mem::replace(&mut open.is_wanted, false) {
                return;
            }
            core::mem::swap(&mut open.cpus, &mut cpus);
            STARTED.fetch_add(1, Relaxed) + 1
        };
        // SAFETY: None is in flight, and numbers ascend.
        unsafe { self.tickers.start_epoch(number, cpus.mms()) };
        cpus.drop_idle();
        for cpu in cpus.iter().filter(|&cpu| ffi::cpu_ticks(cpu)) {
            self.tickers.arm(cpu);
        }
        self.epoch = Some(Epoch {
            number,
            cpus,
            started: jiffies(),
            ipis: 0,
        });
    }

    /// Nobody adds anything any more: flushes and gives back the rest.
    fn finish(&mut self) {
        loop {
            if let Some(mut epoch) = self.epoch.take() {
                epoch.cpus.interrupt();
                COMPLETED.store(epoch.number, Release);
            }
            self.begin();
            if self.epoch.is_none() {
                break;
            }
        }
        while harvest_all(Counts::default()) {}
    }
}

impl Epoch {
    /// Whether all CPUs are clean. Those that have been waited for too long are
    /// interrupted.
    fn poll(&mut self, tickers: &Tickers) -> bool {
        let number = self.number;
        // SAFETY: Flushed in this epoch is flushed after they were added.
        unsafe {
            self.cpus.drop_clean(|cpu| tickers.has_flushed(cpu, number));
        }
        if self.cpus.is_empty() {
            return true;
        }
        let age = jiffies().wrapping_sub(self.started);
        match patience(age as u64, msecs_to_jiffies(PATIENCE_MS) as u64) {
            Patience::Wait => false,
            Patience::Interrupt => {
                self.ipis = self.cpus.interrupt();
                true
            }
        }
    }
}

/// What an epoch has cost.
#[derive(Clone, Copy, Default)]
struct Counts {
    ticks: u64,
    spared: u64,
    ipis: u64,
}

/// Gives back all pages whose wait is over, some of each region after the other.
/// Says whether any region still has pages that wait.
fn harvest_all(counts: Counts) -> bool {
    let mut at = 0;
    let mut counts = counts;
    loop {
        // SAFETY: In the kthread, holding no lock.
        unsafe { ffi::jit_cond_resched() };
        let Some(region) = BUSY.lock().regions.get(at).cloned() else {
            break;
        };
        if counts.ipis != 0 {
            region.counters.flushes.add(1);
            region.counters.ipis.add(counts.ipis);
            counts.ipis = 0;
        }
        region.counters.ticks.add(counts.ticks);
        region.counters.spared.add(counts.spared);
        // Filled here, where nobody waits for it.
        while harvest(&region, AT_ONCE, Blank::fill_all) {
            // SAFETY: As above.
            unsafe { ffi::jit_cond_resched() };
        }
        if !leave_if_idle(at) {
            at += 1;
        }
    }
    at != 0
}

/// Takes the region at `at` out of `BUSY` if nothing of it waits. Says whether it
/// did.
fn leave_if_idle(at: usize) -> bool {
    let mut busy = BUSY.lock();
    let last = busy.regions.len().saturating_sub(1);
    let Some(region) = busy.regions.get(at) else {
        return true;
    };
    {
        let mut queue = region.waiting.queue.lock();
        if queue.len() != 0 {
            return false;
        }
        queue.is_busy = false;
    }
    busy.regions.as_mut_slice().swap(at, last);
    let region = busy.regions.pop();
    drop(busy);
    // Its last use may end here.
    drop(region);
    true
}
