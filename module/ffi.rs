// SPDX-License-Identifier: GPL-2.0

//! Every foreign function that the kernel crate does not bind: those of
//! `helpers.c` and a few exported ones. Declarations, and safe wrappers where
//! a call is safe whatever the arguments are. Nothing here has state.

use kernel::{
    alloc::{flags::GFP_KERNEL_ACCOUNT, Flags},
    bindings,
    prelude::*,
};

/// The entry was present before [`jit_pte_exchange`].
pub(crate) const PTE_PRESENT: c_int = 1;
/// A CPU had used the entry before [`jit_pte_exchange`].
pub(crate) const PTE_ACCESSED: c_int = 2;

/// `PROT_READ | PROT_EXEC` and the flags of `mmap()`, which the bindings lack
/// (include/uapi/asm-generic/mman-common.h, mman.h).
pub(crate) const PROT_READ_EXEC: c_ulong = 0x1 | 0x4;
pub(crate) const MAP_SHARED: c_ulong = 0x01;
pub(crate) const MAP_FIXED: c_ulong = 0x10;

/// Memory that is charged to the caller's cgroup. It is tried hard for, but
/// nobody is killed for it, and no warning is printed: the call fails with
/// `ENOMEM`, as it promises.
pub(crate) const CHARGED: Flags = flags(CHARGED_RAW);
/// The same as a plain number.
pub(crate) const CHARGED_RAW: u32 = bindings::GFP_KERNEL_ACCOUNT
    | bindings::__GFP_NOWARN
    | (1 << bindings::___GFP_RETRY_MAYFAIL_BIT);
/// Memory that is there at once, or else for which more can be given up first.
pub(crate) const CHARGED_LIGHTLY_RAW: u32 =
    bindings::GFP_KERNEL_ACCOUNT | bindings::__GFP_NOWARN | (1 << bindings::___GFP_NORETRY_BIT);

/// A few bytes that are always there, charged to the caller's cgroup: for what can't
/// be refused.
pub(crate) const SURELY: Flags =
    flags(bindings::GFP_KERNEL_ACCOUNT | (1 << bindings::___GFP_NOFAIL_BIT));

/// Flags that the kernel crate has no name for.
const fn flags(raw: u32) -> Flags {
    // SAFETY: `Flags` is a plain number in a struct, which is checked below.
    unsafe { core::mem::transmute::<u32, Flags>(raw) }
}

const _: () = {
    // SAFETY: Every `Flags` is a plain number of this size.
    let known = unsafe { core::mem::transmute::<Flags, u32>(GFP_KERNEL_ACCOUNT) };
    assert!(known == bindings::GFP_KERNEL_ACCOUNT);
};

/// A `mempool_t` of task works.
#[repr(C)]
pub(crate) struct Works {
    _private: [u8; 0],
}

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
    pub(crate) fn jit_mm_leave(mm: *mut bindings::mm_struct);
    pub(crate) fn jit_die_int3_regs(val: c_ulong, data: *mut c_void) -> *mut bindings::pt_regs;
    pub(crate) fn jit_trap_address(regs: *const bindings::pt_regs) -> c_ulong;
    pub(crate) fn jit_mmap_read_lock_killable(mm: *mut bindings::mm_struct) -> c_int;
    pub(crate) fn jit_works_create(reserve: c_int) -> *mut Works;
    pub(crate) fn jit_works_add(
        works: *mut Works,
        func: unsafe extern "C" fn(*mut bindings::callback_head),
    ) -> bool;
    pub(crate) fn jit_irqs_on();
    pub(crate) fn jit_irqs_off();
    pub(crate) fn jit_raise_sigtrap();
    pub(crate) fn jit_tell_uprobes();
    pub(crate) fn jit_module_put();
    fn jit_user_byte(addr: c_ulong, byte: *mut u8) -> bool;
    fn jit_debugger_byte(addr: c_ulong, byte: *mut u8) -> bool;
    pub(crate) fn jit_page_address(page: *mut bindings::page) -> *mut c_void;
    pub(crate) fn jit_copy_words(to: *mut u64, from: *const u64, words: usize);
    pub(crate) fn jit_fill_words(to: *mut u64, value: u64, words: usize);
    pub(crate) fn jit_page_pfn(page: *mut bindings::page) -> c_ulong;
    pub(crate) fn jit_mapping_init(
        mapping: *mut bindings::address_space,
        host: *mut bindings::inode,
    );
    pub(crate) fn jit_vm_flags_set(vma: *mut bindings::vm_area_struct, is_inherited: bool);
    pub(crate) fn jit_kthread_run(
        func: unsafe extern "C" fn(*mut c_void) -> c_int,
        data: *mut c_void,
    ) -> *mut bindings::task_struct;
    pub(crate) fn jit_kthread_sleep(
        work: *const c_int,
        kept: *const c_long,
        sleeps: *mut c_int,
        pause: c_long,
    );
    pub(crate) fn jit_cond_resched();
    pub(crate) fn jit_mm_count(mm: *mut bindings::mm_struct, pages: c_long);
    pub(crate) fn jit_mm_is_dead(mm: *mut bindings::mm_struct) -> bool;
    pub(crate) fn jit_mutex_lock_killable(lock: *mut bindings::mutex) -> c_int;

    safe fn jit_is_killed() -> bool;
    safe fn jit_pause();
    safe fn jit_cpu_is_lazy(cpu: c_int) -> bool;
    safe fn jit_cpu_ticks(cpu: c_int) -> bool;
    safe fn jit_flush_local();
    safe fn jit_flush_local_all();
    safe fn jit_flush_local_one(addr: c_ulong);
    safe fn jit_unsupported() -> *const c_char;
    safe fn jit_active_mm() -> c_ulong;
    safe fn jit_accountable_uid() -> c_uint;
    safe fn jit_may_exceed_totals() -> bool;
    safe fn jit_accessed_is_promised() -> bool;
    safe fn jit_user_regs() -> *mut bindings::pt_regs;
    safe fn jit_has_uprobes() -> bool;
    safe fn jit_is_before_signals() -> bool;
    safe fn jit_wait_for_tails();

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
    pub(crate) fn mempool_free(element: *mut c_void, works: *mut Works);
    pub(crate) fn mempool_destroy(works: *mut Works);
    safe fn schedule_timeout_killable(jiffies: c_long) -> c_long;
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

/// Sleeps for a tick. In process context, holding no lock. Fails with `EINTR` if
/// the caller is being killed.
pub(crate) fn pause() -> Result {
    jit_pause();
    check_alive()
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

/// The address space that this CPU has loaded, as a number.
pub(crate) fn active_mm() -> usize {
    jit_active_mm()
}

/// The user that the caller's pages count for.
pub(crate) fn accountable_uid() -> u32 {
    jit_accountable_uid()
}

/// Whether the caller may go beyond the bounds of all users together.
pub(crate) fn may_exceed_totals() -> bool {
    jit_may_exceed_totals()
}

/// Whether an entry that was never accessed was never cached.
pub(crate) fn accessed_is_promised() -> bool {
    jit_accessed_is_promised()
}

/// The registers with which the current task goes back to user mode.
pub(crate) fn user_regs() -> *mut bindings::pt_regs {
    jit_user_regs()
}

/// Whether uprobes claim every int3 of the current process, which has an mm.
pub(crate) fn has_uprobes() -> bool {
    jit_has_uprobes()
}

/// In a task work: whether the thread flags that it sets are looked at before a
/// signal is delivered.
pub(crate) fn is_before_signals() -> bool {
    jit_is_before_signals()
}

/// A byte of the current process as its CPUs see it, execute-only or not; `None`
/// if that would fault. Doesn't sleep.
pub(crate) fn user_byte(addr: usize) -> Option<u8> {
    let mut byte = 0;
    // SAFETY: Copies one byte to `byte`, whatever `addr` is.
    unsafe { jit_user_byte(addr, &mut byte) }.then_some(byte)
}

/// A byte of the current process as a debugger sees it. May sleep.
pub(crate) fn debugger_byte(addr: usize) -> Option<u8> {
    let mut byte = 0;
    // SAFETY: Copies one byte to `byte`, whatever `addr` is.
    unsafe { jit_debugger_byte(addr, &mut byte) }.then_some(byte)
}

/// Sleeps until the next tick at least, or until the caller is being killed.
pub(crate) fn sleep_a_tick() {
    schedule_timeout_killable(1);
}

/// Waits until nobody is in the last instructions of a function that has
/// called [`jit_module_put`].
pub(crate) fn wait_for_tails() {
    jit_wait_for_tails();
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
