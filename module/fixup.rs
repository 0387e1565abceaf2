// SPDX-License-Identifier: GPL-2.0

//! The #BP handler (rule R5): a CPU with a stale translation met a 0xCC where
//! there is code by now. Flush that address on this CPU, step back, run again.
//!
//! Context: called from the int3 exception of user mode, in an RCU read-side
//! critical section. Interrupts are off on entry and return, and on while a trap
//! is judged: the VMA lock may drop the last reference to an address space, which
//! takes a lock (`pgd_lock`) whose holder may wait for this CPU.
//! Lock order: the lock of the VMA, if it is free, then the slot lock. What can't
//! be judged so is judged by `later.rs`.
//! Priority INT_MAX: uprobes come next and claim every int3 of a process that
//! has any.

use kernel::{bindings, current, mm::MmWithUser, prelude::*, types::Opaque};

use crate::{
    ffi, later,
    plan::stale::{verdict, verdict_now, Bytes, Source, Verdict},
    trap::{count_retry, ours, step_back, view},
    watch,
};

/// The notifier, registered from [`register`] to [`unregister`].
struct Notifier(Opaque<bindings::notifier_block>);

// SAFETY: The kernel guards the chain that the block is on.
unsafe impl Sync for Notifier {}

static NOTIFIER: Notifier = Notifier(Opaque::new(bindings::notifier_block {
    notifier_call: Some(on_die),
    next: core::ptr::null_mut(),
    priority: c_int::MAX,
}));

/// Starts to handle #BP.
pub(crate) fn register() -> Result {
    later::prepare()?;
    // SAFETY: The block is static.
    kernel::error::to_result(unsafe { ffi::register_die_notifier(NOTIFIER.0.get()) })
        .inspect_err(|_| later::finish())
}

/// Stops, and waits for handlers that run.
pub(crate) fn unregister() {
    // SAFETY: Registered before.
    unsafe { ffi::unregister_die_notifier(NOTIFIER.0.get()) };
    later::finish();
}

/// # Safety
///
/// Called by the kernel's die chain.
unsafe extern "C" fn on_die(
    _: *mut bindings::notifier_block,
    val: c_ulong,
    data: *mut c_void,
) -> c_int {
    // SAFETY: The chain passes its own arguments.
    let regs = unsafe { ffi::jit_die_int3_regs(val, data) };
    let current = current!();
    let (false, Some(mm)) = (regs.is_null(), current.mm()) else {
        return bindings::NOTIFY_DONE as c_int;
    };
    if !watch::is_watched(mm.as_raw()) {
        return bindings::NOTIFY_DONE as c_int;
    }
    // SAFETY: The registers that the exception saved, of a task with an mm.
    let trap = unsafe { ffi::jit_trap_address(regs) };
    // SAFETY: In an exception of user mode, which had interrupts on.
    unsafe { ffi::jit_irqs_on() };
    let verdict = match judge(mm, trap) {
        Verdict::Later => later::put_off().unwrap_or_else(|| verdict_now(view(trap))),
        verdict => verdict,
    };
    // SAFETY: The die chain is called, and goes on, with interrupts off.
    unsafe { ffi::jit_irqs_off() };
    match verdict {
        Verdict::Deliver => return bindings::NOTIFY_DONE as c_int,
        // SAFETY: Interrupts are off, and so is preemption.
        Verdict::Resume => unsafe { step_back(regs, trap) },
        Verdict::Later => {}
    }
    bindings::NOTIFY_STOP as c_int
}

/// Decides about a trap whose last byte is at `trap`.
fn judge(mm: &MmWithUser, trap: usize) -> Verdict {
    let Some(vma) = mm.lock_vma_under_rcu(trap) else {
        return verdict(Source::Contended);
    };
    let Some((region, bytes)) = ours(&vma, trap) else {
        return verdict(Source::Foreign(Bytes::UNKNOWN));
    };
    let verdict = verdict(Source::Authoritative(bytes));
    if verdict == Verdict::Resume {
        if count_retry(trap) {
            return Verdict::Later;
        }
        region.counters.fixups.add(1);
    }
    verdict
}
