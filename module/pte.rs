// SPDX-License-Identifier: GPL-2.0

//! The only code that writes page-table entries: the swap of a publication,
//! and the installation by a fault.
//!
//! Lock order: `i_mmap_rwsem` (swap) or the faulting VMA's lock and the slot
//! lock (fault) → page table lock.

use kernel::{
    bindings,
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

use crate::{
    ffi,
    file_mapping::{Locked, VmaInTree},
    page::Version,
    plan::{abi::PAGE_SIZE, lifecycle::Swapped},
    tlb::Cpus,
};

/// Whether an entry whose Accessed bit is clear was never cached.
static TRUSTS_ACCESSED: Atomic<bool> = Atomic::new(false);

/// Looks at the CPU, once.
pub(crate) fn init() {
    TRUSTS_ACCESSED.store(ffi::accessed_is_promised(), Relaxed);
}

fn trusts_accessed() -> bool {
    TRUSTS_ACCESSED.load(Relaxed)
}

/// One page-table entry, locked.
struct Entry {
    vma: *mut bindings::vm_area_struct,
    addr: usize,
    pte: *mut bindings::pte_t,
    ptl: *mut bindings::spinlock_t,
}

impl Entry {
    /// Locks the entry of `addr`. `None` where no page table exists.
    ///
    /// # Safety
    ///
    /// `addr` is in `vma`, and `vma` keeps its page tables until the result is
    /// dropped.
    unsafe fn lock(vma: *mut bindings::vm_area_struct, addr: usize) -> Option<Self> {
        let mut ptl = core::ptr::null_mut();
        // SAFETY: By this function's contract.
        let pte = unsafe { ffi::jit_pte_lock(vma, addr, &mut ptl) };
        // Lazily: an `Entry` that is dropped unlocks.
        (!pte.is_null()).then(|| Entry {
            vma,
            addr,
            pte,
            ptl,
        })
    }

    fn is_present(&self) -> bool {
        // SAFETY: The entry is locked.
        unsafe { ffi::jit_pte_is_present(self.pte) }
    }

    fn is_none(&self) -> bool {
        // SAFETY: The entry is locked.
        unsafe { ffi::jit_pte_is_none(self.pte) }
    }

    fn points_to(&self, version: &Version) -> bool {
        // SAFETY: The entry is locked.
        unsafe { ffi::jit_pte_points_to(self.pte, version.pfn()) }
    }

    /// Points the entry to `version`; says whether a CPU may have used it before.
    fn exchange(&self, version: &Version) -> bool {
        // SAFETY: The entry is locked and belongs to `vma`. The page outlives
        // the entry: whoever replaces it frees it after all TLBs are flushed.
        let found = unsafe { ffi::jit_pte_exchange(self.vma, self.addr, self.pte, version.pfn()) };
        found & ffi::PTE_PRESENT != 0 && (found & ffi::PTE_ACCESSED != 0 || !trusts_accessed())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // SAFETY: Locked by `Entry::lock`.
        unsafe { ffi::jit_pte_unlock(self.ptl) };
    }
}

/// Points every entry of page `pgoff` to `version`, without a flush, and adds
/// the CPUs that may still hold an old entry to `cpus`.
///
/// # Safety
///
/// `version` is in the slot of that page, and seen. The one that was there is kept
/// until `cpus` have flushed.
pub(crate) unsafe fn swap_everywhere(
    space: &Locked<'_>,
    pgoff: usize,
    version: &Version,
    cpus: &mut Cpus,
) -> Swapped {
    let mut swapped = Swapped::default();
    space.for_each_vma_of(pgoff, |vma| {
        if let Some(addr) = vma.address_of(pgoff) {
            let accessed = swap_one(vma, addr, version, &mut swapped);
            if accessed {
                // SAFETY: The address space lives while its VMA is in the tree.
                swapped.accessed |= unsafe { cpus.add_mm(vma.mm().as_raw()) };
            }
        }
    });
    swapped
}

fn swap_one(vma: &VmaInTree<'_>, addr: usize, version: &Version, swapped: &mut Swapped) -> bool {
    // SAFETY: `addr` is in the VMA, which keeps its tables while in the tree.
    let entry = unsafe { Entry::lock(vma.as_ptr(), addr) };
    match entry {
        // A fault was faster. Its Accessed bit is kept: it tells the next
        // publication whether this version was cached.
        Some(entry) if entry.points_to(version) => false,
        Some(entry) if entry.is_present() => {
            swapped.entries += 1;
            let accessed = entry.exchange(version);
            // After the exchange, under the lock: who has read the old entry
            // to mirror it has registered before.
            // SAFETY: The VMA is in the tree, so its mm is valid.
            let mirrored = unsafe { ffi::jit_mm_has_notifiers(vma.mm().as_raw()) };
            drop(entry);
            if mirrored {
                zap_one(vma, addr);
            }
            accessed
        }
        entry => may_be_unflushed(vma, entry),
    }
}

/// There is no entry; but one may have been removed a moment ago, and not be
/// flushed yet.
fn may_be_unflushed(vma: &VmaInTree<'_>, _locked: Option<Entry>) -> bool {
    // SAFETY: The address space lives while its VMA is in the tree.
    unsafe { ffi::jit_mm_flush_pending(vma.mm().as_raw()) }
}

/// A secondary MMU (KVM) mirrors this address space and must be told before the
/// old page goes away, which modules can only do by removing the entry, flush
/// and all. The next access faults the new version in.
fn zap_one(vma: &VmaInTree<'_>, addr: usize) {
    // SAFETY: `addr` is in the VMA, which is VM_PFNMAP and in the tree, as for
    // the kernel's own `unmap_mapping_range()`.
    unsafe { ffi::zap_special_vma_range(vma.as_ptr(), addr, PAGE_SIZE) };
}

/// The outcome of [`install`].
pub(crate) enum Installed {
    /// The entry is there.
    Done,
    /// There is no page table: call [`make_table`], then again.
    NoTable,
}

/// Maps `version` at `addr`, unless something is mapped there already.
///
/// # Safety
///
/// Called from the fault handler of `vma` for `addr`, under the slot lock.
pub(crate) unsafe fn install(
    vma: *mut bindings::vm_area_struct,
    addr: usize,
    version: &Version,
) -> Installed {
    // SAFETY: The fault handler runs under the VMA's lock.
    let Some(entry) = (unsafe { Entry::lock(vma, addr) }) else {
        return Installed::NoTable;
    };
    if entry.is_none() {
        version.set_seen();
        entry.exchange(version);
    }
    Installed::Done
}

/// Makes the page table that `addr` needs. May sleep; takes no lock of ours.
///
/// # Safety
///
/// Called from the fault handler of `vma` for `addr`.
pub(crate) unsafe fn make_table(vma: *mut bindings::vm_area_struct, addr: usize) -> Result {
    // SAFETY: The VMA is locked by the fault, so its mm is valid.
    kernel::error::to_result(unsafe {
        bindings::apply_to_page_range(
            (*vma).vm_mm,
            addr,
            PAGE_SIZE,
            Some(leave_alone),
            core::ptr::null_mut(),
        )
    })
}

/// # Safety
///
/// Called by `apply_to_page_range()`.
unsafe extern "C" fn leave_alone(_: *mut bindings::pte_t, _: c_ulong, _: *mut c_void) -> c_int {
    0
}
