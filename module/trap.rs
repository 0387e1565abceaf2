// SPDX-License-Identifier: GPL-2.0

//! What a trap of the current thread stands on, and how it is sent back there: for
//! the #BP handler (`fixup.rs`) and for traps that were put off (`later.rs`).
//!
//! Context: any in which the VMA in question is locked. Takes the slot lock.

use kernel::{
    bindings, current,
    mm::virt::VmaRef,
    sync::{
        atomic::{Atomic, Relaxed},
        ArcBorrow,
    },
};

use crate::{
    ffi,
    plan::stale::{Bytes, Retries},
    region::Region,
    vma,
    watch::{bucket, BUCKETS},
};

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
pub(crate) fn view(trap: usize) -> Bytes {
    Bytes {
        before_last: trap.checked_sub(1).and_then(ffi::user_byte),
        last: ffi::user_byte(trap),
    }
}
