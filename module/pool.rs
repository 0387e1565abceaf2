// SPDX-License-Identifier: GPL-2.0

//! Blank pages that a region keeps for its next publications: what its replaced
//! pages became, filled with 0xCC by the reclaim thread, so that a publication
//! in steady state neither allocates a page nor writes a byte that is only 0xCC.
//!
//! They are given back when memory is short (a shrinker), when the region has
//! not touched them for a second or two (later, where a user has so many regions
//! that not all are looked at each second), and when an allocation for the same
//! user would fail. The array that they are in is paid for too.
//!
//! Lock order: a user's `shelves` (spinlock; held to take one shelf from its
//! front to its end) and a pool's lock (spinlock) are innermost. Nothing is
//! allocated, freed or waited for under them: so nobody's scheduling holds up
//! somebody else's publication.
//! Context: process.
//! Owner: the region; the user's list has the pools of all its regions.

use core::ptr::NonNull;

use kernel::{
    alloc::KVVec,
    bindings,
    list::ListArc,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        new_spinlock, Arc, SpinLock, UniqueArc,
    },
};

use crate::{
    ffi,
    page::Blank,
    plan::{abi::PAGE_SIZE, lifecycle::PageState},
    user::{self, Account, Charge, Listed, Shelf, User, What},
    wake,
};

/// What a pool holds before its region has replaced a page.
const AT_FIRST: usize = 4;
/// What it holds afterwards: as much as an epoch of a busy compiler frees.
const MOST: usize = 512;

/// What the lock of a pool guards.
struct Stock {
    blanks: KVVec<Blank>,
    /// For the array: the user pays for it as for the pages in it.
    _charge: Option<Charge>,
}

impl Stock {
    const fn none() -> Self {
        Stock {
            blanks: KVVec::new(),
            _charge: None,
        }
    }

    /// Room for `count` pages, on `account`.
    fn with_room(count: usize, account: &Arc<Account>) -> Result<Self> {
        let memory = count * size_of::<Blank>() / PAGE_SIZE;
        Ok(Stock {
            _charge: Some(Charge::new(account, What::Page, memory)?),
            blanks: KVVec::with_capacity(count, ffi::CHARGED)?,
        })
    }
}

/// The pages of one pool.
#[pin_data]
struct Blanks {
    #[pin]
    stock: SpinLock<Stock>,
    /// The capacity of `blanks`.
    capacity: Atomic<usize>,
    /// Used since the last [`trim_idle`].
    in_use: Atomic<bool>,
}

impl Blanks {
    fn pop(&self) -> Option<Blank> {
        let blank = self.stock.lock().blanks.pop()?;
        wake::remove_kept();
        Some(blank)
    }

    fn push(&self, blank: Blank) {
        let mut stock = self.stock.lock();
        let rejected = stock.blanks.push_within_capacity(blank);
        // What does not fit is freed after the lock: freeing takes others.
        drop(stock);
        if rejected.is_ok() {
            wake::add_kept();
        }
    }
}

impl Shelf for Blanks {
    fn free(&self, most: usize) -> usize {
        // Each is freed without the lock: freeing takes others.
        (0..most).map_while(|_| self.pop().map(drop)).count()
    }

    fn fold(&self) {
        self.free(usize::MAX);
        let mut empty = Stock::none();
        let mut stock = self.stock.lock();
        if stock.blanks.is_empty() {
            core::mem::swap(&mut *stock, &mut empty);
            self.capacity.store(0, Relaxed);
        }
        // The array is freed after the lock.
        drop(stock);
    }

    fn fold_if_idle(&self) {
        if !self.in_use.xchg(false, Relaxed) {
            self.fold();
        }
    }
}

/// The pool of one region, or none.
pub(crate) struct Pool(Option<Kept>);

/// Its pages, in its user's list.
struct Kept {
    blanks: Arc<Listed<Blanks>>,
    account: Arc<Account>,
}

impl Pool {
    /// One that keeps nothing.
    pub(crate) fn none() -> Self {
        Pool(None)
    }

    /// An empty one, for pages on `account`. Fails with `ENOMEM`.
    pub(crate) fn new(account: &Arc<Account>) -> Result<Self> {
        let blanks = Listed::new(pin_init!(Blanks {
            stock <- new_spinlock!(Stock::none(), "jit_pool"),
            capacity: Atomic::new(0),
            in_use: Atomic::new(false),
        }));
        let listed = ListArc::from(UniqueArc::pin_init(blanks, ffi::CHARGED)?);
        let pool = Pool(Some(Kept {
            blanks: listed.clone_arc(),
            account: account.clone(),
        }));
        account.user().add_shelf(listed);
        Ok(pool)
    }

    fn blanks(&self) -> Option<&Blanks> {
        self.0.as_ref().map(|kept| &kept.blanks.shelf)
    }

    /// Makes room for what the publication of a page in `state` calls for.
    /// Without memory, or at a bound, it stays as it is.
    pub(crate) fn make_room(&self, state: PageState) {
        let wanted = match state {
            PageState::Absent | PageState::Unseen => AT_FIRST,
            PageState::Live => MOST,
        };
        let Some(Kept { blanks, account }) = &self.0 else {
            return;
        };
        let blanks = &blanks.shelf;
        if blanks.capacity.load(Relaxed) >= wanted {
            return;
        }
        let Ok(mut larger) = Stock::with_room(wanted, account) else {
            return;
        };
        let mut stock = blanks.stock.lock();
        if stock.blanks.capacity() < larger.blanks.capacity() {
            core::mem::swap(&mut *stock, &mut larger);
            blanks.capacity.store(stock.blanks.capacity(), Relaxed);
        }
        for blank in larger.blanks.drain_all() {
            // Can't fail: there is room for more than were there.
            let _ = stock.blanks.push_within_capacity(blank);
        }
        // The old array is freed after the lock.
        drop(stock);
    }

    /// A page, if there is one.
    pub(crate) fn take(&self) -> Option<Blank> {
        let blanks = self.blanks()?;
        blanks.in_use.store(true, Relaxed);
        blanks.pop()
    }

    /// Whether one more would be kept.
    pub(crate) fn has_room(&self) -> bool {
        let Some(blanks) = self.blanks() else {
            return false;
        };
        let stock = blanks.stock.lock();
        stock.blanks.len() < stock.blanks.capacity()
    }

    /// Keeps a page, or frees it.
    pub(crate) fn keep(&self, mut blank: Blank) {
        if let Some(blanks) = self.blanks() {
            blanks.in_use.store(true, Relaxed);
            blank.reset();
            blanks.push(blank);
        }
    }

    /// Pages in it.
    pub(crate) fn len(&self) -> usize {
        self.blanks()
            .map_or(0, |blanks| blanks.stock.lock().blanks.len())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(Kept { blanks, account }) = &self.0 {
            account.user().remove_shelf(&**blanks);
            blanks.shelf.free(usize::MAX);
        }
    }
}

/// Pools of one user that are looked at in one go, where others wait for the end: who
/// has many, empty ones too, is looked at in several goes, for the list goes round.
pub(crate) const LOOKS: usize = 1024;

/// Frees up to `most` pages that pools keep for `user`, of those `from` picks, and looks
/// at `looks` pools at most.
fn free(user: &User, most: usize, looks: usize, from: impl Fn(&dyn Shelf) -> bool) -> usize {
    let mut freed = 0;
    // Each is met once, unless others come and go meanwhile.
    for _ in 0..user.shelf_count().min(looks) {
        match user.next_shelf() {
            Some(shelf) if freed < most => {
                if from(&shelf.shelf) {
                    freed += shelf.shelf.free(most - freed);
                }
            }
            _ => break,
        }
    }
    freed
}

/// Calls `visit` with all users, until it says that it has had enough.
fn for_each_user(mut visit: impl FnMut(&User) -> bool) {
    let mut from = Some(0);
    while let Some(user) = from.and_then(user::at_or_after) {
        if !visit(&user) {
            return;
        }
        from = user.id().checked_add(1);
    }
}

/// Frees the pages that pools keep for `user`, and what they are kept in.
pub(crate) fn trim(user: &User) {
    free(user, usize::MAX, usize::MAX, |shelf| {
        shelf.fold();
        false
    });
}

/// Frees the pages of the pools that were not used since the last call.
pub(crate) fn trim_idle() {
    for_each_user(|user| {
        free(user, usize::MAX, LOOKS, |shelf| {
            shelf.fold_if_idle();
            false
        });
        true
    });
}

/// Frees up to `most` pages, whoever's. Returns how many.
pub(crate) fn shrink(most: usize) -> usize {
    let mut freed = 0;
    for_each_user(|user| {
        freed += free(user, most - freed, LOOKS, |_| true);
        freed < most
    });
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
        // SAFETY: The name is a format string without arguments.
        let shrinker = unsafe { bindings::shrinker_alloc(0, c"jit-pool".as_char_ptr()) };
        let shrinker = NonNull::new(shrinker).ok_or(ENOMEM)?;
        let raw = shrinker.as_ptr();
        // SAFETY: It was allocated just now, and nobody else knows it.
        unsafe {
            (*raw).count_objects = Some(count_objects);
            (*raw).scan_objects = Some(scan_objects);
            bindings::shrinker_register(raw);
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
    c_ulong::try_from(wake::kept()).unwrap_or(0)
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
    match shrink(most) {
        // It is not called again at once.
        0 => c_ulong::MAX, // SHRINK_STOP
        freed => freed as c_ulong,
    }
}
