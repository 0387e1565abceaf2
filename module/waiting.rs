// SPDX-License-Identifier: GPL-2.0

//! The replaced pages of one region, in the order in which they may be freed, and the
//! CPUs that they wait for (rules R11 to R13).
//!
//! A page in the queue is over ([`Wait::is_over`]) when its epoch is, or after a
//! flush of the region's own.
//!
//! Lock order: the queue's lock (spinlock) is innermost. Nothing is allocated, freed
//! or waited for under it.
//! Context: process.
//! Owner: the region.

use kernel::{
    alloc::KVVec,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Relaxed, Release},
        new_spinlock, Arc, SpinLock,
    },
};

use crate::{
    ffi,
    page::{Replaced, Version},
    parameters,
    plan::{
        abi::{MAX_SEGMENTS, PAGE_SIZE},
        ledger::{is_outdated, Flushed, Ticket, Wait},
    },
    tlb::Cpus,
};

/// Room is made for so many at least.
const AT_LEAST: usize = 32;

/// The smallest bound: one publication replaces at most two pages a segment.
const MIN_BOUND: usize = 2 * MAX_SEGMENTS as usize;

/// The last epoch that is over.
static COMPLETED: Atomic<i64> = Atomic::new(0);

/// Epoch `number` is over, and those before it.
///
/// # Safety
///
/// All CPUs that it was about have flushed since it began (rule R12).
pub(crate) unsafe fn complete_epoch(number: i64) {
    COMPLETED.store(number, Release);
}

/// Replaced pages that may wait in one region.
pub(crate) fn bound() -> usize {
    usize::try_from(parameters::retired_region())
        .unwrap_or(0)
        .max(MIN_BOUND)
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
    /// The region is in the list of those whose queue is not empty, or about to be.
    is_listed: bool,
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
}

impl Waiting {
    /// Nothing waits.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Waiting {
            queue <- new_spinlock!(Queue {
                items: KVVec::new(),
                head: 0,
                flushed: 0,
                is_listed: false,
            }, "jit_waiting"),
            len: Atomic::new(0),
            capacity: Atomic::new(0),
            last: Atomic::new(0),
        })
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
        (self.len() + count).next_power_of_two().max(AT_LEAST)
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
    pub(crate) unsafe fn end_all(&self) {
        self.queue.lock().flushed = self.last.load(Relaxed);
    }

    /// The ticket that the publication under way will draw. The turn is held.
    pub(crate) fn next(&self) -> Ticket {
        self.last.load(Relaxed) + 1
    }

    /// Has `versions` wait. Says whether the region has to be listed among those whose
    /// queue is not empty.
    ///
    /// # Safety
    ///
    /// The turn is held, and room was made. No page-table entry points to any of them,
    /// and when the wait is over no TLB has one that did.
    pub(crate) unsafe fn add(&self, versions: &mut KVVec<Replaced>, wait: Wait) -> bool {
        let mut queue = self.queue.lock();
        for version in versions.drain_all() {
            queue.push(Item { version, wait });
        }
        self.len.store(queue.len(), Relaxed);
        !core::mem::replace(&mut queue.is_listed, true)
    }

    /// Calls `unlist` if nothing waits, so that the region has to be listed again.
    pub(crate) fn leave_if_idle(&self, unlist: impl FnOnce()) {
        let mut queue = self.queue.lock();
        if queue.len() == 0 {
            unlist();
            queue.is_listed = false;
        }
    }

    /// Draws the next ticket. The turn is held.
    pub(crate) fn draw(&self) -> Ticket {
        let ticket = self.next();
        self.last.store(ticket, Relaxed);
        ticket
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
    pub(crate) before: Cpus,
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
