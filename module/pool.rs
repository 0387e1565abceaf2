// SPDX-License-Identifier: GPL-2.0

//! Blank pages that a region keeps for its next publications: what its replaced
//! pages became, filled with 0xCC by the reclaim thread, so that a publication
//! in steady state neither allocates a page nor writes a byte that is only 0xCC.
//!
//! They are given back when memory is short (a shrinker), when the region has
//! not touched them for a second or two, and when an allocation for the same
//! user would fail.
//!
//! Lock order: `POOLS` (mutex; nothing is allocated under it, so the shrinker
//! may take it; a turn, `CLOSING` and mmap_lock may be held) → a pool's lock
//! (spinlock, process context only).
//! Owner: the region; `POOLS` lists the pools of all regions that live.

use core::ptr::NonNull;

use kernel::{
    alloc::KVVec,
    bindings,
    list::{impl_list_arc_safe, impl_list_item, List, ListArc, ListLinks},
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        global_lock, new_spinlock, Arc, SpinLock,
    },
};

use crate::{page::Blank, plan::lifecycle::PageState, retire, user::User};

/// What a pool holds before its region has replaced a page.
const AT_FIRST: usize = 4;
/// What it holds afterwards: as much as an epoch of a busy compiler frees.
const MOST: usize = 512;
/// Pages that are freed without a pause of `POOLS`, for which others wait.
const AT_ONCE: usize = 1024;

global_lock! {
    // SAFETY: Initialised by `Shrinker::register`, before any region exists.
    unsafe(uninit) static POOLS: Mutex<List<Shelf>> = List::new();
}

/// Pages in all pools.
static KEPT: Atomic<i64> = Atomic::new(0);

/// The pages of one pool.
#[pin_data]
struct Shelf {
    /// Whose account the pages are on.
    user: Arc<User>,
    #[pin]
    blanks: SpinLock<KVVec<Blank>>,
    /// The capacity of `blanks`.
    capacity: Atomic<usize>,
    /// Used since the last [`trim_idle`].
    in_use: Atomic<bool>,
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
        let mut blanks = self.blanks.lock();
        let blank = blanks.pop()?;
        KEPT.fetch_sub(1, Relaxed);
        Some(blank)
    }

    fn push(&self, blank: Blank) {
        let mut blanks = self.blanks.lock();
        let rejected = blanks.push_within_capacity(blank);
        let is_first = rejected.is_ok() && KEPT.fetch_add(1, Relaxed) == 0;
        // What does not fit is freed after the lock: freeing takes others.
        drop(blanks);
        drop(rejected);
        if is_first {
            // It looks after idle pools.
            retire::wake();
        }
    }

    /// Frees up to `most` pages. Returns how many.
    fn free(&self, most: usize) -> usize {
        // Each is freed without the lock: freeing takes others.
        (0..most).map_while(|_| self.pop().map(drop)).count()
    }

    /// Gives the array back, if it is empty.
    fn fold(&self) {
        let mut empty = KVVec::new();
        let mut blanks = self.blanks.lock();
        if blanks.is_empty() {
            core::mem::swap(&mut *blanks, &mut empty);
            self.capacity.store(0, Relaxed);
        }
        // The array is freed after the lock.
        drop(blanks);
    }
}

/// The pool of one region, or none.
pub(crate) struct Pool(Option<Arc<Shelf>>);

impl Pool {
    /// One that keeps nothing.
    pub(crate) fn none() -> Self {
        Pool(None)
    }

    /// An empty one, for pages on the account of `user`. Fails with `ENOMEM`.
    pub(crate) fn new(user: &Arc<User>) -> Result<Self> {
        let shelf = ListArc::pin_init(
            try_pin_init!(Shelf {
                user: user.clone(),
                blanks <- new_spinlock!(KVVec::new(), "jit_pool"),
                capacity: Atomic::new(0),
                in_use: Atomic::new(false),
                links <- ListLinks::new(),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        let pool = Pool(Some(shelf.clone_arc()));
        POOLS.lock().push_back(shelf);
        Ok(pool)
    }

    /// Makes room for what the publication of a page in `state` calls for.
    /// Without memory it stays as it is.
    pub(crate) fn make_room(&self, state: PageState) {
        let wanted = match state {
            PageState::Absent | PageState::Unseen => AT_FIRST,
            PageState::Live => MOST,
        };
        let Some(shelf) = &self.0 else {
            return;
        };
        if shelf.capacity.load(Relaxed) >= wanted {
            return;
        }
        let flags = GFP_KERNEL_ACCOUNT | __GFP_NOWARN;
        let Ok(mut larger) = KVVec::with_capacity(wanted, flags) else {
            return;
        };
        let mut blanks = shelf.blanks.lock();
        core::mem::swap(&mut *blanks, &mut larger);
        shelf.capacity.store(blanks.capacity(), Relaxed);
        for blank in larger.drain_all() {
            // Can't fail: there is room for more than were there.
            let _ = blanks.push_within_capacity(blank);
        }
        // The old array is freed after the lock.
        drop(blanks);
    }

    /// A page, if there is one.
    pub(crate) fn take(&self) -> Option<Blank> {
        let shelf = self.0.as_ref()?;
        shelf.in_use.store(true, Relaxed);
        shelf.pop()
    }

    /// Whether one more would be kept.
    pub(crate) fn has_room(&self) -> bool {
        let Some(shelf) = &self.0 else {
            return false;
        };
        let blanks = shelf.blanks.lock();
        blanks.len() < blanks.capacity()
    }

    /// Keeps a page, or frees it.
    pub(crate) fn keep(&self, blank: Blank) {
        if let Some(shelf) = &self.0 {
            shelf.in_use.store(true, Relaxed);
            shelf.push(blank);
        }
    }

    /// Pages in it.
    pub(crate) fn len(&self) -> usize {
        let shelf = self.0.as_ref();
        shelf.map_or(0, |shelf| shelf.blanks.lock().len())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let Some(shelf) = &self.0 else {
            return;
        };
        // SAFETY: A shelf is in no list but this one.
        let listed = unsafe { POOLS.lock().remove(shelf) };
        drop(listed);
        shelf.free(usize::MAX);
    }
}

/// How many pages are in pools, for the kthread that looks after them.
pub(crate) fn kept() -> *const c_long {
    KEPT.as_ptr().cast()
}

/// Frees the pages that pools keep on the account of `user`.
pub(crate) fn trim(user: &Arc<User>) {
    free_all(|shelf| Arc::ptr_eq(&shelf.user, user));
}

/// Frees the pages of the pools that were not used since the last call.
pub(crate) fn trim_idle() {
    free_all(|shelf| !shelf.in_use.load(Relaxed));
    for shelf in POOLS.lock().iter() {
        if !shelf.in_use.xchg(false, Relaxed) {
            shelf.fold();
        }
    }
}

fn free_all(from: impl Fn(&Shelf) -> bool) {
    while free(&POOLS.lock(), AT_ONCE, &from) == AT_ONCE {}
}

fn free(pools: &List<Shelf>, most: usize, from: impl Fn(&Shelf) -> bool) -> usize {
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
        Some(pools) => free(&pools, most, |_| true) as c_ulong,
        // SHRINK_STOP: somebody is at it.
        None => c_ulong::MAX,
    }
}
