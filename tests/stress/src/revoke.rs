// SPDX-License-Identifier: GPL-2.0

//! `mprotect()` against publications: one thread executes a page, another publishes
//! on it, and a third takes the access away. Once that call has returned nobody may
//! get in: `mprotect()` flushes where it finds an entry to change, so a swap must not
//! change it for it.

use crate::duel::{call, chunk, contender};
use crate::sys;
use crate::verdict::{self, must};
use crate::wait::{spin_until, wait};
use jitfd::{Align, AppendHandle, Fallback, Jit, RegionOptions};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

const PAGE: usize = 4096;
/// `mprotect()` has a long way to the last page, between the first thing that it
/// changes and the entry.
const CAPACITY: usize = 1 << 30;
const ROUNDS: usize = 150;
/// What the page has room for.
const APPENDS: usize = (PAGE - 128) / ROUNDS;

/// How many duels there were.
pub fn fight() -> u64 {
    let options = RegionOptions {
        capacity: CAPACITY,
        boundary_map: false,
        ..Default::default()
    };
    let (_map, append, mapping) = must(
        Jit::open(Fallback::Never).and_then(|jit| jit.region(options)),
        "create",
    )
    .split();
    must(append.reserve(CAPACITY - PAGE, Align::NONE), "reserve");
    let offset = must(append.publish_all(&[&chunk(&contender(7))]), "append");
    let target = mapping.address() + offset.first().copied().unwrap_or_default();
    let (calls, round, done) = (
        AtomicU64::new(0),
        AtomicUsize::new(0),
        AtomicBool::new(false),
    );
    sys::expect_revoked(target);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                call(target, 7, 1);
                calls.fetch_add(1, Ordering::Release);
            }
        });
        scope.spawn(|| publish(&append, &round));
        for number in 1..=ROUNDS {
            let before = calls.load(Ordering::Acquire);
            wait_for_more(&calls, before);
            round.store(number, Ordering::Release);
            for _ in 0..number * 37 % 1000 {
                std::hint::spin_loop();
            }
            sys::revoke(mapping.address(), CAPACITY);
            check_nobody_calls(&calls);
            sys::restore(mapping.address(), CAPACITY);
            wait(&round, 0);
        }
        done.store(true, Ordering::Relaxed);
        round.store(usize::MAX, Ordering::Release);
    });
    sys::expect_revoked(0);
    ROUNDS as u64
}

fn publish(append: &AppendHandle, round: &AtomicUsize) {
    let nop = chunk(&[0x90]);
    loop {
        match round.load(Ordering::Acquire) {
            0 => std::hint::spin_loop(),
            usize::MAX => return,
            _ => {
                for _ in 0..APPENDS {
                    must(append.publish_all(&[&nop]), "append");
                }
                round.store(0, Ordering::Release);
            }
        }
    }
}

fn wait_for_more(calls: &AtomicU64, before: u64) {
    spin_until("calls", || calls.load(Ordering::Acquire) != before);
}

/// Waits until the thread that calls has been refused. One call may be on its way.
fn check_nobody_calls(calls: &AtomicU64) {
    let before = (sys::refused(), calls.load(Ordering::Acquire));
    spin_until("a call to be refused", || {
        let late = calls.load(Ordering::Acquire) - before.1;
        if late > 1 {
            verdict::fail(format_args!(
                "{late} calls after mprotect(PROT_NONE) had returned"
            ));
        }
        sys::refused() != before.0
    });
}
