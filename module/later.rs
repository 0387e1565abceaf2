// SPDX-License-Identifier: GPL-2.0

//! Traps that the #BP handler can't judge, because what is mapped there is being
//! changed: judged before the thread goes back to user mode, where it may sleep
//! until the change is done (rule R5).
//!
//! Context: [`put_off`] in the #BP handler, takes no lock. The rest is a task
//! work: in process context, no locks held, before any signal is delivered or a
//! debugger sees the thread (`get_signal()` runs task works first). So the
//! registers are still those of the trap.
//! Lock order: mmap_lock (read), then the slot lock.
//! Owner: a work that waits holds the module.

use kernel::{
    bindings, current,
    mm::{virt::VmaRef, MmWithUser},
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

use crate::{
    ffi,
    plan::{
        abi::FILL,
        stale::{verdict, Bytes, Source, Verdict},
    },
    trap,
};

/// Works that are there without an allocation. One is in use from a trap to the
/// begin of its work, so more are needed only if that many threads are
/// preempted just there, and there is no memory.
const RESERVE: c_int = 32;

/// Where works come from, from [`prepare`] to [`finish`].
static WORKS: Atomic<*mut ffi::Works> = Atomic::new(core::ptr::null_mut());

/// Whether there ever was a work.
static USED: Atomic<bool> = Atomic::new(false);

/// To be called before the first trap comes.
pub(crate) fn prepare() -> Result {
    // SAFETY: In process context.
    let works = unsafe { ffi::jit_works_create(RESERVE) };
    if works.is_null() {
        return Err(ENOMEM);
    }
    WORKS.store(works, Relaxed);
    Ok(())
}

/// To be called after the last handler has returned, when nobody holds the
/// module, so that no work is waiting or can come.
pub(crate) fn finish() {
    if USED.load(Relaxed) {
        ffi::wait_for_tails();
    }
    // SAFETY: By this function's contract nobody uses it any more.
    unsafe { ffi::mempool_destroy(WORKS.load(Relaxed)) };
}

/// Puts a trap of the current thread off: `Later`. `None` if that can't be done.
pub(crate) fn put_off() -> Option<Verdict> {
    // SAFETY: The works are there as long as a handler may run.
    let is_added = unsafe { ffi::jit_works_add(WORKS.load(Relaxed), settle) };
    if is_added && !USED.load(Relaxed) {
        USED.store(true, Relaxed);
    }
    is_added.then_some(Verdict::Later)
}

/// # Safety
///
/// Called by the kernel for a work of [`put_off`], by the thread that it is of.
unsafe extern "C" fn settle(work: *mut bindings::callback_head) {
    // SAFETY: The kernel is done with it. This work holds the module, and so the
    // works are there.
    unsafe { ffi::mempool_free(work.cast(), WORKS.load(Relaxed)) };
    settle_trap();
    // SAFETY: Ends the hold that the work had. What is left of this function is
    // waited for (`finish`).
    unsafe { ffi::jit_module_put() };
}

/// Gives the trap that the current thread stands behind to whom it belongs.
fn settle_trap() {
    let is_before_signals = ffi::is_before_signals();
    let current = current!();
    let Some(mm) = current.mm() else { return };
    let regs = ffi::user_regs();
    // SAFETY: The registers of the trap, of a task with an mm.
    let trap = unsafe { ffi::jit_trap_address(regs) };
    // Nothing is left to do for a thread that is being killed.
    let Some(source) = look(mm, trap) else { return };
    match verdict(source) {
        // Uprobes look at the registers before the thread does anything else.
        // Where a signal comes first, the thread traps once more behind it.
        Verdict::Deliver if is_for_uprobes(source) => match is_before_signals {
            // SAFETY: The current task stands behind its int3.
            true => unsafe { ffi::jit_tell_uprobes() },
            false => run_again(regs, trap),
        },
        // SAFETY: As above.
        Verdict::Deliver => unsafe { ffi::jit_raise_sigtrap() },
        _ => {
            if trap::count_retry(trap) {
                ffi::sleep_a_tick();
            }
            run_again(regs, trap);
        }
    }
}

/// Whether an int3 may be that of a uprobe.
fn is_for_uprobes(source: Source) -> bool {
    let is_int3 = matches!(source, Source::Foreign(bytes) if bytes.last == Some(FILL));
    is_int3 && ffi::has_uprobes()
}

/// The current thread runs the byte at `trap` once more.
fn run_again(regs: *mut bindings::pt_regs, trap: usize) {
    // SAFETY: Interrupts are on in a task work, and on again at its end; `regs`
    // are the registers of the trap.
    unsafe {
        ffi::jit_irqs_off();
        trap::step_back(regs, trap);
        ffi::jit_irqs_on();
    }
}

/// What is at `trap`, once nobody is changing mappings. `None` if the thread is
/// being killed.
fn look(mm: &MmWithUser, trap: usize) -> Option<Source> {
    let lock = ReadLock::take(mm)?;
    if let Some((region, bytes)) = lock.vma(trap).and_then(|vma| trap::ours(vma, trap)) {
        let source = Source::Authoritative(bytes);
        if verdict(source) == Verdict::Resume {
            region.counters.fixups.add(1);
        }
        return Some(source);
    }
    drop(lock);
    Some(Source::Foreign(Bytes {
        before_last: trap.checked_sub(1).and_then(ffi::debugger_byte),
        last: ffi::debugger_byte(trap),
    }))
}

/// mmap_lock, held for reading.
///
/// # Invariants
///
/// It is held from [`ReadLock::take`] to the drop.
struct ReadLock<'a>(&'a MmWithUser);

impl<'a> ReadLock<'a> {
    /// `None` if the caller is being killed.
    fn take(mm: &'a MmWithUser) -> Option<Self> {
        // SAFETY: `mm` is valid.
        let failed = unsafe { ffi::jit_mmap_read_lock_killable(mm.as_raw()) };
        // INVARIANT: It was just taken.
        (failed == 0).then_some(ReadLock(mm))
    }

    /// The mapping at `addr`.
    fn vma(&self, addr: usize) -> Option<&VmaRef> {
        // SAFETY: mmap_lock is held, by the type invariants.
        let vma = unsafe { bindings::vma_lookup(self.0.as_raw(), addr) };
        // SAFETY: It is valid as long as mmap_lock is held, as `self` is.
        (!vma.is_null()).then(|| unsafe { VmaRef::from_raw(vma) })
    }
}

impl Drop for ReadLock<'_> {
    fn drop(&mut self) {
        // SAFETY: It is held, by the type invariants.
        unsafe { bindings::mmap_read_unlock(self.0.as_raw()) };
    }
}
