// SPDX-License-Identifier: GPL-2.0

//! Who pays: how many pages and regions one user, and all of them, may have,
//! and in which process the pages of a region show up as resident memory, so
//! that the OOM killer finds who holds them.
//!
//! Lock order: `USERS` (spinlock; nothing is allocated, freed or waited for under
//! it) and [`Account::home`] (spinlock) are innermost.
//! Context: process.
//! Owner: each region has an [`Account`]; its pages
//! hold a [`Charge`] on it.

use kernel::{
    alloc::Flags,
    bindings, current,
    list::{impl_list_arc_safe, impl_list_item, List, ListArc, ListLinksSelfPtr},
    mm::Mm,
    prelude::*,
    rbtree::{RBTree, RBTreeNode},
    sync::{
        aref::ARef,
        atomic::{Atomic, Full, Relaxed},
        global_lock, new_spinlock, Arc, SpinLock,
    },
};

use crate::{error, ffi, parameters};

global_lock! {
    // SAFETY: Initialised by `init`, which the module's init calls first.
    unsafe(uninit) static USERS: SpinLock<Option<RBTree<u32, Known>>> = None;
}

/// A user in the list, which has accounts.
struct Known {
    user: Arc<User>,
    accounts: usize,
}

/// What all users together have.
static TOTALS: Holdings = Holdings::new();
/// Mappings that all users together have made. Their parts and copies, which can't be
/// refused, are not among them: so nobody takes more of this bound than of their own.
static MAPPINGS: Atomic<i64> = Atomic::new(0);

/// To be called once, before any region exists.
pub(crate) fn init() {
    // SAFETY: The module's init calls this exactly once.
    unsafe { USERS.init() };
}

struct Holdings {
    pages: Atomic<i64>,
    regions: Atomic<i64>,
}

impl Holdings {
    const fn new() -> Self {
        Holdings {
            pages: Atomic::new(0),
            regions: Atomic::new(0),
        }
    }

    fn of(&self, what: What) -> &Atomic<i64> {
        match what {
            What::Page => &self.pages,
            What::Region => &self.regions,
        }
    }
}

/// Pages that are kept for later on a user's accounts, and can be given back.
pub(crate) trait Shelf: Send + Sync {
    /// Frees up to `most` of them. Returns how many.
    fn free(&self, most: usize) -> usize;

    /// Frees all of them, and what they are kept in.
    fn fold(&self);

    /// The same, if nobody has used it since the last call.
    fn fold_if_idle(&self);
}

/// A [`Shelf`] that can be in its user's list.
#[pin_data]
#[repr(C)]
pub(crate) struct Listed<T: ?Sized> {
    #[pin]
    links: ListLinksSelfPtr<Listed<dyn Shelf>>,
    #[pin]
    pub(crate) shelf: T,
}

impl_list_arc_safe! {
    impl{T: ?Sized} ListArcSafe<0> for Listed<T> { untracked; }
}
impl_list_item! {
    impl ListItem<0> for Listed<dyn Shelf> { using ListLinksSelfPtr { self.links }; }
}

impl<T> Listed<T> {
    /// One that is in no list yet.
    pub(crate) fn new(shelf: impl PinInit<T>) -> impl PinInit<Self> {
        pin_init!(Listed {
            links <- ListLinksSelfPtr::new(),
            shelf <- shelf,
        })
    }
}

/// One user.
#[pin_data]
pub(crate) struct User {
    id: u32,
    has: Holdings,
    mappings: Atomic<i64>,
    /// The spare pages of the user's regions.
    #[pin]
    shelves: SpinLock<List<Listed<dyn Shelf>>>,
    shelf_count: Atomic<usize>,
}

impl User {
    fn new(id: u32, flags: Flags) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(User {
                id,
                has: Holdings::new(),
                mappings: Atomic::new(0),
                shelves <- new_spinlock!(List::new(), "jit_shelves"),
                shelf_count: Atomic::new(0),
            }),
            flags,
        )
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Adds the spare pages of a region.
    pub(crate) fn add_shelf(&self, shelf: ListArc<Listed<dyn Shelf>>) {
        self.shelf_count.fetch_add(1, Relaxed);
        self.shelves.lock().push_back(shelf);
    }

    /// Takes them out again.
    pub(crate) fn remove_shelf(&self, shelf: &Listed<dyn Shelf>) {
        // SAFETY: A shelf is in the list of its user or in none.
        let listed = unsafe { self.shelves.lock().remove(shelf) };
        self.shelf_count.fetch_sub(1, Relaxed);
        drop(listed);
    }

    /// How many there are, about.
    pub(crate) fn shelf_count(&self) -> usize {
        self.shelf_count.load(Relaxed)
    }

    /// One after the other, round and round.
    pub(crate) fn next_shelf(&self) -> Option<Arc<Listed<dyn Shelf>>> {
        let mut shelves = self.shelves.lock();
        let first = shelves.pop_front()?;
        let shelf = first.clone_arc();
        shelves.push_back(first);
        Some(shelf)
    }

    /// Pages, regions and mappings.
    pub(crate) fn holds(&self) -> (i64, i64, i64) {
        (
            self.has.pages.load(Relaxed),
            self.has.regions.load(Relaxed),
            self.mappings.load(Relaxed),
        )
    }
}

/// The first user that has anything, from number `id` on.
pub(crate) fn at_or_after(id: u32) -> Option<Arc<User>> {
    let users = USERS.lock();
    let cursor = users.as_ref()?.cursor_lower_bound(&id)?;
    Some(cursor.current().1.user.clone())
}

/// Pages, regions and mappings of all users.
pub(crate) fn totals() -> (i64, i64, i64) {
    (
        TOTALS.pages.load(Relaxed),
        TOTALS.regions.load(Relaxed),
        MAPPINGS.load(Relaxed),
    )
}

/// A user, kept in the list.
pub(crate) struct Membership(Arc<User>);

impl Membership {
    /// The caller's user.
    pub(crate) fn of_caller() -> Result<Self> {
        Membership::of(ffi::accountable_uid(), ffi::CHARGED)
    }

    /// Which user it is of.
    pub(crate) fn id(&self) -> u32 {
        self.0.id
    }

    /// Counts one mapping more, or fails with `EDQUOT`.
    pub(crate) fn count_mapping(&self) -> Result {
        add_within(&self.0.mappings, 1, parameters::user_mappings())
    }

    /// Counts one that can't be refused: a part or a copy of another.
    pub(crate) fn count_mapping_copy(&self) {
        self.0.mappings.fetch_add(1, Relaxed);
    }

    /// Counts one less.
    pub(crate) fn forget_mapping(&self) {
        self.0.mappings.fetch_sub(1, Relaxed);
    }

    /// The user `id`, in memory that is allocated with `flags`.
    pub(crate) fn of(id: u32, flags: Flags) -> Result<Self> {
        if let Some(member) = Membership::join(id) {
            return Ok(member);
        }
        let user = User::new(id, flags)?;
        let listed = Known {
            user: user.clone(),
            accounts: 1,
        };
        let node = RBTreeNode::new(id, listed, flags)?;
        let mut users = USERS.lock();
        let tree = users.get_or_insert_with(RBTree::new);
        if let Some(listed) = tree.get_mut(&id) {
            // Another thread was faster; ours is freed after the lock.
            listed.accounts += 1;
            let member = Membership(listed.user.clone());
            drop(users);
            drop((node, user));
            return Ok(member);
        }
        tree.insert(node);
        Ok(Membership(user))
    }

    fn join(id: u32) -> Option<Self> {
        let mut users = USERS.lock();
        let listed = users.as_mut()?.get_mut(&id)?;
        listed.accounts += 1;
        Some(Membership(listed.user.clone()))
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut users = USERS.lock();
        let Some(tree) = users.as_mut() else {
            return;
        };
        let mut gone = None;
        if let Some(listed) = tree.get_mut(&self.0.id) {
            listed.accounts -= 1;
            if listed.accounts == 0 {
                gone = tree.remove_node(&self.0.id);
            }
        }
        drop(users);
        drop(gone);
    }
}

/// A mapping that somebody has made, among those of all users.
///
/// # Invariants
///
/// Counted in [`MAPPINGS`].
pub(crate) struct Made(());

impl Made {
    /// Counts one more, or fails with `EDQUOT`.
    pub(crate) fn new() -> Result<Self> {
        add_to_total(&MAPPINGS, 1, parameters::total_mappings())?;
        // INVARIANT: Just counted.
        Ok(Made(()))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        MAPPINGS.fetch_sub(1, Relaxed);
    }
}

/// The process in which the pages of an account are counted.
struct Home {
    /// Kept by a reference until its pages are taken out of it.
    mm: Option<ARef<Mm>>,
    pages: i64,
}

impl Home {
    fn count(&self, pages: i64) {
        if let Some(mm) = &self.mm {
            // SAFETY: The reference keeps the address space.
            unsafe { ffi::jit_mm_count(mm.as_raw(), pages as c_long) };
        }
    }
}

/// What one region has.
#[pin_data(PinnedDrop)]
pub(crate) struct Account {
    member: Membership,
    #[pin]
    home: SpinLock<Home>,
}

impl Account {
    /// A new one, of the caller's user and in the caller's process.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let member = Membership::of_caller()?;
        let current = current!();
        let mm = current.mm().map(|mm| ARef::from(&**mm));
        Arc::pin_init(
            pin_init!(Account {
                member,
                home <- new_spinlock!(Home { mm, pages: 0 }, "jit_home"),
            }),
            ffi::CHARGED,
        )
    }

    /// The user that it is of.
    pub(crate) fn user(&self) -> &Arc<User> {
        &self.member.0
    }

    /// Whether the process in which its pages are counted has ended.
    pub(crate) fn is_homeless(&self) -> bool {
        let home = self.home.lock();
        home.mm.as_ref().is_none_or(|mm| {
            // SAFETY: The reference keeps the address space.
            unsafe { ffi::jit_mm_is_dead(mm.as_raw()) }
        })
    }

    /// Whether its pages are counted in `mm`.
    pub(crate) fn lives_in(&self, mm: *const bindings::mm_struct) -> bool {
        let home = self.home.lock();
        home.mm
            .as_ref()
            .is_some_and(|home| core::ptr::eq(home.as_raw(), mm))
    }

    /// Counts its pages in `mm` from now on.
    pub(crate) fn move_to(&self, mm: ARef<Mm>) {
        let mut home = self.home.lock();
        home.count(-home.pages);
        let old = home.mm.replace(mm);
        home.count(home.pages);
        drop(home);
        drop(old);
    }

    fn count(&self, pages: i64) {
        let mut home = self.home.lock();
        home.pages += pages;
        home.count(pages);
    }
}

#[pinned_drop]
impl PinnedDrop for Account {
    fn drop(self: Pin<&mut Self>) {
        // Every charge holds the account, so nothing is left in the process.
        debug_assert!(self.home.lock().pages == 0);
    }
}

/// What is bounded.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum What {
    /// A page: of code, current or waiting to be freed, or of what a region
    /// needs beside.
    Page,
    /// A region, or the result of one `JIT_CREATE_CODE`.
    Region,
}

impl What {
    /// The bounds of one user and of all.
    fn bounds(self) -> (i64, i64) {
        match self {
            What::Page => (parameters::user_pages(), parameters::total_pages()),
            What::Region => (parameters::user_regions(), parameters::total_regions()),
        }
    }
}

/// Adds to a counter, unless that goes beyond its bound.
fn add_within(counter: &Atomic<i64>, more: i64, bound: i64) -> Result {
    if counter.fetch_add(more, Relaxed) > bound.saturating_sub(more) {
        counter.fetch_sub(more, Relaxed);
        return Err(error::quota());
    }
    Ok(())
}

/// The same to what all users have together. A reserve is left for the administrator:
/// `CAP_SYS_RESOURCE` goes beyond the bound.
fn add_to_total(counter: &Atomic<i64>, more: i64, bound: i64) -> Result {
    add_within(counter, more, bound).or_else(|error| match ffi::may_exceed_totals() {
        true => {
            counter.fetch_add(more, Relaxed);
            Ok(())
        }
        false => Err(error),
    })
}

/// Pages or regions on an account.
///
/// # Invariants
///
/// The counters of the user and of all users include this charge, and for pages
/// that of the process.
pub(crate) struct Charge {
    account: Arc<Account>,
    what: What,
    amount: Atomic<i64>,
}

impl Charge {
    /// Charges `account`, or fails with `EDQUOT`.
    pub(crate) fn new(account: &Arc<Account>, what: What, amount: usize) -> Result<Self> {
        let mut charge = Charge {
            account: account.clone(),
            what,
            amount: Atomic::new(0),
        };
        charge.grow_to(amount)?;
        Ok(charge)
    }

    /// Makes it at least `amount`, or fails with `EDQUOT`.
    pub(crate) fn grow_to(&mut self, amount: usize) -> Result {
        let more = i64::try_from(amount)? - self.amount.load(Relaxed);
        if more <= 0 {
            return Ok(());
        }
        let (of_user, of_all) = self.what.bounds();
        let user = self.account.user().has.of(self.what);
        add_within(user, more, of_user)?;
        add_to_total(TOTALS.of(self.what), more, of_all).inspect_err(|_| {
            user.fetch_sub(more, Relaxed);
        })?;
        // INVARIANT: Counted just above, and here.
        self.count(more);
        self.amount.fetch_add(more, Relaxed);
        Ok(())
    }

    fn count(&self, more: i64) {
        if self.what == What::Page {
            self.account.count(more);
        }
    }

    /// Ends it early: somebody else pays from now on.
    pub(crate) fn forgive(&self) {
        let amount = self.amount.xchg(0, Full);
        self.count(-amount);
        TOTALS.of(self.what).fetch_sub(amount, Relaxed);
        let user = self.account.user().has.of(self.what);
        user.fetch_sub(amount, Relaxed);
    }

    /// Whether it is on `account`.
    pub(crate) fn is_on(&self, account: &Arc<Account>) -> bool {
        Arc::ptr_eq(&self.account, account)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.forgive();
    }
}
