// SPDX-License-Identifier: GPL-2.0

//! One mapping of a region: how it is set up, what the kernel asks of it
//! later, and how to tell that a VMA is ours.
//!
//! Context: everything here but [`region_at`] is called with the address
//! space's mmap_lock, or the VMA's own lock (`fault`, #BP), held. None of it takes
//! a region's publication lock.
//! Owner: each VMA holds one reference to its [`Mapping`] in `vm_private_data`.

use kernel::{
    bindings,
    mm::Mm,
    prelude::*,
    sync::{Arc, ArcBorrow},
};

use crate::{
    fixup,
    holder::Mapping,
    plan::{
        abi::PAGE_SIZE,
        lifecycle::{on_fault, FaultAction},
    },
    pte::{self, Installed},
    region::Region,
};

/// VMA operations, which hold raw pointers but no state.
struct VmOps(bindings::vm_operations_struct);

// SAFETY: VMA operations are never written.
unsafe impl Sync for VmOps {}

static VM_OPS: VmOps = VmOps(bindings::vm_operations_struct {
    open: Some(open),
    close: Some(close),
    fault: Some(fault),
    access: Some(access),
    ..pin_init::zeroed()
});

fn flags(vma: &bindings::vm_area_struct) -> bindings::vm_flags_t {
    // SAFETY: Both members of the union are the same plain integers.
    unsafe { vma.__bindgen_anon_2.vm_flags }
}

fn range(vma: &bindings::vm_area_struct) -> (usize, usize) {
    // SAFETY: The other member is used only after a VMA was freed.
    let range = unsafe { vma.__bindgen_anon_1.__bindgen_anon_1 };
    (range.vm_start, range.vm_end)
}

/// What a mapping of a `/dev/jit` file must look like: shared (uprobes, which
/// write breakpoints into private copies, stay out) and not writable.
/// Fails with `EINVAL` or `EACCES`.
pub(crate) fn check_new(vma: &bindings::vm_area_struct) -> Result {
    if flags(vma) & bindings::VM_MAYSHARE == 0 {
        return Err(EINVAL);
    }
    if flags(vma) & bindings::VM_WRITE != 0 {
        return Err(EACCES);
    }
    Ok(())
}

/// The part of the file that a new mapping asks for, in pages.
pub(crate) fn file_pages(vma: &bindings::vm_area_struct) -> (usize, usize) {
    let (start, end) = range(vma);
    (vma.vm_pgoff, (end - start) / PAGE_SIZE)
}

/// Makes a new VMA one of `region`. Fails with `ENOMEM` or `EDQUOT`.
///
/// # Safety
///
/// `vma` is being set up by the mmap() of the region's file and has passed
/// [`check_new`].
pub(crate) unsafe fn set_up(vma: *mut bindings::vm_area_struct, region: Arc<Region>) -> Result {
    let mapping = Mapping::new(region)?;
    // SAFETY: The VMA is being set up, so it is ours to change.
    unsafe {
        crate::ffi::jit_vm_flags_set(vma);
        (*vma).vm_ops = &VM_OPS.0;
        (*vma).vm_private_data = Arc::into_raw(mapping).cast_mut().cast();
        fixup::watch((*vma).vm_mm);
    }
    Ok(())
}

/// # Safety
///
/// `vma` has [`VM_OPS`] and is valid for `'a`.
unsafe fn mapping<'a>(vma: *const bindings::vm_area_struct) -> &'a Mapping {
    // SAFETY: Such a VMA holds a reference to its mapping.
    unsafe { &*(*vma).vm_private_data.cast::<Mapping>() }
}

/// The region of a VMA, and the offset of `addr` in it, if the VMA is ours.
///
/// # Safety
///
/// `vma` is valid for `'a`, and its mm's mmap_lock or its own lock is held.
unsafe fn region_at<'a>(
    vma: *const bindings::vm_area_struct,
    addr: usize,
) -> Option<(ArcBorrow<'a, Region>, u64)> {
    // SAFETY: By this function's contract.
    let vma = unsafe { &*vma };
    if !core::ptr::eq(vma.vm_ops, &VM_OPS.0) {
        return None;
    }
    let (start, end) = range(vma);
    if addr < start || addr >= end {
        return None;
    }
    // SAFETY: The VMA is ours, and valid.
    let region = unsafe { mapping::<'a>(vma) }.region().as_arc_borrow();
    let pages = (vma.vm_pgoff).checked_sub(region.first_pgoff())?;
    let offset = pages.checked_mul(PAGE_SIZE)?.checked_add(addr - start)?;
    Some((region, offset as u64))
}

/// The region that `vma` maps at `addr`, and the offset there.
pub(crate) fn lookup(
    vma: &kernel::mm::virt::VmaRef,
    addr: usize,
) -> Option<(ArcBorrow<'_, Region>, u64)> {
    // SAFETY: A `VmaRef` is valid, and its mmap_lock or its own lock is held.
    unsafe { region_at(vma.as_ptr(), addr) }
}

/// A VMA was copied: by fork, a split, or mremap.
///
/// # Safety
///
/// Called by the kernel for a VMA with [`VM_OPS`], under mmap_lock.
unsafe extern "C" fn open(vma: *mut bindings::vm_area_struct) {
    // SAFETY: The VMA that this one is a copy of holds a reference.
    let mapping =
        unsafe { ArcBorrow::from_raw((*vma).vm_private_data.cast_const().cast::<Mapping>()) };
    mapping.count_copy();
    let _ = Arc::into_raw(Arc::from(mapping));
    // SAFETY: The VMA is valid.
    fixup::watch(unsafe { (*vma).vm_mm });
}

/// A VMA goes away; its page-table entries are gone already.
///
/// # Safety
///
/// Called by the kernel once for a VMA with [`VM_OPS`], under mmap_lock.
unsafe extern "C" fn close(vma: *mut bindings::vm_area_struct) {
    // SAFETY: The VMA is valid.
    let mm = unsafe { (*vma).vm_mm };
    fixup::unwatch(mm);
    // SAFETY: The VMA holds a reference, which ends here.
    let mapping = unsafe { Arc::<Mapping>::from_raw((*vma).vm_private_data.cast_const().cast()) };
    mapping.forget_one();
    mapping.region().leave_home(mm);
}

/// A CPU touched a page that has no entry here.
///
/// # Safety
///
/// Called by the kernel for a VMA with [`VM_OPS`], under its lock.
unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // SAFETY: The kernel passes a valid fault.
    let (what, flags) = unsafe { (&(*vmf).__bindgen_anon_1, (*vmf).flags) };
    let is_write = flags & bindings::fault_flag_FAULT_FLAG_WRITE != 0;
    // SAFETY: The VMA is locked by the fault.
    match unsafe { install(what.vma, what.address, is_write) } {
        Ok(()) => bindings::vm_fault_reason_VM_FAULT_NOPAGE,
        Err(error) if error == ENOMEM => bindings::vm_fault_reason_VM_FAULT_OOM,
        Err(_) => bindings::vm_fault_reason_VM_FAULT_SIGBUS,
    }
}

/// Maps the newest version of the page at `addr`.
///
/// # Safety
///
/// Called from the fault handler of `vma` for `addr`.
unsafe fn install(vma: *mut bindings::vm_area_struct, addr: usize, is_write: bool) -> Result {
    // SAFETY: The VMA is locked by the fault.
    let (region, offset) = unsafe { region_at(vma, addr) }.ok_or(EFAULT)?;
    let page = usize::try_from(offset)? / PAGE_SIZE;
    if region.account.is_homeless() {
        // SAFETY: The VMA is locked by the fault, so its address space is valid.
        region
            .account
            .move_to(unsafe { Mm::from_raw((*vma).vm_mm) }.into());
    }
    loop {
        let installed = region.pages.with(page, |state, version| {
            match (on_fault(state, is_write), version) {
                // SAFETY: In the fault handler, under the slot lock.
                (FaultAction::Install, Some(version)) => {
                    Ok(unsafe { pte::install(vma, addr, version) })
                }
                _ => Err(EFAULT),
            }
        })?;
        match installed {
            Installed::Done => return Ok(()),
            // SAFETY: In the fault handler.
            Installed::NoTable => unsafe { pte::make_table(vma, addr) }?,
        }
    }
}

/// A debugger, or /proc/pid/mem: reads the authoritative bytes, writes none.
/// Returns the number of bytes copied, or an errno.
///
/// # Safety
///
/// Called by the kernel for a VMA with [`VM_OPS`], under mmap_lock.
unsafe extern "C" fn access(
    vma: *mut bindings::vm_area_struct,
    addr: c_ulong,
    buf: *mut c_void,
    len: c_int,
    write: c_int,
) -> c_int {
    if write != 0 {
        return EACCES.to_errno();
    }
    // SAFETY: The VMA is valid and mmap_lock is held.
    let Some((region, offset)) = (unsafe { region_at(vma, addr) }) else {
        return EFAULT.to_errno();
    };
    let Ok(wanted) = usize::try_from(len) else {
        return EINVAL.to_errno();
    };
    // SAFETY: The VMA is valid.
    let (_, end) = range(unsafe { &*vma });
    let len = wanted.min(end - addr);
    // SAFETY: The kernel passes a buffer of at least `len` bytes.
    let out = unsafe { core::slice::from_raw_parts_mut(buf.cast::<u8>(), len) };
    region.pages.read(offset, out);
    len as c_int
}
