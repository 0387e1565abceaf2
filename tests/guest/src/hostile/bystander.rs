// SPDX-License-Identifier: GPL-2.0
//! A CPU that a publisher once ran on, and that runs something else now: its user TLB
//! is not flushed for the publisher's sake, nor is it interrupted again and again, and
//! what is done there is counted.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use jitfd_plan::abi::{JIT_STATS, PUBLISH_SYNC, Stats};

use crate::suite::harness::{Test, tests};
use crate::suite::memory::load;
use crate::suite::outcome::{Checked, OrFail, Outcome, failed};
use crate::suite::patience::reaches;
use crate::suite::process::Child;
use crate::suite::race::needs_two_cpus;
use crate::suite::region::Region;
use crate::suite::sys;

use super::bounds::{FLUSHES, IPIS, SPARED, TICKS, VICTIM};

pub fn tests() -> Vec<Test> {
    tests![
        is_left_alone,
        is_interrupted_once,
        flushes_at_ticks_are_counted,
    ]
}

const WORDS: usize = size_of::<Stats>() / size_of::<u64>();

/// The words of `JIT_STATS`.
fn words(fd: RawFd) -> Checked<[u64; WORDS]> {
    let mut words = [0; WORDS];
    sys::ioctl_inout(fd, JIT_STATS, &mut words).or_fail("JIT_STATS")?;
    Ok(words)
}

const PUBLISHING: usize = 0;
const OTHER: usize = 1;

/// Publications, with a pause of several ticks after each few of them.
fn publish(region: &Region) -> Outcome {
    for _ in 0..40 {
        for _ in 0..5 {
            load(region.at(region.append(&[0x90; 16])?), 1);
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// What was counted while [`publish`] was done on one CPU and `other` ran on the other,
/// where the publisher was before.
fn counted(other: impl FnOnce() -> Outcome) -> Checked<(u64, u64)> {
    let other = Child::of_user(VICTIM, || {
        sys::run_on(OTHER).or_fail("take a CPU")?;
        other()
    })?;
    let region = Region::new(64)?;
    sys::run_on(OTHER).or_fail("take a CPU")?;
    for _ in 0..20 {
        load(region.at(region.append(&[0x90; 16])?), 1);
    }
    sys::run_on(PUBLISHING).or_fail("take a CPU")?;
    thread::sleep(Duration::from_millis(50));
    let before = words(region.fd())?;
    publish(&region)?;
    let after = words(region.fd())?;
    other.end()?;
    Ok((after[TICKS] - before[TICKS], after[SPARED] - before[SPARED]))
}

/// The kernel forgets now and then, at most once a second, which CPUs a process was on:
/// then there is nobody to spare. So one of a few tries is enough.
const TRIES: usize = 5;

/// The bystander's CPU ticks as often as the publisher's, and is spared each time.
fn is_left_alone() -> Outcome {
    // Before the first try: it takes the choice of a CPU away.
    needs_two_cpus()?;
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let (ticks, spared) = counted(|| {
            loop {
                std::hint::spin_loop();
            }
        })?;
        if spared > 0 && spared >= ticks / 4 {
            return Ok(());
        }
        seen.push(format!("{ticks} flushes at ticks, {spared} spared"));
    }
    failed(seen.join("; "))
}

/// Publications that end with a flush.
const ASKED: u64 = 200;

/// A publisher that asks for a flush with each publication interrupts a CPU that it was
/// on before and that runs something else by now. The first time the CPU finds that out,
/// and is left alone from then on.
fn is_interrupted_once() -> Outcome {
    needs_two_cpus()?;
    let other = Child::of_user(VICTIM, || {
        sys::run_on(OTHER).or_fail("take a CPU")?;
        loop {
            std::hint::spin_loop();
        }
    })?;
    let region = Region::new(64)?;
    sys::run_on(OTHER).or_fail("take a CPU")?;
    for _ in 0..20 {
        load(region.at(region.append(&[0x90; 16])?), 1);
    }
    sys::run_on(PUBLISHING).or_fail("take a CPU")?;
    let before = words(region.fd())?;
    for _ in 0..ASKED {
        load(region.at(region.append_with(&[0x90; 16], PUBLISH_SYNC)?), 1);
    }
    let after = words(region.fd())?;
    other.end()?;
    let count = |word: usize| after[word] - before[word];
    let (flushes, interrupts) = (count(FLUSHES), count(IPIS));
    if flushes < ASKED / 2 || interrupts > ASKED / 20 {
        return failed(format!("{interrupts} interrupts in {flushes} flushes"));
    }
    Ok(())
}

/// Flushes after which they are believed to be counted.
const ENOUGH: u64 = 20;

/// A thread of the publisher's own on that CPU is no bystander: its TLB is flushed. (The
/// publisher's own CPU may run something else while that one sleeps.)
fn flushes_at_ticks_are_counted() -> Outcome {
    needs_two_cpus()?;
    let region = Region::new(512)?;
    let stop = AtomicBool::new(false);
    let stopped = || stop.load(Relaxed);
    load(region.at(region.append(&[0x90])?), 1);
    sys::run_on(PUBLISHING).or_fail("take a CPU")?;
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = sys::run_on(OTHER);
            while !stopped() {
                load(region.at(0), 1);
            }
        });
        let outcome = reaches("flushes at ticks", ENOUGH, || {
            publish(&region)?;
            Ok(words(region.fd())?[TICKS])
        });
        stop.store(true, Relaxed);
        outcome
    })
}
