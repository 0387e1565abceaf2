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

use kernel::{
    bindings, current,
    mm::{virt::VmaRef, MmWithUser},
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        ArcBorrow,
    },
    types::Opaque,
};

use crate::{
    ffi, later,
    plan::stale::{verdict, verdict_now, Bytes, Retries, Source, Verdict},
    region::Region,
    vma,
};

const BUCKETS: usize = 256;

/// One of [`BUCKETS`] for an address in the kernel.
fn bucket<T>(of: *const T) -> usize {
    (of as usize >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56
}

/// How many mappings the address spaces of each hash value have. A #BP in a
/// process without mappings is passed on at once; a false hit costs a look.
static WATCHED: [Atomic<i32>; BUCKETS] = [const { Atomic::new(0) }; BUCKETS];

fn watched(mm: *const bindings::mm_struct) -> &'static Atomic<i32> {
    &WATCHED[bucket(mm)]
}

/// A mapping appeared in `mm`.
pub(crate) fn watch(mm: *const bindings::mm_struct) {
    watched(mm).fetch_add(1, Relaxed);
}

/// A mapping of `mm` is gone.
pub(crate) fn unwatch(mm: *const bindings::mm_struct) {
    watched(mm).fetch_sub(1, Relaxed);
}

/// Those of the threads of each hash value.
static RETRIES: [Atomic<u64>; BUCKETS] = [const { Atomic::new(Retries::NONE.word()) }; BUCKETS];

/// The current thread is sent back to `trap`. Returns whether that happened so
/// often that it must sleep first. Of two threads at a time one is counted.
pub(crate) fn count_retry(trap: usize) -> bool {
    let word = &RETRIES[bucket(current!().as_ptr())];
    let retries = Retries::from_word(word.load(Relaxed)).and_one(trap as u64);
    word.store(retries.word(), Relaxed);
    retries.are_enough(trap as u64)
}

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
    if watched(mm.as_raw()).load(Relaxed) == 0 {
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

/// The current thread runs the byte at `trap` once more, through an entry that
/// this CPU does not know yet.
///
/// # Safety
///
/// `regs` are those with which the current task goes back to user mode, with the
/// ip behind `trap`. The caller can't be preempted.
pub(crate) unsafe fn step_back(regs: *mut bindings::pt_regs, trap: usize) {
    ffi::flush_local_one(trap);
    // SAFETY: By this function's contract nobody else uses them.
    unsafe { (*regs).ip = (*regs).ip.wrapping_sub(1) };
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

/// The region that `vma` maps at `trap`, and the authoritative bytes there.
pub(crate) fn ours(vma: &VmaRef, trap: usize) -> Option<(ArcBorrow<'_, Region>, Bytes)> {
    let (region, offset) = vma::lookup(vma, trap)?;
    let before_last = match offset.checked_sub(1) {
        // What is before the mapping is something else.
        Some(before) if trap > vma.start() => region.pages.byte(before),
        _ => trap.checked_sub(1).and_then(ffi::user_byte),
    };
    let last = region.pages.byte(offset);
    Some((region, Bytes { before_last, last }))
}

/// The program's own view.
fn view(trap: usize) -> Bytes {
    Bytes {
        before_last: trap.checked_sub(1).and_then(ffi::user_byte),
        last: ffi::user_byte(trap),
    }
}
