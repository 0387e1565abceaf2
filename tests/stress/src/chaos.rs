// SPDX-License-Identifier: GPL-2.0

//! What may happen to a process at any time while others publish: forks, protections, new
//! mappings that move and go, signals, migration, CPUs that go off line.

use crate::board::Board;
use crate::random::Random;
use crate::verdict::must;
use crate::{executor, sys};
use jitfd::MapHandle;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Until the round is over; once in any case, as a thread may be late for all of it.
fn repeat(board: &Board, mut disturb: impl FnMut()) {
    loop {
        disturb();
        if board.is_over() {
            return;
        }
    }
}

fn pause(random: &mut Random) {
    std::thread::sleep(Duration::from_millis(1 + random.below(8) as u64));
}

/// Forks children, and children of children, that execute what was published
/// before and what is published while they run.
pub fn fork(base: usize, board: &Board, mut random: Random) {
    repeat(board, || {
        let seed = random.next();
        let pid = sys::fork(|| {
            let mut random = Random::new(seed, 1);
            executor::some(base, board, &mut random, 400);
            let grandchild =
                sys::fork(|| executor::some(base, board, &mut Random::new(seed, 2), 400));
            executor::some(base, board, &mut random, 100);
            sys::join(grandchild);
        });
        board.shared().forks.fetch_add(2, Ordering::Relaxed);
        sys::join(pid);
        pause(&mut random);
    });
}

/// Changes whether the region may be read, which nobody does, time after time. The VMA
/// is locked for writing meanwhile, so that a trap there can't be judged at once. In
/// bursts: traps that can are to come, too.
pub fn protect(base: usize, len: usize, board: &Board, mut random: Random) {
    repeat(board, || {
        for _ in 0..random.below(200) {
            sys::forbid_reading(base, len);
            sys::restore(base, len);
        }
        pause(&mut random);
    });
}

/// Maps the region once more, executes there, moves it, executes again, takes
/// a piece out, unmaps the rest.
pub fn remap(map: &MapHandle, len: usize, board: &Board, mut random: Random) {
    const PAGE: usize = 4096;
    repeat(board, || {
        let mapping = must(map.map(len, None), "a second mapping");
        executor::some(mapping.address(), board, &mut random, 200);
        // From here on the mapping is looked after by hand.
        let address = sys::move_mapping(mapping.address(), len);
        std::mem::forget(mapping);
        executor::some(address, board, &mut random, 200);
        sys::revoke(address, len);
        sys::restore(address, len);
        executor::some(address, board, &mut random, 100);
        let cut = random.below(len / PAGE - 1) * PAGE;
        sys::unmap(address + cut, PAGE);
        sys::unmap(address, len);
        board.shared().remaps.fetch_add(1, Ordering::Relaxed);
        pause(&mut random);
    });
}

/// Sends signals to threads that execute; the handler executes, too.
pub fn signal(threads: &[libc::pid_t], board: &Board, mut random: Random) {
    repeat(board, || {
        sys::signal(threads[random.below(threads.len())]);
        board.shared().signals.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_micros(300));
    });
}

/// Executes on one CPU after another.
pub fn migrate(base: usize, board: &Board, mut random: Random) {
    let cpus = sys::cpus();
    while !board.is_over() {
        sys::migrate(random.below(cpus));
        executor::some(base, board, &mut random, 64);
    }
}

/// Takes a CPU (never CPU 0) off line and brings it back.
pub fn hotplug(board: &Board, mut random: Random) {
    let cpus = sys::cpus();
    while !board.is_over() && cpus > 1 {
        let cpu = 1 + random.below(cpus - 1);
        let file = format!("/sys/devices/system/cpu/cpu{cpu}/online");
        must(std::fs::write(&file, "0"), &file);
        pause(&mut random);
        must(std::fs::write(&file, "1"), &file);
        board.shared().offlined.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(50));
    }
}
