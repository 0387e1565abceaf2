// SPDX-License-Identifier: GPL-2.0

//! Where a region's blank pages come from, and where its pages go: its pool, replaced
//! pages whose wait is over, and the kernel. All are on one account.
//!
//! Context: process; [`Supply::blank`] may sleep.
//! Owner: the region.

use kernel::{current, prelude::*, sync::Arc};

use crate::{
    counters::Counter,
    page::{Blank, Effort, Version},
    pool::{self, Pool},
    user::Account,
    waiting::Waiting,
};

/// The pages of one region that have no place in it, yet or any more.
#[pin_data]
pub(crate) struct Supply {
    /// Who pays.
    pub(crate) account: Arc<Account>,
    /// Blank pages.
    pub(crate) pool: Pool,
    /// Replaced ones.
    #[pin]
    pub(crate) waiting: Waiting,
    /// How many of these were given back.
    pub(crate) freed: Counter,
}

impl Supply {
    /// None, on `account`. It keeps pages only where any are replaced. Fails with
    /// `ENOMEM`.
    pub(crate) fn new(account: Arc<Account>, replaces: bool) -> Result<impl PinInit<Self>> {
        let pool = match replaces {
            true => Pool::new(&account)?,
            false => Pool::none(),
        };
        Ok(pin_init!(Supply {
            account,
            pool,
            waiting <- Waiting::new(),
            freed: Counter::default(),
        }))
    }

    /// A blank page without an allocation: from the pool, or one that has
    /// waited long enough.
    pub(crate) fn spare_blank(&self) -> Option<Blank> {
        self.pool.take().or_else(|| self.ripe_blank())
    }

    /// A blank page, kept or newly allocated. Fails with `ENOMEM` or `EDQUOT`,
    /// but not for the sake of pages that the user's regions keep.
    pub(crate) fn blank(&self) -> Result<Blank> {
        if let Some(blank) = self.spare_blank() {
            return Ok(blank);
        }
        if self.account.is_homeless() {
            // Who only publishes into a region need not map it.
            if let Some(mm) = current!().mm() {
                self.account.move_to((&**mm).into());
            }
        }
        Blank::new(&self.account, Effort::Little).or_else(|_| {
            pool::trim(self.account.user());
            Blank::new(&self.account, Effort::Full)
        })
    }

    /// Keeps the page of `version` for later, as `prepare` leaves it, or frees
    /// it. Another's page, that a clone shared, goes back to its own account.
    ///
    /// # Safety
    ///
    /// As for [`Blank::recycle`].
    pub(crate) unsafe fn take_back(&self, version: Arc<Version>, prepare: impl FnOnce(&mut Blank)) {
        if !self.pool.has_room() || !version.is_on(&self.account) {
            return;
        }
        // SAFETY: By this function's contract.
        if let Some(mut blank) = unsafe { Blank::recycle(version) } {
            prepare(&mut blank);
            self.pool.keep(blank);
        }
    }

    /// A blank page of one whose wait is over.
    fn ripe_blank(&self) -> Option<Blank> {
        loop {
            let version = self.waiting.take()?;
            self.freed.add(1);
            if !version.is_on(&self.account) {
                continue;
            }
            // SAFETY: Its wait is over.
            if let Some(blank) = unsafe { Blank::recycle(version) } {
                return Some(blank);
            }
        }
    }
}
