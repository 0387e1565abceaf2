// SPDX-License-Identifier: GPL-2.0

//! Owns replaced pages until no TLB can hold a translation to them (rule R6),
//! then gives them back to their regions.
//!
//! ```text
//!  publish ─▶ OPEN ─▶ CLOSING ─▶ all CPUs clean ─▶ pool or free
//!             (fills   (one batch: an epoch; CPUs flush at their
//!              up)      next tick, or are lazy, or offline)
//! ```
//!
//! One batch is in flight at a time. No interrupt is sent, except where CPUs do
//! not tick, and at the bound: then one batched flush for everything that
//! waits.
//!
//! Lock order: a region's turn → `CLOSING` (mutex) → `OPEN` (spinlock, process
//! context only) and slot, pool and page allocator locks; `CLOSING` → `POOLS`
//! where the last use of a region ends.
//! Context: process. The kthread sleeps while nothing waits.

use core::ptr::{addr_of, NonNull};

use kernel::{
    alloc::{KVVec, KVec},
    bindings,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed, Release},
        global_lock, Arc,
    },
    time::msecs_to_jiffies,
};

use crate::{
    ffi, module_parameters,
    page::{Blank, Version},
    percpu::Tickers,
    plan::{
        abi::MAX_SEGMENTS,
        ledger::{must_flush, patience, Bounds, Patience},
    },
    pool,
    region::Region,
    tlb::Cpus,
};

/// How long a CPU may take to tick before it is interrupted.
const PATIENCE_MS: u32 = 40;

/// How often idle pools are looked for.
const IDLE_MS: u32 = 1000;

/// The smallest bounds: one publication replaces at most two pages a segment.
const MIN_BOUND: usize = 2 * MAX_SEGMENTS as usize;

/// One replaced page.
struct Retired {
    version: Arc<Version>,
    region: Arc<Region>,
}

/// Pages whose translations are being given up.
struct Batch {
    items: KVVec<Retired>,
    cpus: Cpus,
}

impl Batch {
    const fn new() -> Self {
        Batch {
            items: KVVec::new(),
            cpus: Cpus::new(0),
        }
    }

    fn with_capacity(capacity: usize) -> Result<Self> {
        Ok(Batch {
            items: KVVec::with_capacity(capacity, GFP_KERNEL)?,
            cpus: Cpus::none(),
        })
    }

    /// Gives all pages back, while somebody waits: what is 0xCC on them is left
    /// to their next use. No TLB holds a translation to them.
    fn free(&mut self) {
        free(&mut self.items);
        self.cpus.clear();
    }
}

fn free(items: &mut KVVec<Retired>) {
    for item in items.drain_all() {
        item.give_back(|_| ());
    }
}

impl Retired {
    /// Gives the page back, to which no TLB holds a translation. `prepare` is
    /// called with what its region keeps.
    fn give_back(self, prepare: impl FnOnce(&mut Blank)) {
        self.region.take_back(self.version, prepare);
        self.region.counters.freed.add(1);
    }
}

struct Open {
    batch: Batch,
    /// Pages that publications under way may still add.
    reserved: usize,
}

struct Closing {
    batch: Batch,
    /// Where [`flush_now`] puts the open batch; empty but meanwhile.
    second: KVVec<Retired>,
    epoch: i64,
    started: c_ulong,
    tickers: Option<Tickers>,
}

global_lock! {
    // SAFETY: Initialised by `Reclaim::start`, before any region exists.
    unsafe(uninit) static OPEN: SpinLock<Open> = Open {
        batch: Batch::new(),
        reserved: 0,
    };
}
global_lock! {
    // SAFETY: Initialised by `Reclaim::start`, before any region exists.
    unsafe(uninit) static CLOSING: Mutex<Closing> = Closing {
        batch: Batch::new(),
        second: KVVec::new(),
        epoch: 0,
        started: 0,
        tickers: None,
    };
}

/// Pages in `CLOSING`.
static CLOSING_LEN: Atomic<usize> = Atomic::new(0);
/// Not zero while the kthread has work. Changed under `OPEN`.
static WORK: Atomic<i32> = Atomic::new(0);
static THREAD: Atomic<*mut bindings::task_struct> = Atomic::new(core::ptr::null_mut());

fn bounds() -> Bounds {
    let at_least = |value: i64| usize::try_from(value).unwrap_or(0).max(MIN_BOUND);
    Bounds {
        region: at_least(module_parameters::retired_region.value()),
        total: at_least(module_parameters::retired_total.value()),
    }
}

/// The running reclaim thread.
pub(crate) struct Reclaim(NonNull<bindings::task_struct>);

// SAFETY: The task is only stopped, which any thread may do.
unsafe impl Send for Reclaim {}
// SAFETY: As above.
unsafe impl Sync for Reclaim {}

impl Reclaim {
    /// Starts it. Called once, before any region exists.
    pub(crate) fn start() -> Result<Self> {
        // SAFETY: Called once, by the module's init.
        unsafe { OPEN.init() };
        // SAFETY: As above.
        unsafe { CLOSING.init() };
        // Whatever is reserved fits: the bound is checked first.
        let capacity = bounds().total;
        let open = Batch::with_capacity(capacity)?;
        let batch = Batch::with_capacity(capacity)?;
        let second = KVVec::with_capacity(capacity, GFP_KERNEL)?;
        let tickers = Tickers::new()?;
        OPEN.lock().batch = open;
        {
            let mut closing = CLOSING.lock();
            closing.batch = batch;
            closing.second = second;
            closing.tickers = Some(tickers);
        }
        // SAFETY: `main` matches, and takes no data.
        let task = unsafe { ffi::jit_kthread_run(main, core::ptr::null_mut()) };
        let task = kernel::error::from_err_ptr(task).inspect_err(|_| empty())?;
        THREAD.store(task, Release);
        NonNull::new(task).map(Reclaim).ok_or(ENOMEM)
    }
}

/// Gives up what the statics hold: nobody does that for a module.
fn empty() {
    let mut closing = CLOSING.lock();
    closing.tickers = None;
    closing.batch = Batch::new();
    closing.second = KVVec::new();
    drop(closing);
    let old = core::mem::replace(&mut OPEN.lock().batch, Batch::new());
    drop(old);
}

impl Drop for Reclaim {
    /// Called when no region can be used any more.
    fn drop(&mut self) {
        // SAFETY: The thread runs until it is told to stop.
        unsafe { ffi::kthread_stop(self.0.as_ptr()) };
        // What is given back below wakes nobody.
        THREAD.store(core::ptr::null_mut(), Release);
        flush_now(&mut Cpus::none());
        empty();
    }
}

/// The right to retire some pages.
pub(crate) struct Reservation(usize);

/// Makes sure that `count` pages of `region` can be retired. At a bound this
/// flushes all CPUs that hold up the freeing of pages, and then waits for those
/// that others are about to give back.
pub(crate) fn reserve(region: &Region, count: usize) -> Reservation {
    if count == 0 {
        return Reservation(0);
    }
    let bounds = bounds();
    let mut was_flushed = false;
    loop {
        let mut open = OPEN.lock();
        let total = open.batch.items.len() + open.reserved + CLOSING_LEN.load(Relaxed);
        if !must_flush(bounds, region.pending(), total, count) {
            open.reserved += count;
            return Reservation(count);
        }
        drop(open);
        if was_flushed {
            // SAFETY: In process context, holding no spinlock.
            unsafe { bindings::schedule_timeout_uninterruptible(1) };
        }
        flush(region, &mut Cpus::none());
        was_flushed = true;
    }
}

/// Retires `versions` of `region`, to which `cpus` may hold translations. Takes
/// no more than were reserved.
pub(crate) fn retire(
    region: &Arc<Region>,
    versions: &mut KVec<Arc<Version>>,
    cpus: &Cpus,
    reservation: Reservation,
) {
    if reservation.0 == 0 {
        return;
    }
    region.counters.retired.add(versions.len() as u64);
    let mut open = OPEN.lock();
    open.reserved -= reservation.0;
    if versions.is_empty() {
        return;
    }
    open.batch.cpus.union(cpus);
    for version in versions.drain_all() {
        let item = Retired {
            version,
            region: region.clone(),
        };
        // Can't fail: the capacity is the bound, and `reserve` kept to it.
        let _ = open.batch.items.push_within_capacity(item);
    }
    let was_idle = WORK.xchg(1, Full) == 0;
    drop(open);
    if was_idle {
        wake();
    }
}

/// Has the kthread look for work.
pub(crate) fn wake() {
    let thread = THREAD.load(Relaxed);
    if !thread.is_null() {
        // SAFETY: The thread lives until no region exists any more, and is
        // forgotten when it has ended.
        unsafe { bindings::wake_up_process(thread) };
    }
}

/// Rids all CPUs of everything stale: the entries that `cpus` may hold after a
/// publication of `region`, and those of all pages that wait, of any version.
/// Frees these pages.
pub(crate) fn flush(region: &Region, cpus: &mut Cpus) {
    let ipis = flush_now(cpus);
    region.counters.flushes.add(1);
    region.counters.ipis.add(ipis);
}

/// Frees everything that waits, by one flush of all CPUs concerned and those
/// in `also`. Returns the number of interrupts.
fn flush_now(also: &mut Cpus) -> u64 {
    let mut closing = CLOSING.lock();
    let Closing { batch, second, .. } = &mut *closing;
    {
        let mut open = OPEN.lock();
        core::mem::swap(&mut open.batch.items, second);
        batch.cpus.union(&open.batch.cpus);
        open.batch.cpus.clear();
        CLOSING_LEN.store(batch.items.len() + second.len(), Relaxed);
    }
    batch.cpus.union(also);
    also.clear();
    let ipis = batch.cpus.interrupt();
    batch.free();
    free(second);
    CLOSING_LEN.store(0, Relaxed);
    ipis
}

/// # Safety
///
/// The body of the kthread.
unsafe extern "C" fn main(_: *mut c_void) -> c_int {
    let mut last_trim = jiffies();
    while !ffi::must_stop() {
        match step() {
            Step::More => {
                // SAFETY: In the kthread, holding no lock.
                unsafe { ffi::jit_cond_resched() };
            }
            Step::Wait => {
                // SAFETY: As above.
                unsafe { bindings::schedule_timeout_interruptible(1) };
            }
            Step::Idle => sleep(),
        }
        if jiffies().wrapping_sub(last_trim) >= msecs_to_jiffies(IDLE_MS) as c_ulong {
            pool::trim_idle();
            last_trim = jiffies();
        }
    }
    0
}

fn jiffies() -> c_ulong {
    // SAFETY: A plain counter, which the timer interrupt changes.
    unsafe { addr_of!(bindings::jiffies).read_volatile() }
}

/// Sleeps until there is work, or idle pools may have to be emptied.
fn sleep() {
    let pause = msecs_to_jiffies(IDLE_MS) as c_long;
    // SAFETY: `WORK` is static and has the layout of an `int`, what `kept`
    // returns that of a `long`.
    unsafe { ffi::jit_kthread_sleep(WORK.as_ptr(), pool::kept(), pause) };
}

/// What the kthread does next.
enum Step {
    /// The same again.
    More,
    /// The same after a tick.
    Wait,
    /// Nothing.
    Idle,
}

/// Pages that are given back without a pause of `CLOSING`, for which
/// publications may wait that flush.
const AT_ONCE: usize = 32;

/// One look at the batch in flight.
fn step() -> Step {
    let mut clean = [const { None }; AT_ONCE];
    {
        let mut closing = CLOSING.lock();
        if closing.batch.items.is_empty() && !begin(&mut closing) {
            return Step::Idle;
        }
        if !poll(&mut closing) {
            return Step::Wait;
        }
        clean.fill_with(|| closing.batch.items.pop());
        CLOSING_LEN.store(closing.batch.items.len(), Relaxed);
    }
    for item in clean.into_iter().flatten() {
        // Here, where nobody waits for it.
        item.give_back(Blank::fill_all);
    }
    Step::More
}

/// Starts an epoch with all that was retired meanwhile.
fn begin(closing: &mut Closing) -> bool {
    {
        let mut open = OPEN.lock();
        core::mem::swap(&mut open.batch, &mut closing.batch);
        if closing.batch.items.is_empty() {
            WORK.store(0, Release);
            return false;
        }
        CLOSING_LEN.store(closing.batch.items.len(), Relaxed);
    }
    closing.started = jiffies();
    if let Some(tickers) = &closing.tickers {
        closing.epoch = tickers.start_epoch();
        closing.batch.cpus.drop_clean(|_| false);
        for cpu in closing.batch.cpus.iter().filter(|&cpu| ffi::cpu_ticks(cpu)) {
            tickers.arm(cpu);
        }
    }
    true
}

/// Whether all CPUs are clean. Those that have been waited for too long are
/// interrupted.
fn poll(closing: &mut Closing) -> bool {
    let Closing {
        batch,
        epoch,
        started,
        tickers,
        ..
    } = closing;
    if let Some(tickers) = tickers {
        batch
            .cpus
            .drop_clean(|cpu| tickers.has_flushed(cpu, *epoch));
    }
    if !batch.cpus.is_empty() {
        let age = jiffies().wrapping_sub(*started);
        match patience(age as u64, msecs_to_jiffies(PATIENCE_MS) as u64) {
            Patience::Wait => return false,
            Patience::Interrupt => {
                let ipis = batch.cpus.interrupt();
                if let Some(item) = batch.items.first() {
                    item.region.counters.flushes.add(1);
                    item.region.counters.ipis.add(ipis);
                }
            }
        }
    }
    true
}
