// SPDX-License-Identifier: GPL-2.0

//! Threads that call recently published functions, and check that each is the
//! one it should be. They stop when this is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crate::error::Result;
use crate::function::LEN;
use crate::sys;

/// How many functions count as recent.
const RECENT: u64 = 64;

/// Published functions: number n is `n * LEN` bytes from the base. Never freed,
/// like what it points to.
pub struct Window {
    base: usize,
    count: AtomicU64,
    /// The highest number that was called.
    called: AtomicU64,
}

impl Window {
    /// The first `count` functions are there.
    pub fn new(base: usize, count: usize) -> &'static Self {
        Box::leak(Box::new(Window {
            base,
            count: AtomicU64::new(count as u64),
            called: AtomicU64::new(0),
        }))
    }

    /// Where function `number` is.
    pub fn address(&self, number: usize) -> usize {
        self.base + number * LEN
    }

    /// From now on `count` functions are there.
    pub fn grow(&self, count: usize) {
        self.count.store(count as u64, Ordering::Release);
    }

    /// Whether the newest function was called.
    fn is_used(&self) -> bool {
        self.called.load(Ordering::Relaxed) + 1 >= self.count.load(Ordering::Relaxed)
    }

    /// Calls one of the recent functions, chosen by `random`: every second time
    /// the newest.
    fn call(&self, random: u64) {
        let count = self.count.load(Ordering::Acquire);
        if count == 0 {
            return std::hint::spin_loop();
        }
        let back = if random & 1 == 0 {
            0
        } else {
            (random >> 1) % count.min(RECENT)
        };
        let number = count - 1 - back;
        // SAFETY: That many functions are published, and they stay.
        let answer = unsafe { sys::call(self.address(number as usize)) };
        if u64::from(answer) != number {
            eprintln!("bench: failed: function {number} answered {answer}");
            std::process::exit(1);
        }
        if self.called.load(Ordering::Relaxed) < number {
            self.called.fetch_max(number, Ordering::Relaxed);
        }
    }
}

/// What all threads share.
struct Shared {
    window: AtomicPtr<Window>,
    stop: AtomicBool,
}

/// The calls of one thread, in a cache line of its own.
#[repr(align(64))]
#[derive(Default)]
struct Calls(AtomicU64);

/// Running threads.
pub struct Executors {
    shared: Arc<Shared>,
    calls: Arc<[Calls]>,
    threads: Vec<JoinHandle<()>>,
}

impl Executors {
    /// Starts `count` threads on all CPUs but the first, where there are more.
    pub fn start(count: usize, window: &'static Window) -> Self {
        let shared = Arc::new(Shared {
            window: AtomicPtr::new(std::ptr::from_ref(window).cast_mut()),
            stop: AtomicBool::new(false),
        });
        let calls: Arc<[Calls]> = (0..count).map(|_| Calls::default()).collect();
        let threads = (0..count)
            .map(|index| {
                let (shared, calls) = (shared.clone(), calls.clone());
                thread::spawn(move || execute(&shared, &calls[index].0, index))
            })
            .collect();
        Executors {
            shared,
            calls,
            threads,
        }
    }

    /// From now on they call functions of `window`.
    pub fn turn_to(&self, window: &'static Window) {
        let window = std::ptr::from_ref(window).cast_mut();
        self.shared.window.store(window, Ordering::Release);
    }

    /// All calls so far.
    pub fn calls(&self) -> u64 {
        let each = self.calls.iter();
        each.map(|calls| calls.0.load(Ordering::Relaxed)).sum()
    }

    /// Waits until some thread has called the newest function of `window`, or
    /// anything more if that was called before. So each publication meets code
    /// that is in use.
    pub fn catch_up(&self, window: &Window) {
        let before = self.calls();
        while !self.calls.is_empty() && (!window.is_used() || self.calls() == before) {
            thread::yield_now();
        }
    }
}

impl Drop for Executors {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread can't panic; it ends the process if anything is wrong.
            let _ = thread.join();
        }
    }
}

fn execute(shared: &Shared, calls: &AtomicU64, index: usize) {
    if let Err(error) = settle_on_cpu(index) {
        eprintln!("bench: failed: {error}");
        std::process::exit(1);
    }
    let mut random = 0x9e37_79b9_7f4a_7c15 + index as u64;
    while !shared.stop.load(Ordering::Relaxed) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // SAFETY: Windows are never freed.
        let window = unsafe { &*shared.window.load(Ordering::Acquire) };
        window.call(random);
        calls.store(calls.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

fn settle_on_cpu(index: usize) -> Result<()> {
    let others = sys::cpus() - 1;
    sys::pin(if others == 0 { 0 } else { 1 + index % others })
}
