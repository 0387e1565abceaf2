// SPDX-License-Identifier: GPL-2.0

//! Replaced pages until no TLB can hold a translation to them (rule R6).
//!
//! ```text
//!  publish ─▶ the region's queue ─────▶ epoch is over ─▶ pool or free
//!       └───▶ OPEN: CPUs to flush ─▶ epoch: CPUs flush at their next
//!                                    tick, or are lazy, or offline
//! ```
//!
//! Each region has its own queue (`waiting.rs`), and pays for what is in it; all
//! share the epochs, one of which is in flight at a time (`reclaim.rs`). No
//! interrupt is sent, except where CPUs do not tick, and where a region's queue is
//! full: then that region flushes for itself. Nobody waits for another region's
//! pages.
//!
//! Whoever finds first that a page is over gives it back: the reclaim thread, or the
//! next publication of the region.
//!
//! Lock order: a region's turn → its queue's lock, `OPEN`, `BUSY`; `BUSY` → a queue's
//! lock (all spinlocks). Nothing is allocated, freed or waited for under them.
//! Context: process.

use kernel::{
    alloc::KVVec,
    list::{List, ListArc},
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        global_lock, Arc,
    },
};

use crate::{
    file_mapping::SomeMms,
    page::{Blank, Replaced, Version},
    plan::ledger::Wait,
    region::{Region, Turn},
    tlb::Cpus,
    waiting::Stale,
    wake,
};

/// CPUs that the next epoch has to wait for.
struct Open {
    cpus: Cpus,
    is_wanted: bool,
}

global_lock! {
    // SAFETY: Initialised by `init`, before any region exists.
    unsafe(uninit) static OPEN: SpinLock<Open> = Open {
        cpus: Cpus::new(0),
        is_wanted: false,
    };
}
global_lock! {
    // SAFETY: Initialised by `init`, before any region exists.
    unsafe(uninit) static BUSY: SpinLock<Busy> = Busy {
        regions: List::new(),
        count: 0,
    };
}

/// To be called once, before any region exists.
pub(crate) fn init() {
    // SAFETY: The module's init calls this exactly once.
    unsafe { OPEN.init() };
    // SAFETY: As above.
    unsafe { BUSY.init() };
    OPEN.lock().cpus = Cpus::none();
}

/// Regions whose queue is not empty.
struct Busy {
    regions: List<Region>,
    count: usize,
}

impl Busy {
    fn push(&mut self, region: ListArc<Region>) {
        self.regions.push_back(region);
        self.count += 1;
    }

    fn remove(&mut self, region: &Region) {
        // SAFETY: A region is in this list or in none.
        let removed = unsafe { self.regions.remove(region) };
        self.count -= usize::from(removed.is_some());
        // The caller has another reference, so nothing is freed here.
        drop(removed);
    }
}

/// The last epoch that was started. Changed under `OPEN`.
static STARTED: Atomic<i64> = Atomic::new(0);

/// Rids all CPUs of everything stale of the region: what the publication under way
/// has replaced, and everything earlier. Interrupts those that may have any.
pub(crate) fn flush(turn: &mut Turn<'_>) {
    let region = turn.region();
    // SAFETY: Who is taken out is interrupted.
    let Stale { now, before } = unsafe { turn.stale() };
    before.absorb(now);
    let mms = before.mms();
    let leaves = match &region.space {
        Some(space) => {
            let (first, last) = (region.first_pgoff(), region.last_pgoff());
            // Who maps, unmaps or forks must not wait until all have answered.
            space.lock().some_mms(first, last, |mm| mms.may_hold(mm))
        }
        None => SomeMms::none(),
    };
    let ipis = before.interrupt(&leaves);
    // SAFETY: All have flushed that were noted with a page which waits.
    unsafe { region.supply.waiting.end_all() };
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
    let ticket = region.supply.waiting.draw();
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
    if region.supply.waiting.len() == 0 {
        // SAFETY: Each has flushed, or what waited for it would wait still.
        unsafe { stale.before.forget() };
    }
    stale.before.absorb(&mut stale.now);
    // SAFETY: By this function's contract; the CPUs that might have an entry are noted
    // for the epoch, and for the region's own flush.
    let is_new = unsafe { region.supply.waiting.add(versions, Wait { ticket, epoch }) };
    if is_new {
        // There is none: its removal ended before `is_new` was said.
        if let Some(region) = ListArc::try_from_arc_or_drop(region.clone()) {
            BUSY.lock().push(region);
        }
    }
    wake::add_work();
}

/// Gives a page back. `prepare` is called with what its region keeps.
///
/// # Safety
///
/// As for [`Blank::recycle`].
unsafe fn give_back(region: &Region, version: Arc<Version>, prepare: impl FnOnce(&mut Blank)) {
    // SAFETY: By this function's contract.
    unsafe { region.supply.take_back(version, prepare) };
    region.supply.freed.add(1);
}

/// Gives back what waits and is over, `most` at most. Says whether there may be
/// more.
pub(crate) fn harvest(region: &Region, most: usize, prepare: impl Fn(&mut Blank)) -> bool {
    for _ in 0..most {
        let Some(version) = region.supply.waiting.take() else {
            return false;
        };
        // SAFETY: Its wait is over.
        unsafe { give_back(region, version, &prepare) };
    }
    true
}

/// Starts an epoch: adds the CPUs that it has to wait for to `cpus`, and returns its
/// number. None if nothing was retired since the last one.
pub(crate) fn start_epoch(cpus: &mut Cpus) -> Option<i64> {
    let mut open = OPEN.lock();
    if !core::mem::replace(&mut open.is_wanted, false) {
        return None;
    }
    cpus.absorb(&mut open.cpus);
    Some(STARTED.fetch_add(1, Relaxed) + 1)
}

/// Whether anything waits, for an epoch or for its region to be given back.
pub(crate) fn is_anything_left() -> bool {
    let is_wanted = OPEN.lock().is_wanted;
    is_wanted || busy() != 0
}

/// How many regions have pages that wait.
pub(crate) fn busy() -> usize {
    BUSY.lock().count
}

/// One of them after the other, round and round.
pub(crate) fn next_busy() -> Option<Arc<Region>> {
    let mut busy = BUSY.lock();
    let first = busy.regions.pop_front()?;
    let region = first.clone_arc();
    busy.regions.push_back(first);
    Some(region)
}

/// `region` is none of them any more, if nothing of it waits.
pub(crate) fn leave_if_idle(region: &Arc<Region>) {
    let mut busy = BUSY.lock();
    // Under both locks, so that who finds it gone can list it again.
    region.supply.waiting.leave_if_idle(|| busy.remove(region));
}
