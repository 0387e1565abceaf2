// SPDX-License-Identifier: GPL-2.0

//! One version of one page of code: its memory, and who may still write it.
//!
//! A [`Blank`] is private to the module and may be written. Turned into an
//! [`Arc<Version>`] it is shared and never written again (rule R1), with one
//! exception: an [`Unseen`] one, to which no page-table entry has ever pointed.
//! It is read through a [`Still`], which says why nobody writes it meanwhile.
//!
//! Context: allocation sleeps; everything else runs anywhere. No locks here.

use core::{mem::ManuallyDrop, ops::Range, ptr::NonNull};

use kernel::{
    bindings,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Relaxed, Release},
        Arc, UniqueArc,
    },
};

use crate::{
    ffi,
    plan::{
        abi::{FILL, PAGE_SIZE},
        ledger::Ticket,
    },
    source::Source,
    user::{Account, Charge, What},
};

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// One version of one page.
///
/// # Invariants
///
/// * `page` is an order-0 page that this object owns, and `data` its address.
/// * Once it is shared, bytes from `used` on are 0xCC.
/// * Once `seen` is set, nobody writes it until it has one owner again.
pub(crate) struct Version {
    page: NonNull<bindings::page>,
    data: NonNull<u8>,
    used: Atomic<usize>,
    seen: Atomic<bool>,
    /// Of the last publication that replaced a version of this page which a CPU
    /// had used.
    replaced: Atomic<Ticket>,
    /// A clone has it too, and has paid for it.
    shared: Atomic<bool>,
    charge: Charge,
}

// SAFETY: The page is plain memory; who reads or writes it, and when, is said by
// `Still`, `Unseen` and `Blank`.
unsafe impl Send for Version {}
// SAFETY: As above.
unsafe impl Sync for Version {}

impl Version {
    fn data(&self) -> *mut u8 {
        self.data.as_ptr()
    }

    /// The page frame number, for a page-table entry.
    pub(crate) fn pfn(&self) -> usize {
        // SAFETY: By the type invariants the page is valid.
        unsafe { ffi::jit_page_pfn(self.page.as_ptr()) }
    }

    /// Whether it is on `account`: a page that two regions share may be on
    /// another's.
    pub(crate) fn is_on(&self, account: &Arc<Account>) -> bool {
        self.charge.is_on(account)
    }

    /// From now on a clone has it too.
    pub(crate) fn set_shared(&self) {
        self.set_seen();
        self.shared.store(true, Relaxed);
    }

    /// The region with `account` gives it up. If it was paid from there, and
    /// others go on using it, they have paid too.
    pub(crate) fn give_up(&self, account: &Arc<Account>) {
        if self.shared.load(Relaxed) && self.is_on(account) {
            self.charge.forgive();
        }
    }

    /// Whether a page-table entry may point, or have pointed, here.
    pub(crate) fn is_seen(&self) -> bool {
        self.seen.load(Acquire)
    }

    /// To be called before the first page-table entry is written: under the lock
    /// of the page's slot, or while only the caller knows the version.
    pub(crate) fn set_seen(&self) {
        self.seen.store(true, Release);
    }

    /// The last ticket under which an older version of this page was retired.
    pub(crate) fn replaced(&self) -> Ticket {
        self.replaced.load(Relaxed)
    }

    /// Notes it. The region's turn is held.
    pub(crate) fn set_replaced(&self, ticket: Ticket) {
        self.replaced.store(ticket, Relaxed);
    }
}

impl Drop for Version {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the page is ours; nothing maps it, as
        // whoever mapped it has kept a reference until all TLBs were flushed.
        unsafe { bindings::__free_pages(self.page.as_ptr(), 0) };
    }
}

/// A version that was taken out of its slot, while page-table entries or TLBs may
/// still have it. One that is dropped is never freed.
#[must_use]
pub(crate) struct Replaced(ManuallyDrop<Arc<Version>>);

impl Replaced {
    /// What a slot gives up.
    pub(crate) fn new(version: Arc<Version>) -> Self {
        Replaced(ManuallyDrop::new(version))
    }

    /// The version.
    pub(crate) fn version(&self) -> &Version {
        &self.0
    }

    /// The version, which may be freed from now on.
    ///
    /// # Safety
    ///
    /// No page-table entry points to it and no TLB holds one that did.
    pub(crate) unsafe fn release(self) -> Arc<Version> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: It is taken once: `this` is not dropped.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        pr_warn!("a replaced page is lost\n");
    }
}

/// A version that nobody writes as long as this lives.
///
/// # Invariants
///
/// The version is seen, or the lock of its page's slot is held.
#[derive(Clone, Copy)]
pub(crate) struct Still<'a>(&'a Version);

impl<'a> Still<'a> {
    /// A version that is seen.
    pub(crate) fn seen(version: &'a Version) -> Option<Self> {
        // INVARIANT: Just checked; it stays seen while it is shared.
        version.is_seen().then_some(Still(version))
    }

    /// A version in its slot.
    ///
    /// # Safety
    ///
    /// The lock of the page's slot is held as long as the result lives.
    pub(crate) unsafe fn in_slot(version: &'a Version) -> Self {
        // INVARIANT: By this function's contract.
        Still(version)
    }

    /// Copies bytes out. Nothing is copied if the range is not on the page.
    pub(crate) fn read(self, offset: usize, out: &mut [u8]) {
        if offset.saturating_add(out.len()) > PAGE_SIZE {
            return;
        }
        // SAFETY: The range is on the page, which is the version's; nobody
        // writes it, by the type invariants.
        unsafe {
            self.0
                .data()
                .add(offset)
                .copy_to(out.as_mut_ptr(), out.len())
        };
    }

    /// One byte.
    pub(crate) fn byte(self, offset: usize) -> u8 {
        let mut byte = [FILL];
        self.read(offset, &mut byte);
        byte[0]
    }
}

/// A version that only its holder reads and writes.
///
/// # Invariants
///
/// No page-table entry has ever pointed to the version, and the lock of its
/// page's slot is held.
pub(crate) struct Unseen<'a>(&'a Version);

impl<'a> Unseen<'a> {
    /// A version in its slot, if it is unseen.
    ///
    /// # Safety
    ///
    /// The lock of the page's slot is held as long as the result lives.
    pub(crate) unsafe fn in_slot(version: &'a Version) -> Option<Self> {
        // INVARIANT: By this function's contract; `seen` is set under the lock.
        (!version.is_seen()).then_some(Unseen(version))
    }

    /// Writes bytes. Nothing is written if the range is not on the page.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset.saturating_add(bytes.len());
        if end > PAGE_SIZE {
            return;
        }
        // SAFETY: The range is on the page, which is the version's. Nobody else
        // reads or writes it, by the type invariants.
        unsafe {
            bytes
                .as_ptr()
                .copy_to(self.0.data().add(offset), bytes.len())
        };
        let used = &self.0.used;
        used.store(end.max(used.load(Relaxed)), Relaxed);
    }
}

/// How far an allocation goes. It never has anybody killed.
#[derive(Clone, Copy)]
pub(crate) enum Effort {
    /// It fails where more would have to be given up for it.
    Little,
    /// It fails only if there is nothing left to give up.
    Full,
}

impl Effort {
    const fn flags(self) -> u32 {
        match self {
            Effort::Little => ffi::CHARGED_LIGHTLY_RAW,
            Effort::Full => ffi::CHARGED_RAW,
        }
    }
}

/// A version that only its holder knows.
///
/// # Invariants
///
/// * No page-table entry points to it and no TLB holds one that did.
/// * Bytes `0..used` are written; of the others, those from `dirty` on are 0xCC.
pub(crate) struct Blank {
    version: Pin<UniqueArc<Version>>,
    used: usize,
    dirty: usize,
}

impl Blank {
    /// Allocates a page, charged to the caller's memory cgroup and to `account`.
    /// Fails with `ENOMEM` or `EDQUOT`.
    pub(crate) fn new(account: &Arc<Account>, effort: Effort) -> Result<Self> {
        let charge = Charge::new(account, What::Page, 1)?;
        // SAFETY: No requirement but a context that may sleep.
        let page = unsafe { bindings::alloc_pages(effort.flags(), 0) };
        let page = NonNull::new(page).ok_or(ENOMEM)?;
        // SAFETY: The page is valid; it is not high memory.
        let data = NonNull::new(unsafe { ffi::jit_page_address(page.as_ptr()) }.cast());
        // INVARIANT: The page is ours, and so is its address.
        let version = Version {
            page,
            data: data.unwrap_or(NonNull::dangling()),
            used: Atomic::new(0),
            seen: Atomic::new(false),
            replaced: Atomic::new(0),
            shared: Atomic::new(false),
            charge,
        };
        // INVARIANT: Nobody has seen it yet; all of it may be anything.
        Ok(Blank {
            version: UniqueArc::new(version, ffi::CHARGED)?.into(),
            used: 0,
            dirty: PAGE_SIZE,
        })
    }

    /// Makes a blank of a version that was retired, if nobody else holds it.
    ///
    /// # Safety
    ///
    /// If nobody else holds it, no page-table entry points to it and no TLB
    /// holds one that did.
    pub(crate) unsafe fn recycle(version: Arc<Version>) -> Option<Self> {
        // What was shared may not be paid for any more.
        if version.shared.load(Relaxed) {
            return None;
        }
        let version = Arc::into_unique_or_drop(version)?;
        version.seen.store(false, Relaxed);
        version.replaced.store(0, Relaxed);
        // INVARIANT: By the contract of this function, and of `Version::used`.
        Some(Blank {
            used: 0,
            dirty: version.used.load(Relaxed),
            version,
        })
    }

    /// Forgets what is written.
    pub(crate) fn reset(&mut self) {
        // INVARIANT: What was written is not 0xCC.
        self.dirty = self.dirty.max(self.used);
        self.used = 0;
    }

    /// What is written.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `used` bytes of the page, which is the version's, are
        // written by the type invariants; we hold the only reference.
        unsafe { core::slice::from_raw_parts(self.version.data(), self.used) }
    }

    /// Copies what `old` has published. To be called first.
    pub(crate) fn copy_from(&mut self, old: Still<'_>) {
        let used = old.0.used.load(Relaxed);
        let (from, to) = (old.0.data().cast(), self.version.data().cast());
        // SAFETY: Both pages are owned by their objects and are not the same;
        // `used` rounded up to words is on the page. Nobody writes `old`.
        unsafe { ffi::jit_copy_words(to, from, used.div_ceil(WORD)) };
        self.used = used;
    }

    /// Writes bytes.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset.saturating_add(bytes.len());
        if end > PAGE_SIZE {
            return;
        }
        self.fill_up_to(offset);
        // SAFETY: The range is on the page, which is ours by the type
        // invariants of the version; we hold the only reference.
        unsafe {
            bytes
                .as_ptr()
                .copy_to(self.version.data().add(offset), bytes.len())
        };
        self.used = end.max(self.used);
    }

    /// Adds bytes from userspace behind what is written, as many as are left or
    /// fit. Returns how many. Fails with `EFAULT`.
    pub(crate) fn read_in(&mut self, source: &mut Source) -> Result<usize> {
        let len = source.left().min(PAGE_SIZE - self.used);
        // INVARIANT: It may fail half-way.
        self.dirty = self.dirty.max(self.used + len);
        // SAFETY: The range is on the page, which is ours by the type
        // invariants of the version; we hold the only reference.
        unsafe { source.read(self.version.data().add(self.used), len)? };
        self.used += len;
        Ok(len)
    }

    /// Makes all of it 0xCC, so that what is written next is all that is. Also
    /// what is 0xCC already: an emulator gives up the code that it translated
    /// only where it sees a store, and until then each store is slow.
    pub(crate) fn fill_all(&mut self) {
        self.used = 0;
        self.dirty = PAGE_SIZE;
        self.fill_up_to(PAGE_SIZE);
        // INVARIANT: Nothing is written, and everything was just filled.
        self.dirty = 0;
    }

    /// Makes bytes from `used` to `offset` 0xCC, where they may not be.
    fn fill_up_to(&mut self, offset: usize) {
        let end = offset.min(self.dirty);
        if self.used >= end {
            return;
        }
        let words = self.used.next_multiple_of(WORD)..end / WORD * WORD;
        if words.is_empty() {
            return self.fill(self.used..end);
        }
        self.fill(self.used..words.start);
        self.fill(words.end..end);
        // SAFETY: The range is on the page and aligned to words; we hold the
        // only reference.
        unsafe {
            let to = self.version.data().add(words.start).cast();
            ffi::jit_fill_words(to, u64::from_ne_bytes([FILL; WORD]), words.len() / WORD);
        }
    }

    /// Makes a few bytes 0xCC.
    fn fill(&mut self, range: Range<usize>) {
        // SAFETY: The callers name ranges of the page; we hold the only
        // reference.
        unsafe {
            let to = self.version.data().add(range.start);
            to.write_bytes(FILL, range.len());
        }
    }

    /// Shares it.
    pub(crate) fn into_version(mut self) -> Arc<Version> {
        // INVARIANT: What is not written is 0xCC now.
        self.fill_up_to(PAGE_SIZE);
        self.version.used.store(self.used, Relaxed);
        self.version.into()
    }
}
