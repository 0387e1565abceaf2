// SPDX-License-Identifier: GPL-2.0

//! Waiting for others, for as long as it takes: it ends the run only if nothing at all
//! happens.

use crate::verdict;
use std::hint;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// No single step takes so long, on whatever machine.
const STALL: Duration = Duration::from_secs(300);
/// How often it is said what is waited for: whoever hears nothing takes the guest for
/// stalled.
const TELL: Duration = Duration::from_secs(60);
/// How often a thread that spins looks at the clock.
const SPINS: u32 = 1 << 14;

/// Notices that nothing happens.
struct Watch {
    seen: Option<u64>,
    since: Instant,
}

impl Watch {
    fn new() -> Self {
        Watch {
            seen: None,
            since: Instant::now(),
        }
    }

    /// Fails if `progress` has been the same for too long.
    fn look(&mut self, what: &str, progress: u64) {
        if self.seen != Some(progress) {
            self.seen = Some(progress);
            self.since = Instant::now();
        } else if self.since.elapsed() > STALL {
            verdict::fail(format_args!("nothing happens: {what}: {progress}"));
        }
    }
}

/// Waits until `left` has nothing to tell, looking every `pause`. What it tells changes
/// while things go on.
pub fn until(what: &str, pause: Duration, left: impl Fn() -> Option<u64>) {
    let (mut watch, mut told) = (Watch::new(), Instant::now());
    while let Some(progress) = left() {
        watch.look(what, progress);
        if told.elapsed() > TELL {
            println!("stress: waiting for {what}: {progress}");
            told = Instant::now();
        }
        std::thread::sleep(pause);
    }
}

/// Waits for a single event and misses nothing of what follows it.
pub fn spin_until(what: &str, happened: impl Fn() -> bool) {
    let mut watch = Watch::new();
    let mut spins = 0_u32;
    while !happened() {
        hint::spin_loop();
        spins += 1;
        if spins == SPINS {
            watch.look(what, 0);
            spins = 0;
        }
    }
}

/// The same for a word that becomes `value`.
pub fn wait(word: &AtomicUsize, value: usize) {
    spin_until("another thread's word", || {
        word.load(Ordering::Acquire) == value
    });
}
