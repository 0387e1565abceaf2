// SPDX-License-Identifier: MIT OR Apache-2.0

//! Threads execute code while more is published next to it.

use super::{create, returns, run};
use jitfd::{Align, Backend, JitFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const FUNCTIONS: usize = 4000;
/// So long, if the executors don't get to run.
const MOST: usize = 12_000;
const TIME: Duration = Duration::from_secs(2);

/// Executes the newest and some older functions until told to stop; counts.
fn execute(region: &JitFd, published: &AtomicUsize, calls: &AtomicUsize, stop: &AtomicBool) {
    let mut old = 0;
    while !stop.load(Ordering::Relaxed) {
        let count = published.load(Ordering::Acquire);
        for index in [count - 1, old % count] {
            assert_eq!(run(region, 16 * index), i32::try_from(index).unwrap());
            calls.fetch_add(1, Ordering::Relaxed);
        }
        old = old.wrapping_mul(25_214_903).wrapping_add(11) % (1 << 20);
    }
}

/// Stops the executors, whatever becomes of the publisher.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn race(backend: Backend, publish: impl Fn(&JitFd, usize)) {
    let region = create(backend, MOST * 16);
    publish(&region, 0);
    let (published, stop) = (AtomicUsize::new(1), AtomicBool::new(false));
    let calls = AtomicUsize::new(0);
    let executor = || execute(&region, &published, &calls, &stop);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(executor);
        scope.spawn(executor);
        let (start, mut index) = (Instant::now(), 1);
        // Until enough was published, and enough executed meanwhile.
        while index < FUNCTIONS && (index < 100 || start.elapsed() < TIME)
            || calls.load(Ordering::Relaxed) < 1000 && index < MOST
        {
            publish(&region, index);
            published.store(index + 1, Ordering::Release);
            index += 1;
            if index >= FUNCTIONS {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    assert!(calls.into_inner() > 1000, "the executors hardly ran");
}

pub fn code_runs_while_more_is_appended(backend: Backend) {
    race(backend, |region, index| {
        let chunk = returns(i32::try_from(index).unwrap());
        assert_eq!(region.append(&chunk).unwrap().offset, 16 * index);
    });
}

pub fn code_runs_while_more_is_filled_in(backend: Backend) {
    race(backend, |region, index| {
        let chunk = returns(i32::try_from(index).unwrap());
        let place = region.reserve(16, Align::FUNCTION).unwrap();
        region.fill(&place, &chunk).unwrap();
    });
}
