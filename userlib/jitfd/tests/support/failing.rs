// SPDX-License-Identifier: MIT OR Apache-2.0

//! An allocator that fails when a test says so: what comes next without memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;

pub struct Failing;

/// Which allocations fail.
#[derive(Clone, Copy, Debug)]
pub enum Fails {
    /// The one with this number, from 0.
    One(usize),
    /// That one and all that follow.
    From(usize),
}

thread_local! {
    static FAILS: Cell<Option<Fails>> = const { Cell::new(None) };
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// Does `work` while allocations of this thread fail, and says how many there were.
pub fn failing<T>(fails: Fails, work: impl FnOnce() -> T) -> (T, usize) {
    COUNT.set(0);
    FAILS.set(Some(fails));
    let done = work();
    FAILS.set(None);
    (done, COUNT.get())
}

fn fails() -> bool {
    let Some(fails) = FAILS.get() else {
        return false;
    };
    let number = COUNT.replace(COUNT.get() + 1);
    match fails {
        Fails::One(one) => number == one,
        Fails::From(first) => number >= first,
    }
}

// SAFETY: hands everything on to the system's allocator, or returns null.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails() {
            return null_mut();
        }
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if fails() {
            return null_mut();
        }
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(block, layout) }
    }
}

/// The status of a forked child that does `work`; `None` if it was killed, as one that
/// aborts is, or one that hangs on its way to that.
pub fn in_child(work: impl FnOnce() -> i32) -> Option<i32> {
    // SAFETY: the child does its work, which needs no other thread, and ends.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: ends this process some time.
            unsafe { libc::alarm(60) };
            let status = work();
            // SAFETY: ends this process.
            unsafe { libc::_exit(status) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the child is this process's, and the status a number of ours.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
        }
    }
}
