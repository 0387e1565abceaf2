// SPDX-License-Identifier: MIT OR Apache-2.0

//! Threads execute code while more is published next to it.

use super::{create, returns, run};
use jitfd::{Align, Backend, Region};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

const FUNCTIONS: usize = 4000;
/// So many are published in any case, and calls made meanwhile; more where that takes
/// no longer than `TIME`.
const LEAST: usize = 300;
const TIME: Duration = Duration::from_secs(2);
/// A thread that does not make a single call for so long does not run.
const STALL: Duration = Duration::from_secs(300);

/// Executes the newest and some older functions until told to stop; counts.
fn execute(region: &Region, published: &AtomicUsize, calls: &AtomicUsize, stop: &AtomicBool) {
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

/// Waits until a call was made after `before` of them, or a thread has failed.
///
/// # Panics
/// If none comes.
fn wait_for_call(calls: &AtomicUsize, before: usize, executors: &[ScopedJoinHandle<'_, ()>]) {
    let start = Instant::now();
    let has_failed = || executors.iter().any(ScopedJoinHandle::is_finished);
    while calls.load(Ordering::Relaxed) == before && !has_failed() {
        assert!(start.elapsed() < STALL, "the executors don't run");
        std::thread::yield_now();
    }
}

fn race(backend: Backend, publish: impl Fn(&Region, usize)) {
    let region = create(backend, FUNCTIONS * 16);
    publish(&region, 0);
    let (published, stop) = (AtomicUsize::new(1), AtomicBool::new(false));
    let calls = AtomicUsize::new(0);
    let executor = || execute(&region, &published, &calls, &stop);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        let executors = [scope.spawn(executor), scope.spawn(executor)];
        let start = Instant::now();
        for index in 1..FUNCTIONS {
            let before = calls.load(Ordering::Relaxed);
            publish(&region, index);
            published.store(index + 1, Ordering::Release);
            if index < LEAST {
                wait_for_call(&calls, before, &executors);
            } else if start.elapsed() > TIME {
                break;
            }
        }
    });
}

pub fn code_runs_while_more_is_appended(backend: Backend) {
    race(backend, |region, index| {
        let chunk = returns(i32::try_from(index).unwrap());
        assert_eq!(region.publish(&chunk).unwrap().offset, 16 * index);
    });
}

pub fn code_runs_while_more_is_filled_in(backend: Backend) {
    race(backend, |region, index| {
        let chunk = returns(i32::try_from(index).unwrap());
        let place = region.reserve(16, Align::FUNCTION).unwrap();
        region.fill(&place, &chunk).unwrap();
    });
}
