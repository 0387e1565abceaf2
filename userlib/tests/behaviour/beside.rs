// SPDX-License-Identifier: MIT OR Apache-2.0

//! Threads execute code while more is published next to it.

use super::{create, returns, run};
use jitfd::{Align, Backend, JitFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const FUNCTIONS: usize = 4000;
const TIME: Duration = Duration::from_secs(2);

/// Executes the newest and some older functions until told to stop; returns how
/// many calls it made.
fn execute(region: &JitFd, published: &AtomicUsize, stop: &AtomicBool) -> usize {
    let (mut calls, mut old) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let count = published.load(Ordering::Acquire);
        for index in [count - 1, old % count] {
            assert_eq!(run(region, 16 * index), i32::try_from(index).unwrap());
            calls += 1;
        }
        old = old.wrapping_mul(25_214_903).wrapping_add(11) % (1 << 20);
    }
    calls
}

/// Stops the executors, whatever becomes of the publisher.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn race(backend: Backend, publish: impl Fn(&JitFd, usize)) {
    let region = create(backend, FUNCTIONS * 16);
    publish(&region, 0);
    let (published, stop) = (AtomicUsize::new(1), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let executors = [(); 2].map(|()| scope.spawn(|| execute(&region, &published, &stop)));
        let _stop = Stop(&stop);
        let start = Instant::now();
        for index in 1..FUNCTIONS {
            publish(&region, index);
            published.store(index + 1, Ordering::Release);
            if start.elapsed() > TIME && index > 100 {
                break;
            }
        }
        drop(_stop);
        for executor in executors {
            assert!(executor.join().unwrap() > 0);
        }
    });
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
