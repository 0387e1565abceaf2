// SPDX-License-Identifier: GPL-2.0
//! The pages of code are in the resident memory of a process that holds them, also
//! when the one that made them has ended: there the OOM killer looks.

use std::fs;

use jitfd_plan::abi;

use super::asm;
use super::calls;
use super::code;
use super::harness::{Test, tests};
use super::memory::{self, Mapping};
use super::outcome::{Checked, OrFail, Outcome, holds};
use super::process::{Child, Gate};
use super::region::Region;
use super::sys::{self, PAGE};
use std::os::fd::AsRawFd;

pub fn tests() -> Vec<Test> {
    tests![
        of_the_maker,
        of_who_still_maps_a_part,
        of_a_child_that_has_created_code,
        of_who_still_publishes,
    ]
}

/// So many that the kernel's counters, which are exact to some dozens, show them.
const PAGES: usize = 512;

fn shared_kib() -> Checked<usize> {
    let status = fs::read_to_string("/proc/self/status").or_fail("read /proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssShmem:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .or_fail("RssShmem")
}

/// Pages of code; each begins with a function.
fn code() -> Vec<u8> {
    let mut page = asm::answer(1);
    page.resize(PAGE, 0x90);
    page.repeat(PAGES)
}

fn of_the_maker() -> Outcome {
    let before = shared_kib()?;
    let region = Region::new(PAGES)?;
    region.append(&code())?;
    let grown = shared_kib()?.saturating_sub(before);
    holds(
        grown * 1024 >= PAGES * PAGE,
        format!("a region of {PAGES} pages shows as {grown} KiB"),
    )?;
    drop(region);
    let left = shared_kib()?.saturating_sub(before);
    // Two readings of a counter that each CPU adds to in steps of 32 pages.
    holds(
        left * 1024 <= PAGES * PAGE / 2,
        format!("{left} KiB of what is gone still show"),
    )
}

/// Whether the pages are resident in a child of a process that has called `make`
/// and ended. The child calls `hold` with what that returned, when it is alone.
fn inherited<T>(make: impl FnOnce() -> Checked<T>, hold: impl FnOnce(&T) -> Outcome) -> Outcome {
    let (alone, told) = (Gate::new()?, Gate::new()?);
    Child::start(|| {
        let held = make()?;
        Child::start(|| {
            alone.wait()?;
            hold(&held)?;
            told.send(shared_kib()? as u64)
        })?;
        Ok(())
    })?
    .join()?;
    alone.open()?;
    let seen = told.receive()? as usize;
    holds(
        seen * 1024 >= PAGES * PAGE,
        format!("{PAGES} pages show as {seen} KiB in who is left"),
    )
}

fn of_who_still_maps_a_part() -> Outcome {
    let make = || {
        let region = Region::new(PAGES + 1)?;
        region.append(&code())?;
        let len = (PAGES - 1) * PAGE;
        let part = Mapping::of_file(region.device.as_raw_fd(), len, sys::RX, PAGE)
            .or_fail("mmap all but the first page")?;
        memory::load(part.addr(), len);
        // Neither the handles nor the first page are left.
        Ok(part)
    };
    inherited(make, |_| Ok(()))
}

fn of_a_child_that_has_created_code() -> Outcome {
    inherited(|| code::create(&code()), |_| Ok(()))
}

fn of_who_still_publishes() -> Outcome {
    let make = || {
        let region = Region::with_flags(2 * PAGES, abi::CREATE_ANY_MM)?;
        region.append(&code())?;
        Ok(region.append)
    };
    inherited(make, |append| {
        let appended = calls::append(append.as_raw_fd(), &code());
        appended.or_fail("JIT_APPEND").map(|_| ())
    })
}
