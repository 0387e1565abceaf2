// SPDX-License-Identifier: GPL-2.0

//! Blank pages that a region keeps for its next publications: what its replaced
//! pages became, filled with 0xCC by the reclaim thread, so that a publication
//! in steady state neither allocates a page nor writes a byte that is only 0xCC.
//!
//! They are given back when memory is short (a shrinker), when the region has
//! not touched them for a second or two, and when an allocation would fail.
//!
//! Lock order: `POOLS` (mutex; nothing is allocated under it, so the shrinker
//! may take it) → a pool's lock (spinlock, process context only).
//! Owner: the region; `POOLS` lists the pools of all regions that live.

use core::ptr::NonNull;

use kernel::{
    alloc::KVec,
    bindings,
    list::{impl_list_arc_safe, impl_list_item, List, ListArc, ListLinks},
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        global_lock, new_spinlock, Arc, SpinLock,
    },
};

use crate::page::Blank;

/// What a pool holds before its region has replaced a page.
const AT_FIRST: usize = 4;
/// What it holds afterwards: as much as an epoch of a busy compiler frees.
const MOST: usize = 512;

global_lock! {
    // SAFETY: Initialised by `Shrinker::register`, before any region exists.
    unsafe(uninit) static POOLS: Mutex<List<Shelf>> = List::new();
}

/// Pages in all pools.
static KEPT: Atomic<i64> = Atomic::new(0);

/// The pages of one pool.
#[pin_data]
struct Shelf {
    #[pin]
    blanks: SpinLock<KVec<Blank>>,
    /// Used since the last [`trim_idle`].
    in_use: Atomic<bool>,
    /// It has room for [`MOST`].
    grown: Atomic<bool>,
    #[pin]
    links: ListLinks,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for Shelf { untracked; }
}
impl_list_item! {
    impl ListItem<0> for Shelf { using ListLinks { self.links }; }
}

impl Shelf {
    fn pop(&self) -> Option<Blank> {
        let blank = self.blanks.lock().pop()?;
        KEPT.fetch_sub(1, Relaxed);
        Some(blank)
    }

    fn push(&self, blank: Blank) -> Result<(), Blank> {
        let pushed = self.blanks.lock().push_within_capacity(blank);
        match pushed {
            Ok(()) => {
                KEPT.fetch_add(1, Relaxed);
                Ok(())
            }
            Err(full) => Err(full.0),
        }
    }

    /// Frees up to `most` pages. Returns how many.
    fn free(&self, most: usize) -> usize {
        // Each is freed without the lock: freeing takes others.
        (0..most).map_while(|_| self.pop().map(drop)).count()
    }
}

/// The pool of one region.
pub(crate) struct Pool(Arc<Shelf>);

impl Pool {
    /// An empty one. Fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let blanks = KVec::with_capacity(AT_FIRST, GFP_KERNEL_ACCOUNT)?;
        let shelf = ListArc::pin_init(
            try_pin_init!(Shelf {
                blanks <- new_spinlock!(blanks, "jit_pool"),
                in_use: Atomic::new(false),
                grown: Atomic::new(false),
                links <- ListLinks::new(),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        let pool = Pool(shelf.clone_arc());
        POOLS.lock().push_back(shelf);
        Ok(pool)
    }

    /// Makes room for the pages of a busy region. Without memory it stays as
    /// it is.
    pub(crate) fn grow(&self) {
        if self.0.grown.load(Relaxed) {
            return;
        }
        let Ok(mut larger) = KVec::with_capacity(MOST, GFP_KERNEL_ACCOUNT | __GFP_NOWARN) else {
            return;
        };
        let mut blanks = self.0.blanks.lock();
        core::mem::swap(&mut *blanks, &mut larger);
        for blank in larger.drain_all() {
            // Can't fail: there is room for more than were there.
            let _ = blanks.push_within_capacity(blank);
        }
        self.0.grown.store(true, Relaxed);
        // The old memory is freed after the lock.
        drop(blanks);
    }

    /// A page, if there is one.
    pub(crate) fn take(&self) -> Option<Blank> {
        self.0.in_use.store(true, Relaxed);
        self.0.pop()
    }

    /// Whether one more would be kept.
    pub(crate) fn has_room(&self) -> bool {
        let blanks = self.0.blanks.lock();
        blanks.len() < blanks.capacity()
    }

    /// Keeps a page, or frees it.
    pub(crate) fn keep(&self, blank: Blank) {
        self.0.in_use.store(true, Relaxed);
        drop(self.0.push(blank));
    }

    /// Pages in it.
    pub(crate) fn len(&self) -> usize {
        self.0.blanks.lock().len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: A shelf is in no list but this one.
        let listed = unsafe { POOLS.lock().remove(&self.0) };
        drop(listed);
        self.0.free(usize::MAX);
    }
}

/// Whether any pool has pages.
pub(crate) fn any() -> bool {
    KEPT.load(Relaxed) != 0
}

/// Frees the pages of all pools. Returns how many.
pub(crate) fn trim() -> usize {
    free(usize::MAX, |_| true)
}

/// Frees the pages of the pools that were not used since the last call.
pub(crate) fn trim_idle() {
    free(usize::MAX, |shelf| !shelf.in_use.xchg(false, Relaxed));
}

fn free(most: usize, from: impl Fn(&Shelf) -> bool) -> usize {
    free_of(&POOLS.lock(), most, from)
}

fn free_of(pools: &List<Shelf>, most: usize, from: impl Fn(&Shelf) -> bool) -> usize {
    let mut freed = 0;
    for shelf in pools.iter().filter(|shelf| from(shelf)) {
        freed += shelf.free(most - freed);
    }
    freed
}

/// Lets the kernel ask for the pages back.
pub(crate) struct Shrinker(NonNull<bindings::shrinker>);

// SAFETY: The kernel's shrinker has locks of its own.
unsafe impl Send for Shrinker {}
// SAFETY: As above.
unsafe impl Sync for Shrinker {}

impl Shrinker {
    /// Registers it. Called once, before any region exists.
    pub(crate) fn register() -> Result<Self> {
        // SAFETY: Called once, by the module's init.
        unsafe { POOLS.init() };
        // SAFETY: The name is a format string without arguments.
        let shrinker = unsafe { bindings::shrinker_alloc(0, c"jit-pool".as_char_ptr()) };
        let shrinker = NonNull::new(shrinker).ok_or(ENOMEM)?;
        // SAFETY: It was allocated just now, and nobody else knows it.
        unsafe {
            let shrinker = &mut *shrinker.as_ptr();
            shrinker.count_objects = Some(count_objects);
            shrinker.scan_objects = Some(scan_objects);
            bindings::shrinker_register(shrinker);
        }
        Ok(Shrinker(shrinker))
    }
}

impl Drop for Shrinker {
    fn drop(&mut self) {
        // SAFETY: It is registered, and waits for calls under way.
        unsafe { bindings::shrinker_free(self.0.as_ptr()) };
    }
}

/// # Safety
///
/// Called by the kernel for a [`Shrinker`].
unsafe extern "C" fn count_objects(
    _: *mut bindings::shrinker,
    _: *mut bindings::shrink_control,
) -> c_ulong {
    c_ulong::try_from(KEPT.load(Relaxed)).unwrap_or(0)
}

/// # Safety
///
/// Called by the kernel for a [`Shrinker`], with a valid `control`.
unsafe extern "C" fn scan_objects(
    _: *mut bindings::shrinker,
    control: *mut bindings::shrink_control,
) -> c_ulong {
    // SAFETY: By this function's contract.
    let most = unsafe { (*control).nr_to_scan } as usize;
    match POOLS.try_lock() {
        Some(pools) => free_of(&pools, most, |_| true) as c_ulong,
        // SHRINK_STOP: somebody is at it.
        None => c_ulong::MAX,
    }
}
