// SPDX-License-Identifier: GPL-2.0

//! Per-user bounds: how many pages of code and how many regions one user may
//! have, whatever processes and descriptors they hang on.
//!
//! Lock order: `USERS` is innermost; it is held for a short list walk and an
//! allocation, and may be taken wherever sleeping is allowed.
//! Owner: each [`Region`](crate::region::Region) and each
//! [`Version`](crate::page::Version) holds a [`Charge`].

use kernel::{
    alloc::KVec,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        global_lock, Arc,
    },
    task::Kuid,
};

use crate::{error, module_parameters};

global_lock! {
    // SAFETY: Initialised by `init`, which the module's init calls first.
    unsafe(uninit) static USERS: Mutex<KVec<Arc<User>>> = KVec::new();
}

/// To be called once, before any region exists.
pub(crate) fn init() {
    // SAFETY: The module's init calls this exactly once.
    unsafe { USERS.init() };
}

/// Drops the list. To be called when no region exists any more.
pub(crate) fn exit() {
    *USERS.lock() = KVec::new();
}

/// What one user has.
pub(crate) struct User {
    uid: Kuid,
    pages: Atomic<i64>,
    regions: Atomic<i64>,
}

impl User {
    /// The caller's account, with a charge on it: one without any is forgotten
    /// as soon as another user comes.
    pub(crate) fn charged(what: What) -> Result<(Arc<User>, Charge)> {
        let mut users = USERS.lock();
        let user = User::current(&mut users)?;
        let charge = Charge::new(&user, what, 1)?;
        Ok((user, charge))
    }

    fn current(users: &mut KVec<Arc<User>>) -> Result<Arc<User>> {
        let uid = Kuid::current_euid();
        users.retain(|user| user.uid == uid || user.is_in_use());
        if let Some(user) = users.iter().find(|user| user.uid == uid) {
            return Ok(user.clone());
        }
        let user = Arc::new(
            User {
                uid,
                pages: Atomic::new(0),
                regions: Atomic::new(0),
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        users.push(user.clone(), GFP_KERNEL_ACCOUNT)?;
        Ok(user)
    }

    fn is_in_use(&self) -> bool {
        self.pages.load(Relaxed) != 0 || self.regions.load(Relaxed) != 0
    }

    fn counter(&self, what: What) -> (&Atomic<i64>, i64) {
        match what {
            What::Page => (&self.pages, module_parameters::user_pages.value()),
            What::Region => (&self.regions, module_parameters::user_regions.value()),
        }
    }
}

/// What is bounded.
#[derive(Clone, Copy)]
pub(crate) enum What {
    /// A page of code, current or waiting to be freed.
    Page,
    /// A region, or the result of one `JIT_CREATE_CODE`.
    Region,
}

/// Pages or regions on a user's account.
///
/// # Invariants
///
/// The account's counter includes this charge.
pub(crate) struct Charge {
    user: Arc<User>,
    what: What,
    amount: i64,
}

impl Charge {
    /// Charges `user`, or fails with `EDQUOT`.
    pub(crate) fn new(user: &Arc<User>, what: What, amount: usize) -> Result<Self> {
        let mut charge = Charge {
            user: user.clone(),
            what,
            amount: 0,
        };
        charge.grow_to(amount)?;
        Ok(charge)
    }

    /// Makes it at least `amount`, or fails with `EDQUOT`.
    pub(crate) fn grow_to(&mut self, amount: usize) -> Result {
        let more = i64::try_from(amount)? - self.amount;
        if more <= 0 {
            return Ok(());
        }
        let (counter, bound) = self.user.counter(self.what);
        if counter.fetch_add(more, Relaxed) > bound - more {
            counter.fetch_sub(more, Relaxed);
            return Err(error::quota());
        }
        // INVARIANT: Counted just above.
        self.amount += more;
        Ok(())
    }

    /// Whether it is on the account of `user`.
    pub(crate) fn is_to(&self, user: &Arc<User>) -> bool {
        Arc::ptr_eq(&self.user, user)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.user
            .counter(self.what)
            .0
            .fetch_sub(self.amount, Relaxed);
    }
}
