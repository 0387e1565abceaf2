// SPDX-License-Identifier: GPL-2.0

//! The authoritative copy of a region: the newest version of each of its
//! pages.
//!
//! Lock order: the slot lock is a spinlock, innermost but for page table locks
//! (the fault path installs an entry under it, so that it can't install a
//! version which a publication has just replaced). It is taken in process
//! context and by the #BP handler, which interrupts user mode only and so
//! never code that holds it.

use kernel::{
    alloc::{KVVec, KVec},
    prelude::*,
    sync::{new_spinlock, Arc, SpinLock},
};

use crate::{
    page::Version,
    plan::{
        abi::{FILL, PAGE_SIZE},
        lifecycle::PageState,
    },
};

type Slot = Option<Arc<Version>>;

/// The pages of one region.
#[pin_data]
pub(crate) struct Pages {
    #[pin]
    slots: SpinLock<KVVec<Slot>>,
}

/// What the world can have seen of a page whose newest version is `version`.
pub(crate) fn state_of(version: Option<&Version>) -> PageState {
    match version {
        None => PageState::Absent,
        Some(version) if version.is_seen() => PageState::Live,
        Some(_) => PageState::Unseen,
    }
}

/// Splits an offset into a page and an offset in it.
fn locate(offset: u64) -> (usize, usize) {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    (offset / PAGE_SIZE, offset % PAGE_SIZE)
}

impl Pages {
    /// The memory that `count` pages take here, in pages.
    pub(crate) const fn memory(count: usize) -> usize {
        count * size_of::<Slot>() / PAGE_SIZE
    }

    /// `count` pages, all absent.
    pub(crate) fn new(count: usize) -> Result<impl PinInit<Self>> {
        let mut slots: KVVec<Slot> = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..count {
            slots.push(None, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(pin_init!(Self {
            slots <- new_spinlock!(slots, "jit_slots"),
        }))
    }

    /// The newest version of `page`. Only a publication, of which there is one
    /// at a time, changes it.
    pub(crate) fn get(&self, page: usize) -> Slot {
        self.slots.lock().get(page).and_then(Clone::clone)
    }

    /// Makes `version` the newest of `page` (rule R4: before any page-table
    /// entry) and returns the one before.
    pub(crate) fn put(&self, page: usize, version: Arc<Version>) -> Slot {
        match self.slots.lock().get_mut(page) {
            Some(slot) => slot.replace(version),
            None => None,
        }
    }

    /// Calls `write` with the version of `page` if no page-table entry can
    /// point to it, and keeps it so meanwhile. Says whether it did.
    pub(crate) fn write_unseen(&self, page: usize, write: impl FnOnce(&Version)) -> bool {
        let slots = self.slots.lock();
        match slots.get(page).and_then(Option::as_ref) {
            Some(version) if !version.is_seen() => {
                write(version);
                true
            }
            _ => false,
        }
    }

    /// Calls `use_it` with the state of `page` and its newest version, which
    /// stays the newest meanwhile. `use_it` must not sleep.
    pub(crate) fn with<R>(
        &self,
        page: usize,
        use_it: impl FnOnce(PageState, Option<&Version>) -> R,
    ) -> R {
        let slots = self.slots.lock();
        let version = slots.get(page).and_then(Option::as_deref);
        use_it(state_of(version), version)
    }

    /// The authoritative byte at `offset`, `None` where nothing is published.
    pub(crate) fn byte(&self, offset: u64) -> Option<u8> {
        let (page, in_page) = locate(offset);
        self.with(page, |_, version| {
            version.map(|version| version.byte(in_page))
        })
    }

    /// Copies authoritative bytes, 0xCC where nothing is published.
    pub(crate) fn read(&self, mut offset: u64, mut out: &mut [u8]) {
        while !out.is_empty() {
            let (page, in_page) = locate(offset);
            let (now, later) = out.split_at_mut(out.len().min(PAGE_SIZE - in_page));
            self.with(page, |_, version| match version {
                Some(version) => version.read(in_page, now),
                None => now.fill(FILL),
            });
            offset = offset.saturating_add(now.len() as u64);
            out = later;
        }
    }

    /// Shares the versions of `pages` with another region: each becomes seen,
    /// so that neither region writes it. Adds them to `out`, which has room.
    pub(crate) fn share(
        &self,
        pages: core::ops::Range<usize>,
        out: &mut KVec<(usize, Arc<Version>)>,
    ) {
        let slots = self.slots.lock();
        for page in pages {
            if let Some(version) = slots.get(page).and_then(Option::as_ref) {
                version.set_seen();
                let _ = out.push_within_capacity((page, version.clone()));
            }
        }
    }
}
