// SPDX-License-Identifier: GPL-2.0

//! What `JIT_STATS` counts.
//!
//! Context: any. No locks.

use kernel::sync::atomic::{Atomic, Relaxed};

/// The counters of one region.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) publications: Counter,
    pub(crate) segments: Counter,
    pub(crate) bytes: Counter,
    pub(crate) swaps: Counter,
    pub(crate) in_place: Counter,
    pub(crate) fixups: Counter,
    pub(crate) retired: Counter,
    pub(crate) flushes: Counter,
    pub(crate) ipis: Counter,
    pub(crate) straddles: Counter,
    pub(crate) ticks: Counter,
    pub(crate) spared: Counter,
}

/// An event count.
pub(crate) struct Counter(Atomic<i64>);

impl Default for Counter {
    fn default() -> Self {
        Counter(Atomic::new(0))
    }
}

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n as i64, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed) as u64
    }
}
