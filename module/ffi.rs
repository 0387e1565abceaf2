// SPDX-License-Identifier: GPL-2.0

//! Every foreign function that the kernel crate does not bind: those of
//! `helpers.c` and a few exported ones. Declarations, and safe wrappers where
//! a call is safe whatever the arguments are. Nothing here has state.

use kernel::{bindings, prelude::*};

/// The entry was present before [`jit_pte_exchange`].
pub(crate) const PTE_PRESENT: c_int = 1;
/// A CPU had used the entry before [`jit_pte_exchange`].
pub(crate) const PTE_ACCESSED: c_int = 2;

/// `PROT_READ | PROT_EXEC` and the flags of `mmap()`, which the bindings lack
/// (include/uapi/asm-generic/mman-common.h, mman.h).
pub(crate) const PROT_READ_EXEC: c_ulong = 0x1 | 0x4;
pub(crate) const MAP_SHARED: c_ulong = 0x01;
pub(crate) const MAP_FIXED: c_ulong = 0x10;

#[allow(
    improper_ctypes,
    reason = "what a configuration leaves out of a C struct may leave an empty struct"
)]
unsafe extern "C" {
    // helpers.c
    pub(crate) fn jit_pte_lock(
        vma: *mut bindings::vm_area_struct,
        addr: c_ulong,
        ptl: *mut *mut bindings::spinlock_t,
    ) -> *mut bindings::pte_t;
    pub(crate) fn jit_pte_unlock(ptl: *mut bindings::spinlock_t);
    pub(crate) fn jit_pte_is_none(ptep: *mut bindings::pte_t) -> bool;
    pub(crate) fn jit_pte_is_present(ptep: *mut bindings::pte_t) -> bool;
    pub(crate) fn jit_pte_points_to(ptep: *mut bindings::pte_t, pfn: c_ulong) -> bool;
    pub(crate) fn jit_mm_flush_pending(mm: *mut bindings::mm_struct) -> bool;
    pub(crate) fn jit_pte_exchange(
        vma: *mut bindings::vm_area_struct,
        addr: c_ulong,
        ptep: *mut bindings::pte_t,
        pfn: c_ulong,
    ) -> c_int;
    pub(crate) fn jit_mm_has_notifiers(mm: *mut bindings::mm_struct) -> bool;
    pub(crate) fn jit_mm_bump(mm: *mut bindings::mm_struct, is_global: *mut bool)
        -> *const c_ulong;
    pub(crate) fn jit_die_int3_regs(val: c_ulong, data: *mut c_void) -> *mut bindings::pt_regs;
    pub(crate) fn jit_page_address(page: *mut bindings::page) -> *mut c_void;
    pub(crate) fn jit_copy_words(to: *mut u64, from: *const u64, words: usize);
    pub(crate) fn jit_fill_words(to: *mut u64, value: u64, words: usize);
    pub(crate) fn jit_page_pfn(page: *mut bindings::page) -> c_ulong;
    pub(crate) fn jit_mapping_init(
        mapping: *mut bindings::address_space,
        host: *mut bindings::inode,
    );
    pub(crate) fn jit_vm_flags_set(vma: *mut bindings::vm_area_struct);
    pub(crate) fn jit_kthread_run(
        func: unsafe extern "C" fn(*mut c_void) -> c_int,
        data: *mut c_void,
    ) -> *mut bindings::task_struct;
    pub(crate) fn jit_kthread_sleep(work: *const c_int, kept: *const c_long, pause: c_long);
    pub(crate) fn jit_cond_resched();

    safe fn jit_is_killed() -> bool;
    safe fn jit_cpu_is_lazy(cpu: c_int) -> bool;
    safe fn jit_cpu_ticks(cpu: c_int) -> bool;
    safe fn jit_flush_local();
    safe fn jit_flush_local_all();
    safe fn jit_flush_local_one(addr: c_ulong);
    safe fn jit_unsupported() -> *const c_char;

    // Exported by the kernel, not bound by its crate.
    pub(crate) fn register_die_notifier(nb: *mut bindings::notifier_block) -> c_int;
    pub(crate) fn unregister_die_notifier(nb: *mut bindings::notifier_block) -> c_int;
    pub(crate) fn anon_inode_create_getfile(
        name: *const c_char,
        fops: *const bindings::file_operations,
        private: *mut c_void,
        flags: c_int,
        context_inode: *const bindings::inode,
    ) -> *mut bindings::file;
    pub(crate) fn kthread_stop(task: *mut bindings::task_struct) -> c_int;
    safe fn kthread_should_stop() -> bool;
    pub(crate) fn zap_special_vma_range(
        vma: *mut bindings::vm_area_struct,
        addr: c_ulong,
        size: c_ulong,
    );
}

/// Fails with `EINTR` if the caller is being killed.
pub(crate) fn check_alive() -> Result {
    if jit_is_killed() {
        return Err(EINTR);
    }
    Ok(())
}

/// Whether `cpu` is in lazy TLB mode.
pub(crate) fn cpu_is_lazy(cpu: usize) -> bool {
    c_int::try_from(cpu).is_ok_and(|cpu| jit_cpu_is_lazy(cpu))
}

/// Whether `cpu` has a regular tick that a timer can ride on.
pub(crate) fn cpu_ticks(cpu: usize) -> bool {
    c_int::try_from(cpu).is_ok_and(|cpu| jit_cpu_ticks(cpu))
}

/// Flushes this CPU's user TLB, of the address space it has loaded.
pub(crate) fn flush_local() {
    jit_flush_local();
}

/// Flushes this CPU's TLB, of all address spaces.
pub(crate) fn flush_local_all() {
    jit_flush_local_all();
}

/// Flushes one user address on this CPU.
pub(crate) fn flush_local_one(addr: usize) {
    jit_flush_local_one(addr);
}

/// Whether the current kernel thread was asked to stop.
pub(crate) fn must_stop() -> bool {
    kthread_should_stop()
}

/// Why this machine can't be served, if so.
pub(crate) fn unsupported() -> Option<&'static CStr> {
    let reason = jit_unsupported();
    if reason.is_null() {
        return None;
    }
    // SAFETY: The helper returns a string literal.
    Some(unsafe { CStr::from_ptr(reason.cast()) })
}
