// SPDX-License-Identifier: GPL-2.0

//! One mapping of a region: how it is set up, what the kernel asks of it
//! later, and how to tell that a VMA is ours.
//!
//! Context: everything here but [`region_at`] is called with the address
//! space's mmap_lock, or the VMA's own lock (`fault`, #BP), held. None of it takes
//! a region's publication lock.
//! Owner: each VMA holds one reference to its [`Mapping`] in `vm_private_data`.

use core::ptr::addr_of;

use kernel::{
    bindings,
    mm::Mm,
    prelude::*,
    sync::{Arc, ArcBorrow},
};

use crate::{
    ffi,
    mapping::{self, Mapping},
    plan::{
        abi::PAGE_SIZE,
        lifecycle::{on_fault, FaultAction},
    },
    pte::{self, Installed},
    region::Region,
    watch,
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

/// What of a VMA its lock keeps as it is. Read field by field: others change the
/// rest of it meanwhile, the lock itself for one.
struct Fields {
    ops: *const bindings::vm_operations_struct,
    flags: bindings::vm_flags_t,
    start: usize,
    end: usize,
    pgoff: usize,
}

/// # Safety
///
/// `vma` is valid, and is being set up by the caller, or its mm's mmap_lock or its own
/// lock is held.
unsafe fn fields(vma: *const bindings::vm_area_struct) -> Fields {
    // SAFETY: By this function's contract. The members of the one union are the same
    // plain integers; of the other, this is the one in use until a VMA is freed.
    unsafe {
        let range = addr_of!((*vma).__bindgen_anon_1.__bindgen_anon_1).read();
        Fields {
            ops: addr_of!((*vma).vm_ops).read(),
            flags: addr_of!((*vma).__bindgen_anon_2.vm_flags).read(),
            start: range.vm_start,
            end: range.vm_end,
            pgoff: addr_of!((*vma).vm_pgoff).read(),
        }
    }
}

/// What a mapping of a `/dev/jit` file must look like: shared (uprobes, which
/// write breakpoints into private copies, stay out) and not writable. Returns the part
/// of the file that it asks for, first page and count. Fails with `EINVAL` or `EACCES`.
///
/// # Safety
///
/// `vma` is being set up by the caller.
pub(crate) unsafe fn check_new(vma: *const bindings::vm_area_struct) -> Result<(usize, usize)> {
    // SAFETY: By this function's contract.
    let vma = unsafe { fields(vma) };
    if vma.flags & bindings::VM_MAYSHARE == 0 {
        return Err(EINVAL);
    }
    if vma.flags & bindings::VM_WRITE != 0 {
        return Err(EACCES);
    }
    Ok((vma.pgoff, (vma.end - vma.start) / PAGE_SIZE))
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
        ffi::jit_vm_flags_set(vma, mapping.is_inherited());
        (*vma).vm_ops = &VM_OPS.0;
        (*vma).vm_private_data = Arc::into_raw(mapping).cast_mut().cast();
        watch::watch((*vma).vm_mm);
    }
    Ok(())
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
    let fields = unsafe { fields(vma) };
    if !core::ptr::eq(fields.ops, &VM_OPS.0) || addr < fields.start || addr >= fields.end {
        return None;
    }
    // SAFETY: The VMA is ours, and valid.
    let region = unsafe { mapping::of_vma::<'a>(vma) }
        .region()
        .as_arc_borrow();
    let pages = fields.pgoff.checked_sub(region.first_pgoff())?;
    let offset = pages
        .checked_mul(PAGE_SIZE)?
        .checked_add(addr - fields.start)?;
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
/// Called by the kernel for a VMA with [`VM_OPS`], under mmap_lock, before the VMA is
/// in the tree of its file.
unsafe extern "C" fn open(vma: *mut bindings::vm_area_struct) {
    // SAFETY: The VMA that this one is a copy of holds a reference.
    let original =
        unsafe { ArcBorrow::from_raw((*vma).vm_private_data.cast_const().cast::<Mapping>()) };
    // SAFETY: The VMA is valid, and so is its address space; nobody else knows the one.
    unsafe {
        let mapping = Mapping::of_copy(original, Mm::from_raw((*vma).vm_mm));
        (*vma).vm_private_data = Arc::into_raw(mapping).cast_mut().cast();
        watch::watch((*vma).vm_mm);
    }
}

/// A VMA goes away; its page-table entries are gone already.
///
/// # Safety
///
/// Called by the kernel once for a VMA with [`VM_OPS`], under mmap_lock.
unsafe extern "C" fn close(vma: *mut bindings::vm_area_struct) {
    // SAFETY: The VMA is valid.
    let mm = unsafe { (*vma).vm_mm };
    watch::unwatch(mm);
    // SAFETY: The VMA holds a reference, which ends here.
    let ended = unsafe { Arc::<Mapping>::from_raw((*vma).vm_private_data.cast_const().cast()) };
    ended.forget_one();
    mapping::leave_home(ended.region(), mm);
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
    if region.supply.account.is_homeless() {
        // SAFETY: The VMA is locked by the fault, so its address space is valid.
        region
            .supply
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
    // SAFETY: The VMA is valid and mmap_lock is held.
    let len = wanted.min(unsafe { fields(vma) }.end - addr);
    // SAFETY: The kernel passes a buffer of at least `len` bytes.
    let out = unsafe { core::slice::from_raw_parts_mut(buf.cast::<u8>(), len) };
    region.pages.read(offset, out);
    len as c_int
}
