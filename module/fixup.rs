// SPDX-License-Identifier: GPL-2.0

//! The #BP handler (rule R5): a CPU with a stale translation met a 0xCC where
//! there is code by now. Flush that address on this CPU, step back, run again.
//!
//! Context: called from the int3 exception of user mode, interrupts off. Takes
//! the mmap_lock of the current process by trylock only, then the slot lock.
//! Priority INT_MAX: uprobes come next and claim every int3 of a process that
//! has any.

use kernel::{
    bindings, current,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        ArcBorrow,
    },
    types::Opaque,
};

use crate::{
    ffi,
    plan::stale::{verdict, Bytes, Source, Verdict},
    region::Region,
    vma,
};

/// How many mappings the address spaces of each hash value have. A #BP in a
/// process without mappings is passed on at once; a false hit costs a look.
static WATCHED: [Atomic<i32>; 256] = [const { Atomic::new(0) }; 256];

fn watched(mm: *const bindings::mm_struct) -> &'static Atomic<i32> {
    let hash = (mm as usize >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    &WATCHED[hash >> 56]
}

/// A mapping appeared in `mm`.
pub(crate) fn watch(mm: *const bindings::mm_struct) {
    watched(mm).fetch_add(1, Relaxed);
}

/// A mapping of `mm` is gone.
pub(crate) fn unwatch(mm: *const bindings::mm_struct) {
    watched(mm).fetch_sub(1, Relaxed);
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
    // SAFETY: The block is static.
    kernel::error::to_result(unsafe { ffi::register_die_notifier(NOTIFIER.0.get()) })
}

/// Stops, and waits for handlers that run.
pub(crate) fn unregister() {
    // SAFETY: Registered before.
    unsafe { ffi::unregister_die_notifier(NOTIFIER.0.get()) };
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
    if regs.is_null() {
        return bindings::NOTIFY_DONE as c_int;
    }
    // SAFETY: These are the registers that the exception saved; this CPU alone
    // uses them until it returns to user mode.
    let ip = unsafe { &mut (*regs).ip };
    let Some(trap) = ip.checked_sub(1) else {
        return bindings::NOTIFY_DONE as c_int;
    };
    match judge(trap) {
        Verdict::Deliver => bindings::NOTIFY_DONE as c_int,
        Verdict::Resume => {
            ffi::flush_local_one(trap);
            *ip = trap;
            bindings::NOTIFY_STOP as c_int
        }
    }
}

/// Decides about a trap whose last byte is at `trap`.
fn judge(trap: usize) -> Verdict {
    let current = current!();
    let Some(mm) = current.mm() else {
        return Verdict::Deliver;
    };
    if watched(mm.as_raw()).load(Relaxed) == 0 {
        return Verdict::Deliver;
    }
    let Some(locked) = mm.mmap_read_trylock() else {
        return verdict(Source::Contended(Bytes {
            before_last: trap.checked_sub(1).and_then(user_byte),
            last: user_byte(trap),
        }));
    };
    let found = locked.vma_lookup(trap).and_then(|vma| {
        let (region, offset) = vma::lookup(vma, trap)?;
        Some((region, authoritative(region, offset, trap, vma.start())))
    });
    let Some((region, bytes)) = found else {
        return Verdict::Deliver;
    };
    let verdict = verdict(Source::Authoritative(bytes));
    if verdict == Verdict::Resume {
        region.counters.fixups.add(1);
    }
    verdict
}

/// The bytes around `trap`, which lies at `offset` of the region, in a mapping
/// that starts at `start`: before that is something else.
fn authoritative(region: ArcBorrow<'_, Region>, offset: u64, trap: usize, start: usize) -> Bytes {
    let before_last = match offset.checked_sub(1) {
        Some(before) if trap > start => region.pages.byte(before),
        _ => trap.checked_sub(1).and_then(user_byte),
    };
    Bytes {
        before_last,
        last: region.pages.byte(offset),
    }
}

/// A byte of the program's own view; `None` if that would fault.
fn user_byte(addr: usize) -> Option<u8> {
    let mut byte = 0u8;
    // SAFETY: Copies one byte to `byte`, whatever `addr` is.
    let failed = unsafe {
        bindings::copy_from_user_nofault(
            core::ptr::from_mut(&mut byte).cast(),
            addr as *const c_void,
            1,
        )
    };
    (failed == 0).then_some(byte)
}
