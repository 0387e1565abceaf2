// SPDX-License-Identifier: GPL-2.0

//! One version of one page of code: its memory, and who may still write it.
//!
//! A [`Blank`] is private to the module and may be written. Turned into an
//! [`Arc<Version>`] it is shared and never written again (rule R1), with one
//! exception: [`Version::write_unseen`], while no page-table entry has ever
//! pointed to it.
//!
//! Context: allocation sleeps; everything else runs anywhere. No locks here.

use core::ptr::NonNull;

use kernel::{
    bindings,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, UniqueArc,
    },
};

use crate::{
    ffi,
    plan::abi::{FILL, PAGE_SIZE},
    user::{Charge, User, What},
};

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// One version of one page.
///
/// # Invariants
///
/// * `page` is an order-0 page that this object owns, and `data` its address.
/// * Once it is shared, bytes from `used` on are 0xCC.
pub(crate) struct Version {
    page: NonNull<bindings::page>,
    data: NonNull<u8>,
    used: Atomic<usize>,
    seen: Atomic<bool>,
    charge: Charge,
}

// SAFETY: The page is plain memory; who writes it, and when, is said on each
// method.
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

    /// Whether it is on the account of `user`: a page that two regions share may
    /// be on another's.
    pub(crate) fn is_charged_to(&self, user: &Arc<User>) -> bool {
        self.charge.is_to(user)
    }

    /// Whether a page-table entry may point, or have pointed, here.
    pub(crate) fn is_seen(&self) -> bool {
        self.seen.load(Relaxed)
    }

    /// To be called under the lock of the page's slot, before the first
    /// page-table entry is written.
    pub(crate) fn set_seen(&self) {
        self.seen.store(true, Relaxed);
    }

    /// Copies bytes out. Nothing is copied if the range is not on the page.
    ///
    /// The caller holds the lock of the page's slot, or knows that the version
    /// is seen: then nobody writes it.
    pub(crate) fn read(&self, offset: usize, out: &mut [u8]) {
        if offset.saturating_add(out.len()) > PAGE_SIZE {
            return;
        }
        // SAFETY: The range is on the page, which is ours by the type
        // invariants; nobody writes it, by this method's contract.
        unsafe { self.data().add(offset).copy_to(out.as_mut_ptr(), out.len()) };
    }

    /// One byte; see [`Version::read`].
    pub(crate) fn byte(&self, offset: usize) -> u8 {
        let mut byte = [FILL];
        self.read(offset, &mut byte);
        byte[0]
    }

    /// Writes bytes of a version that is not seen.
    ///
    /// The caller holds the lock of the page's slot and has checked
    /// [`Version::is_seen`] under it.
    pub(crate) fn write_unseen(&self, offset: usize, bytes: &[u8]) {
        let end = offset.saturating_add(bytes.len());
        if end > PAGE_SIZE {
            return;
        }
        // SAFETY: The range is on the page, which is ours by the type
        // invariants. By this method's contract nobody else reads or writes.
        unsafe { bytes.as_ptr().copy_to(self.data().add(offset), bytes.len()) };
        self.used.store(end.max(self.used.load(Relaxed)), Relaxed);
    }
}

impl Drop for Version {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the page is ours; nothing maps it, as
        // whoever mapped it has kept a reference until all TLBs were flushed.
        unsafe { bindings::__free_pages(self.page.as_ptr(), 0) };
    }
}

/// How far an allocation goes.
#[derive(Clone, Copy)]
pub(crate) enum Effort {
    /// It fails where others would have to be killed for it.
    Little,
    /// As any other.
    Full,
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
    /// Allocates a page, charged to the caller's memory cgroup and to `user`.
    /// Fails with `ENOMEM` or `EDQUOT`.
    pub(crate) fn new(user: &Arc<User>, effort: Effort) -> Result<Self> {
        let charge = Charge::new(user, What::Page, 1)?;
        let flags = bindings::GFP_KERNEL_ACCOUNT
            | match effort {
                Effort::Little => (1 << bindings::___GFP_NORETRY_BIT) | bindings::__GFP_NOWARN,
                Effort::Full => 0,
            };
        // SAFETY: No requirement but a context that may sleep.
        let page = unsafe { bindings::alloc_pages(flags, 0) };
        let page = NonNull::new(page).ok_or(ENOMEM)?;
        // SAFETY: The page is valid; it is not high memory.
        let data = NonNull::new(unsafe { ffi::jit_page_address(page.as_ptr()) }.cast());
        // INVARIANT: The page is ours, and so is its address.
        let version = Version {
            page,
            data: data.unwrap_or(NonNull::dangling()),
            used: Atomic::new(0),
            seen: Atomic::new(false),
            charge,
        };
        // INVARIANT: Nobody has seen it yet; all of it may be anything.
        Ok(Blank {
            version: UniqueArc::new(version, GFP_KERNEL_ACCOUNT)?.into(),
            used: 0,
            dirty: PAGE_SIZE,
        })
    }

    /// Makes a blank of a version that was retired, if nobody else holds it.
    ///
    /// The caller knows that no page-table entry points to it and no TLB holds
    /// one that did.
    pub(crate) fn recycle(version: Arc<Version>) -> Option<Self> {
        let version = Arc::into_unique_or_drop(version)?;
        version.seen.store(false, Relaxed);
        // INVARIANT: By the contract of this function, and of `Version::used`.
        Some(Blank {
            used: 0,
            dirty: version.used.load(Relaxed),
            version,
        })
    }

    /// Copies what `old` has published. `old` must be seen, so that nobody
    /// writes it. To be called first.
    pub(crate) fn copy_from(&mut self, old: &Version) {
        let used = old.used.load(Relaxed);
        let (from, to) = (old.data().cast(), self.version.data().cast());
        // SAFETY: Both pages are owned by their objects and are not the same;
        // `used` rounded up to words is on the page.
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

    /// Makes all of it 0xCC, so that what is written next is all that is. Also
    /// what is 0xCC already: an emulator gives up the code that it translated
    /// only where it sees a store, and until then each store is slow.
    pub(crate) fn fill_all(&mut self) {
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
    fn fill(&mut self, range: core::ops::Range<usize>) {
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
