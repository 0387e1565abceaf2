// SPDX-License-Identifier: MIT OR Apache-2.0

//! What all threads share: a lock, and counters.
//!
//! Both lie on a page that is wiped in a forked child (`MADV_WIPEONFORK`). So a child
//! never waits for a thread of its parent, however it was forked, and counts from 0.
//!
//! Who holds the lock has all signals blocked: a handler that interrupts it, and then
//! calls one of the functions here, would wait for ever.

use core::ptr::null_mut;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};

use crate::page::Fault;
use crate::sys::{self, Mask, PAGE};

/// What is counted.
#[derive(Default)]
pub struct Counts {
    /// Ranges that became code.
    pub publications: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Pages that became ordinary memory again.
    pub withdrawn: AtomicU64,
    /// Faults that were cured.
    pub faults: AtomicU64,
    /// Requests for memory that is writable and executable.
    pub refusals: AtomicU64,
    /// Publications that failed.
    pub failures: AtomicU64,
}

#[derive(Default)]
struct Shared {
    /// 0: free, 1: held, 2: held, and somebody waits.
    lock: AtomicU32,
    /// The same fault of the same thread, again and again.
    repeated: AtomicU64,
    repetitions: AtomicU64,
    /// The page and the instruction of the last fault by executing.
    executed: [AtomicUsize; 2],
    counts: Counts,
}

/// Where there is no page for it.
static SPARE: Shared = Shared {
    lock: AtomicU32::new(0),
    repeated: AtomicU64::new(0),
    repetitions: AtomicU64::new(0),
    executed: [const { AtomicUsize::new(0) }; 2],
    counts: Counts {
        publications: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        withdrawn: AtomicU64::new(0),
        faults: AtomicU64::new(0),
        refusals: AtomicU64::new(0),
        failures: AtomicU64::new(0),
    },
};

static SHARED: AtomicPtr<Shared> = AtomicPtr::new(null_mut());

fn shared() -> &'static Shared {
    let place = SHARED.load(Acquire);
    let place = if place.is_null() { make() } else { place };
    // SAFETY: null, or it points to a page of zeros, which are a `Shared`, that is never
    // unmapped; all of it is atomic.
    unsafe { place.as_ref() }.unwrap_or(&SPARE)
}

#[cold]
fn make() -> *mut Shared {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: new memory, and advice about it.
    let page = unsafe {
        let Ok(page) = sys::mmap(0, PAGE, access, flags, -1, 0) else {
            return null_mut();
        };
        let _ = sys::madvise(page, PAGE, libc::MADV_WIPEONFORK);
        page
    };
    let made = core::ptr::with_exposed_provenance_mut(page);
    match SHARED.compare_exchange(null_mut(), made, Release, Acquire) {
        Ok(_) => made,
        Err(other) => {
            // SAFETY: nobody else knows of this page.
            let _ = unsafe { sys::munmap(page, PAGE) };
            other
        }
    }
}

/// The counters of this process.
pub fn counts() -> &'static Counts {
    &shared().counts
}

/// Adds to a counter.
pub fn add(counter: &AtomicU64, number: usize) {
    counter.fetch_add(number as u64, Relaxed);
}

/// Whether the same fault has come so often in a row that no other thread can be the
/// cause.
pub fn is_repeated(address: usize, instruction: usize) -> bool {
    const BOUND: u64 = 1000;
    let shared = shared();
    let fault = (address ^ instruction.rotate_left(32)) as u64;
    if shared.repeated.swap(fault, Relaxed) != fault {
        shared.repetitions.store(0, Relaxed);
    }
    shared.repetitions.fetch_add(1, Relaxed) > BOUND
}

/// Whether an instruction writes to the page on which it is, in full or in part: it could
/// be tried for ever, for no page is writable and executable. For who holds the lock.
pub fn writes_to_itself(page: usize, instruction: usize, fault: Fault) -> bool {
    let executed = &shared().executed;
    let this = [page, instruction];
    match fault {
        Fault::Execute => {
            for (last, this) in executed.iter().zip(this) {
                last.store(this, Relaxed);
            }
            false
        }
        // It begins on this page, or on the one before and could not be executed before
        // this one was code.
        Fault::Write => {
            instruction / PAGE == page || executed.each_ref().map(|last| last.load(Relaxed)) == this
        }
        Fault::Read => false,
    }
}

/// The lock, held.
pub struct Held {
    shared: &'static Shared,
    mask: Mask,
}

/// Takes the lock.
pub fn lock() -> Held {
    let shared = shared();
    let mask = sys::block(libc::SIG_SETMASK, Mask::MAX);
    let word = &shared.lock;
    if word.compare_exchange(0, 1, Acquire, Relaxed).is_err() {
        while word.swap(2, Acquire) != 0 {
            sys::futex_wait(word, 2);
        }
    }
    Held { shared, mask }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.shared.lock.swap(0, Release) == 2 {
            sys::futex_wake(&self.shared.lock);
        }
        sys::block(libc::SIG_SETMASK, self.mask);
    }
}
