// SPDX-License-Identifier: GPL-2.0
//! One thread publishes and tells where by an atomic store; others wait for it
//! and jump there at once, through whatever entry of the page they have cached.

use std::arch::x86_64::__cpuid;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::thread;
use std::time::Duration;

use jitfd_plan::abi;

use super::asm;
use super::execute::call;
use super::outcome::{Checked, Outcome, equal, failed, holds, inapplicable};
use super::patience::Patience;
use super::region::Region;
use super::shared::{self, Atomics};

/// Whether the CPU is QEMU's emulator.
pub fn is_emulated() -> bool {
    let name = __cpuid(0x4000_0000);
    [name.ebx, name.ecx, name.edx]
        .map(u32::to_le_bytes)
        .concat()
        == *b"TCGTCGTCGTCG"
}

/// Skips the test on a machine where nothing can race.
pub fn needs_two_cpus() -> Outcome {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    if cpus < 2 {
        return inapplicable("there is only one CPU");
    }
    Ok(())
}

/// What the publisher tells, in memory that other processes can share: the
/// offset of the newest function plus one, and the number of each that ran.
#[repr(C)]
pub struct Board {
    newest: AtomicU64,
    done: [AtomicU64; 4],
    /// The executors are to end.
    pub stop: AtomicBool,
    /// Results that were not right.
    pub wrong: AtomicU64,
}

// SAFETY: zeros are a valid board, and all of it is atomic.
unsafe impl Atomics for Board {}

/// A [`Board`] in shared memory.
pub type Shared = shared::Shared<Board>;

impl Board {
    /// Tells that the function at `offset` is there.
    pub fn tell(&self, offset: u64) {
        self.newest.store(offset + 1, Release);
    }

    /// Tells that the function at `offset` is there, then waits until all of
    /// `executors` ran it.
    pub fn announce(&self, offset: u64, executors: usize) -> Outcome {
        self.tell(offset);
        let mut patience = Patience::new();
        let ready = |done: &&AtomicU64| done.load(Acquire) == offset + 1;
        for spins in 1_u64.. {
            let ready = self.done[..executors].iter().filter(ready).count();
            if ready == executors {
                return Ok(());
            }
            if self.wrong.load(Relaxed) != 0 || patience.is_over(ready as u64) {
                break;
            }
            // A busy host has something better to do than to watch this CPU spin.
            if spins % 1000 == 0 {
                thread::sleep(Duration::from_micros(50));
            }
            std::hint::spin_loop();
        }
        failed(format!(
            "the function at {offset:#x}: {} wrong, or never run",
            self.wrong.load(Relaxed)
        ))
    }

    /// Runs each function that is announced, at `base`, until told to stop.
    /// A function returns its offset.
    pub fn execute(&self, executor: usize, base: impl Fn(u64) -> usize) {
        let mut last = 0;
        while !self.stop.load(Acquire) {
            let newest = self.newest.load(Acquire);
            if newest == last {
                // Keeps the entry of the page in the TLB.
                if let Some(old) = last.checked_sub(1) {
                    self.run(base(old), old);
                }
                continue;
            }
            self.run(base(newest - 1), newest - 1);
            last = newest;
            self.done[executor].store(newest, Release);
        }
    }

    fn run(&self, addr: usize, offset: u64) {
        if call(addr) != offset {
            self.wrong.fetch_add(1, Relaxed);
        }
    }
}

/// Runs `publish` while `executors` threads execute; stops them in any case.
pub fn with_executors(
    executors: usize,
    board: &Board,
    base: impl Fn(usize, u64) -> usize + Sync,
    publish: impl FnOnce() -> Outcome,
) -> Outcome {
    needs_two_cpus()?;
    thread::scope(|scope| {
        let base = &base;
        for executor in 0..executors {
            scope.spawn(move || board.execute(executor, |offset| base(executor, offset)));
        }
        let outcome = publish();
        board.stop.store(true, Release);
        outcome
    })?;
    equal("wrong results", board.wrong.load(Relaxed), 0)
}

/// Whether the machine is Bochs's.
fn is_bochs() -> bool {
    fs::read_to_string("/sys/class/dmi/id/bios_vendor")
        .is_ok_and(|vendor| vendor.trim() == "The Bochs Project")
}

/// Fails if no stale entry was met where the emulator surely has some.
pub fn had_fixups(region: &Region) -> Outcome {
    let fixups = region.stats()?.fixups;
    let surely = is_emulated() || is_bochs();
    holds(fixups > 0 || !surely, "stale entries were met")
}

/// `mov eax, offset; ret` for what will lie at `offset`.
pub fn identity(offset: u64) -> Vec<u8> {
    asm::answer(offset as u32)
}

/// Appends a function that returns its own offset, in an aligned place, so
/// that no instruction crosses a cache line: then it is whole at once.
pub fn append_identity(region: &Region) -> Checked<u64> {
    append_identity_at(region, region.stats()?.cursor.next_multiple_of(8))
}

/// The same at a place of the caller's choice, at or behind the cursor.
pub fn append_identity_at(region: &Region, at: u64) -> Checked<u64> {
    region.skip_to(at)?;
    let offset = region.append(&identity(at))?;
    equal("the offset", offset, at)?;
    Ok(offset)
}

/// Waits until all replaced pages are freed.
pub fn freed(region: &Region) -> Checked<abi::Stats> {
    let mut patience = Patience::new();
    loop {
        let stats = region.stats()?;
        if stats.retired == stats.freed {
            return Ok(stats);
        }
        if patience.is_over(stats.freed) {
            return failed(format!("{} of {} freed", stats.freed, stats.retired));
        }
        thread::sleep(Duration::from_millis(1));
    }
}
