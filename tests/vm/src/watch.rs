// SPDX-License-Identifier: GPL-2.0
//! A limit that only a stall reaches: it begins anew with each sign of life, and when
//! it is over the machine's speed is measured; a slow machine gets that much more.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

/// What [`slowness`] takes on the machine on which the limits were chosen, with nothing
/// else to do.
const USUAL: Duration = Duration::from_millis(500);
/// Steps of its work. Enough that a busy machine's scheduler gives no more than a fair
/// share.
const STEPS: u64 = 280_000_000;

/// How many times slower this machine is just now than the limits take for granted; at
/// least 1. Measured by work, on as many threads as an ordinary guest has CPUs.
pub fn slowness() -> f64 {
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    (start.elapsed().as_secs_f64() / USUAL.as_secs_f64()).max(1.0)
}

fn work() {
    let mut value = 1_u64;
    for _ in 0..STEPS {
        value ^= value << 13;
        value ^= value >> 7;
        value ^= value << 17;
    }
    black_box(value);
}

/// Watches for one sign of life after another.
pub struct Watch {
    limit: Duration,
    since: Instant,
    deadline: Instant,
    slowness: fn() -> f64,
}

impl Watch {
    /// Nothing may be heard for `limit`, and longer where [`slowness`] says so.
    pub fn new(limit: Duration) -> Watch {
        Watch::measured_by(limit, slowness)
    }

    fn measured_by(limit: Duration, slowness: fn() -> f64) -> Watch {
        let since = Instant::now();
        Watch {
            limit,
            since,
            deadline: since + limit,
            slowness,
        }
    }

    /// A sign of life.
    pub fn progress(&mut self) {
        self.since = Instant::now();
        self.deadline = self.since + self.limit;
    }

    /// How long to wait before [`Watch::is_over`] is asked.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether nothing was heard for too long. If not, something may be left again.
    pub fn is_over(&mut self) -> bool {
        if !self.left().is_zero() {
            return false;
        }
        let allowed = self.limit.mul_f64((self.slowness)());
        self.deadline = self.since + allowed;
        self.left().is_zero()
    }

    /// For how long nothing was heard.
    pub fn silence(&self) -> Duration {
        self.since.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    fn pass(watch: &Watch) {
        thread::sleep(watch.left());
    }

    #[test]
    fn a_stall_is_the_end() {
        let mut watch = Watch::measured_by(LIMIT, || 1.0);
        pass(&watch);
        assert!(watch.is_over() && watch.silence() >= LIMIT);
    }

    #[test]
    fn each_sign_of_life_begins_the_limit_anew() {
        let mut watch = Watch::measured_by(LIMIT, || 1.0);
        for _ in 0..3 {
            let before = watch.deadline;
            pass(&watch);
            watch.progress();
            assert!(watch.deadline >= before + LIMIT);
        }
    }

    /// As many times the limit as the machine is slower.
    #[test]
    fn a_slow_machine_gets_more_but_not_for_ever() {
        let mut watch = Watch::measured_by(LIMIT, || 4.0);
        pass(&watch);
        // If this machine is really slow, more than four limits have passed.
        let in_time = watch.silence() < 3 * LIMIT;
        assert!(!watch.is_over() || !in_time);
        pass(&watch);
        assert!(watch.silence() >= 4 * LIMIT && watch.is_over());
    }
}
