// SPDX-License-Identifier: GPL-2.0

//! The mappings of one open `/dev/jit` file, in every process, found the way
//! rmap finds them: through an `address_space` of the file's own, whose
//! `i_mmap` tree the kernel keeps on mmap, fork, split, mremap and munmap.
//!
//! This is what lets a publication reach other processes without their
//! mmap_lock. While `i_mmap_rwsem` is held, no VMA in the tree goes away and
//! neither do its page tables; since the VMAs are VM_PFNMAP, munmap() flushes
//! the TLBs before it takes one out of the tree (`tlb_free_vmas()`; between its
//! clearing of an entry and that flush, `mm_tlb_flush_pending()` holds); and
//! fork() and mremap() put the new VMA behind the old one, so that a walk in
//! tree order meets every entry.
//!
//! Lock order: mmap_lock → `i_mmap_rwsem` → page table lock. What the kernel
//! does under `i_mmap_rwsem` of this private mapping is short and never waits
//! for userspace, so no process can hold up another's publication.

use core::ptr::{addr_of, addr_of_mut};

use kernel::{
    bindings,
    mm::Mm,
    prelude::*,
    sync::{aref::ARef, Arc},
    types::Opaque,
};

use crate::{ffi, plan::abi::PAGE_SIZE};

/// The `address_space` of one open file.
///
/// # Invariants
///
/// `inner` is initialised and pinned. Every VMA in its `i_mmap` was set up by
/// `vma.rs`.
#[pin_data]
pub(crate) struct FileMapping {
    #[pin]
    inner: Opaque<bindings::address_space>,
}

// SAFETY: An `address_space` is made to be shared; its own lock guards it.
unsafe impl Send for FileMapping {}
// SAFETY: As above.
unsafe impl Sync for FileMapping {}

impl FileMapping {
    /// A new, empty mapping for `file`.
    ///
    /// # Safety
    ///
    /// `file` is being opened.
    pub(crate) unsafe fn new(file: *mut bindings::file) -> Result<Arc<Self>> {
        // SAFETY: The file is being opened, so its inode is set.
        let host = unsafe { (*file).f_inode };
        Arc::pin_init(
            pin_init!(FileMapping {
                inner <- Opaque::ffi_init(|slot| {
                    // SAFETY: `slot` is memory for an `address_space`.
                    unsafe { ffi::jit_mapping_init(slot, host) }
                }),
            }),
            ffi::CHARGED,
        )
    }

    /// Lets `file` use this mapping in place of the device's.
    ///
    /// # Safety
    ///
    /// `file` is being opened, and its owner keeps this mapping until it calls
    /// [`FileMapping::remove`].
    pub(crate) unsafe fn install(&self, file: *mut bindings::file) {
        // SAFETY: The file is being opened: nobody else uses it yet.
        unsafe { (*file).f_mapping = self.inner.get() };
    }

    /// Gives `file` the device's mapping back.
    ///
    /// # Safety
    ///
    /// `file` is being released: no VMA uses it any more.
    pub(crate) unsafe fn remove(file: *mut bindings::file) {
        // SAFETY: By this function's contract; the inode outlives the file.
        unsafe { (*file).f_mapping = (*(*file).f_inode).i_mapping };
    }

    /// Keeps VMAs and page tables in place until the result is dropped.
    pub(crate) fn lock(&self) -> Locked<'_> {
        // SAFETY: By the type invariants the semaphore is initialised.
        unsafe { bindings::down_read(addr_of_mut!((*self.inner.get()).i_mmap_rwsem)) };
        Locked { space: self }
    }
}

/// A [`FileMapping`] whose `i_mmap_rwsem` is held for reading.
pub(crate) struct Locked<'a> {
    space: &'a FileMapping,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // SAFETY: Taken by `FileMapping::lock`.
        unsafe { bindings::up_read(addr_of_mut!((*self.space.inner.get()).i_mmap_rwsem)) };
    }
}

impl Locked<'_> {
    /// Calls `visit` with each VMA that maps page `pgoff`, in tree order. It takes
    /// no longer for the VMAs of other pages: `i_mmap` is an interval tree (as in
    /// include/linux/interval_tree_generic.h, of which modules get no instance).
    pub(crate) fn for_each_vma_of(&self, pgoff: usize, mut visit: impl FnMut(&VmaInTree<'_>)) {
        let mut next = self.root().and_then(|root| root.first_of(pgoff, pgoff));
        while let Some(vma) = next {
            visit(&vma);
            next = vma.next_of(pgoff, pgoff);
        }
    }

    /// Some of the address spaces that map one of the pages from `first` to `last`: of
    /// those that are wanted, by their address, the first few. Looks at a bounded number
    /// of VMAs.
    pub(crate) fn some_mms(
        &self,
        first: usize,
        last: usize,
        is_wanted: impl Fn(usize) -> bool,
    ) -> SomeMms {
        let mut found = SomeMms::none();
        let mut next = self.root().and_then(|root| root.first_of(first, last));
        for _ in 0..LOOKS {
            let Some(vma) = next else { break };
            if is_wanted(vma.mm().as_raw().addr()) {
                found.add(vma.mm());
            }
            next = vma.next_of(first, last);
        }
        found
    }

    /// An address space that maps one of the pages from `first` to `last` by a VMA that
    /// `is_wanted`, and in which somebody runs.
    pub(crate) fn living_mm(
        &self,
        first: usize,
        last: usize,
        is_wanted: impl Fn(&VmaInTree<'_>) -> bool,
    ) -> Option<ARef<Mm>> {
        let mut next = self.root().and_then(|root| root.first_of(first, last));
        while let Some(vma) = next {
            // SAFETY: It is valid.
            let is_dead = unsafe { ffi::jit_mm_is_dead(vma.mm().as_raw()) };
            if !is_dead && is_wanted(&vma) {
                return Some(vma.mm().into());
            }
            next = vma.next_of(first, last);
        }
        None
    }

    fn root(&self) -> Option<VmaInTree<'_>> {
        // SAFETY: The tree is locked.
        VmaInTree::at(
            unsafe { (*self.space.inner.get()).i_mmap.rb_root.rb_node },
            self,
        )
    }
}

/// How many VMAs [`Locked::some_mms`] looks at.
const LOOKS: usize = 256;

/// A few address spaces, kept as long as this lives.
pub(crate) struct SomeMms {
    mms: [Option<ARef<Mm>>; SomeMms::MOST],
    count: usize,
}

impl SomeMms {
    const MOST: usize = 16;

    /// None.
    pub(crate) const fn none() -> Self {
        SomeMms {
            mms: [const { None }; SomeMms::MOST],
            count: 0,
        }
    }

    /// Adds one, if there is room.
    fn add(&mut self, mm: &Mm) {
        if self.iter().any(|known| core::ptr::eq(known, mm)) {
            return;
        }
        if let Some(free) = self.mms.get_mut(self.count) {
            *free = Some(mm.into());
            self.count += 1;
        }
    }

    /// They.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Mm> {
        self.mms.iter().flatten().map(|mm| &**mm)
    }
}

/// A VMA that stays in the tree, and keeps its page tables, meanwhile.
pub(crate) struct VmaInTree<'a> {
    vma: *mut bindings::vm_area_struct,
    _locked: &'a Locked<'a>,
}

impl<'a> VmaInTree<'a> {
    /// The VMA of a node of the tree.
    fn at(node: *mut bindings::rb_node, locked: &'a Locked<'a>) -> Option<Self> {
        let offset = core::mem::offset_of!(bindings::vm_area_struct, shared.rb);
        (!node.is_null()).then(|| VmaInTree {
            vma: node.wrapping_byte_sub(offset).cast(),
            _locked: locked,
        })
    }

    fn node(&self) -> *mut bindings::rb_node {
        // SAFETY: The VMA is valid while it is in the tree.
        unsafe { addr_of_mut!((*self.vma).shared.rb) }
    }

    fn left(&self) -> Option<Self> {
        // SAFETY: The node is in the tree, which is locked.
        VmaInTree::at(unsafe { (*self.node()).rb_left }, self._locked)
    }

    fn right(&self) -> Option<Self> {
        // SAFETY: As above.
        VmaInTree::at(unsafe { (*self.node()).rb_right }, self._locked)
    }

    fn parent(&self) -> Option<Self> {
        // SAFETY: As above. The low bits are the node's colour.
        let parent = unsafe { (*self.node()).__rb_parent_color } & !3;
        VmaInTree::at(core::ptr::with_exposed_provenance_mut(parent), self._locked)
    }

    /// The last page that it, or any VMA below it in the tree, maps.
    fn last_below(&self) -> usize {
        // SAFETY: The VMA is in the tree, which is locked.
        unsafe { (*self.vma).shared.rb_subtree_last }
    }

    /// The pages of the file that it maps: the first and the last.
    fn pages(&self) -> (usize, usize) {
        // SAFETY: The VMA is valid, and `__vma_adjust` changes its range under
        // the write side of the lock that we hold.
        let (start, end, first) = unsafe {
            let range = addr_of!((*self.vma).__bindgen_anon_1.__bindgen_anon_1);
            ((*range).vm_start, (*range).vm_end, (*self.vma).vm_pgoff)
        };
        (first, first + (end - start) / PAGE_SIZE - 1)
    }

    /// The first that maps one of the pages from `first` to `last`, of this one
    /// and those below it.
    fn first_of(self, first: usize, last: usize) -> Option<Self> {
        let mut at = self;
        loop {
            if let Some(left) = at.left().filter(|left| left.last_below() >= first) {
                at = left;
                continue;
            }
            let (begin, end) = at.pages();
            if begin > last {
                return None;
            }
            if end >= first {
                return Some(at);
            }
            at = at.right().filter(|right| right.last_below() >= first)?;
        }
    }

    /// The next that maps one of them.
    fn next_of(self, first: usize, last: usize) -> Option<Self> {
        let mut at = self;
        loop {
            if let Some(right) = at.right().filter(|right| right.last_below() >= first) {
                return right.first_of(first, last);
            }
            // Up, until that is from the left.
            loop {
                let parent = at.parent()?;
                let came_from = core::mem::replace(&mut at, parent);
                if at.right().is_none_or(|right| right.vma != came_from.vma) {
                    break;
                }
            }
            let (begin, end) = at.pages();
            if begin > last {
                return None;
            }
            if end >= first {
                return Some(at);
            }
        }
    }

    /// The VMA.
    pub(crate) fn as_ptr(&self) -> *mut bindings::vm_area_struct {
        self.vma
    }

    /// Its address space, which lives as long as the VMA is in the tree.
    pub(crate) fn mm(&self) -> &Mm {
        // SAFETY: The VMA is valid while it is in the tree, and so is its address space,
        // of which `Mm` asks no more.
        unsafe { Mm::from_raw((*self.vma).vm_mm) }
    }

    /// The address of page `pgoff` of the file, if it is mapped here.
    pub(crate) fn address_of(&self, pgoff: usize) -> Option<usize> {
        // SAFETY: The VMA is valid, and `__vma_adjust` changes its range under
        // the write side of the lock that we hold.
        let (start, end, first) = unsafe {
            let range = addr_of!((*self.vma).__bindgen_anon_1.__bindgen_anon_1);
            ((*range).vm_start, (*range).vm_end, (*self.vma).vm_pgoff)
        };
        let pages = pgoff.checked_sub(first)?;
        let addr = start.checked_add(pages.checked_mul(PAGE_SIZE)?)?;
        (addr < end).then_some(addr)
    }
}
