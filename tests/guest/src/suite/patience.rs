// SPDX-License-Identifier: GPL-2.0
//! Waiting for something without a bound on how long it takes: only a stall is a
//! failure. What shows progress begins the limit anew; when it is over the machine's
//! speed is measured, and a slow one gets that many times more.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use super::outcome::{Checked, Outcome, failed};
use super::sys;

/// Nothing that a test waits for stands still for so long.
const STALL: Duration = Duration::from_secs(30);

/// What [`slowness`] takes on Debian's kernel, emulated, on the machine on which the
/// limits were chosen, with nothing else to do.
const USUAL: Duration = Duration::from_millis(250);
/// Its work: steps of a computation, and processes. Enough that a busy scheduler gives
/// no more than a fair share.
const STEPS: u64 = 40_000_000;
const PROCESSES: usize = 10;

/// How many times slower this guest is just now than the limits take for granted; at
/// least 1.
pub fn slowness() -> f64 {
    let start = Instant::now();
    compute();
    for _ in 0..PROCESSES {
        fork_and_wait();
    }
    (start.elapsed().as_secs_f64() / USUAL.as_secs_f64()).max(1.0)
}

fn compute() {
    let mut value = 1_u64;
    for _ in 0..STEPS {
        value ^= value << 13;
        value ^= value >> 7;
        value ^= value << 17;
    }
    black_box(value);
}

/// The work of the kernel, which a kernel with checks does slowly.
fn fork_and_wait() {
    match sys::fork() {
        Ok(0) => sys::exit(0),
        // Whoever has forbidden it is measured by the rest.
        Err(_) => {}
        Ok(child) => {
            let _ = sys::wait(child);
        }
    }
}

/// How long something may stand still.
pub struct Patience {
    limit: Duration,
    seen: Option<u64>,
    since: Instant,
    deadline: Instant,
}

impl Patience {
    /// With what a test waits for.
    pub fn new() -> Self {
        Patience::of(STALL)
    }

    /// For at most `limit`, where the machine is as fast as usual.
    pub fn of(limit: Duration) -> Self {
        let since = Instant::now();
        Patience {
            limit,
            seen: None,
            since,
            deadline: since + limit,
        }
    }

    /// Whether `progress`, a number that changes while things go on, has stayed the same
    /// for too long.
    pub fn is_over(&mut self, progress: u64) -> bool {
        if self.seen != Some(progress) {
            *self = Patience::of(self.limit);
            self.seen = Some(progress);
        }
        if Instant::now() < self.deadline {
            return false;
        }
        self.deadline = self.since + self.limit.mul_f64(slowness());
        Instant::now() >= self.deadline
    }
}

/// Waits until `count` is at least `wanted`. Fails if it stands still before.
pub fn reaches(what: &str, wanted: u64, count: impl Fn() -> Checked<u64>) -> Outcome {
    let mut patience = Patience::new();
    loop {
        let now = count()?;
        if now >= wanted {
            return Ok(());
        }
        if patience.is_over(now) {
            return failed(format!("{what}: {now} of {wanted}, and no more"));
        }
        thread::yield_now();
    }
}

/// Looks without a change after which a number is taken for settled, and the time
/// between two.
const LOOKS: usize = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// The largest value that `number` comes to: once it is `wanted`, or grows no more. For
/// what is given back late, where nothing tells that it is done; a test that fails by a
/// smaller number than there should be tries several times.
pub fn settled(wanted: i64, number: impl Fn() -> Checked<i64>) -> Checked<i64> {
    let mut most = number()?;
    let mut same = 0;
    while most < wanted && same < LOOKS {
        thread::sleep(PAUSE);
        let now = number()?;
        same = if now > most { 0 } else { same + 1 };
        most = most.max(now);
    }
    Ok(most)
}
