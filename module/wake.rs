// SPDX-License-Identifier: GPL-2.0

//! When the reclaim thread sleeps, and who wakes it.
//!
//! Context: [`sleep`] in the thread; the rest anywhere.

use kernel::{
    bindings,
    prelude::*,
    sync::atomic::{Acquire, Atomic, Full, Relaxed, Release},
    time::msecs_to_jiffies,
};

use crate::ffi;

/// How often idle pools are looked for.
pub(crate) const IDLE_MS: u32 = 1000;

/// Not zero while the kthread has work.
static WORK: Atomic<i32> = Atomic::new(0);
/// Not zero while the kthread sleeps until somebody wakes it.
static SLEEPS: Atomic<i32> = Atomic::new(0);
static THREAD: Atomic<*mut bindings::task_struct> = Atomic::new(core::ptr::null_mut());
/// Pages in all pools.
static KEPT: Atomic<i64> = Atomic::new(0);

/// The thread that is woken, from now on.
///
/// # Safety
///
/// It lives until this is called again.
pub(crate) unsafe fn set_thread(thread: *mut bindings::task_struct) {
    THREAD.store(thread, Release);
}

/// There is work.
pub(crate) fn add_work() {
    if WORK.xchg(1, Full) == 0 {
        wake();
    }
}

/// Whether `is_there` finds any work. If not, who adds some from here on wakes the
/// thread.
pub(crate) fn has_work(is_there: impl FnOnce() -> bool) -> bool {
    WORK.xchg(0, Full);
    let has_work = is_there();
    if has_work {
        WORK.xchg(1, Full);
    }
    has_work
}

/// One page more is in a pool. For the first of all, the thread has to look whether
/// they are used, once a second.
pub(crate) fn add_kept() {
    if KEPT.fetch_add(1, Full) == 0 && SLEEPS.load(Relaxed) != 0 {
        wake();
    }
}

/// There is one less.
pub(crate) fn remove_kept() {
    KEPT.fetch_sub(1, Relaxed);
}

/// Pages in all pools.
pub(crate) fn kept() -> i64 {
    KEPT.load(Relaxed)
}

/// Has the thread look for work.
fn wake() {
    let thread = THREAD.load(Acquire);
    if !thread.is_null() {
        // SAFETY: The thread lives until it is forgotten here.
        unsafe { bindings::wake_up_process(thread) };
    }
}

/// Sleeps until there is work, or idle pools may have to be emptied.
pub(crate) fn sleep() {
    let pause = msecs_to_jiffies(IDLE_MS) as c_long;
    // SAFETY: `WORK` and `SLEEPS` are static and have the layout of an `int`, `KEPT`
    // that of a `long`.
    unsafe { ffi::jit_kthread_sleep(WORK.as_ptr(), KEPT.as_ptr().cast(), SLEEPS.as_ptr(), pause) };
}
