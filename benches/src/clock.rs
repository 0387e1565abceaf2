// SPDX-License-Identifier: GPL-2.0

//! Time by the time-stamp counter: reading it is no system call, whatever the
//! kernel thinks of it. Its rate is measured over the whole run.

use std::time::Instant;

/// The counter now, in ticks.
pub fn ticks() -> u64 {
    // SAFETY: Every x86-64 CPU has the instruction.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// The start of the run, by both clocks.
pub struct Clock {
    instant: Instant,
    ticks: u64,
}

impl Clock {
    /// Starts to measure the counter's rate.
    pub fn start() -> Self {
        Clock {
            instant: Instant::now(),
            ticks: ticks(),
        }
    }

    /// The counter's rate, from the start until now.
    pub fn ticks_per_nanosecond(&self) -> f64 {
        let passed = ticks() - self.ticks;
        passed as f64 / self.instant.elapsed().as_nanos() as f64
    }
}
