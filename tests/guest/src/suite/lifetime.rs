// SPDX-License-Identifier: GPL-2.0
//! Regions come and go: after the last close everything is given back.

use std::fs;
use std::os::fd::AsRawFd;
use std::time::Duration;

use jitfd_plan::abi::{CloneFrom, CreateCode, JIT_APPEND, Segment};

use super::asm;
use super::calls;
use super::cgroup::Group;
use super::execute::answers;
use super::harness::{Test, is_stock_kernel, tests};
use super::memory::Mapping;
use super::outcome::{Checked, OrFail, Outcome, equal, failed, holds, refused};
use super::patience::settled;
use super::process::{Child, in_child};
use super::race::freed;
use super::region::Region;
use super::sys::{self, PAGE};

pub fn tests() -> Vec<Test> {
    let limit = Duration::from_secs(90);
    tests![
        every_replaced_page_is_freed,
        regions_leave_nothing,
        replaced_pages_leave_nothing,
        created_code_leaves_nothing,
        clones_leave_nothing,
        children_leave_nothing,
        refused_calls_leave_nothing,
        killed_children_leave_nothing,
        pages_are_charged_to_the_cgroup,
    ]
    .into_iter()
    .map(|test| test.within(limit))
    .collect()
}

fn every_replaced_page_is_freed() -> Outcome {
    for _ in 0..20 {
        let region = Region::new(4)?;
        for value in 0..200 {
            let offset = region.append(&asm::answer(value))?;
            region.answers(offset, value)?;
        }
        let stats = freed(&region)?;
        equal("replaced and freed", stats.retired, stats.freed)?;
        holds(stats.retired > 150, "pages were replaced")?;
    }
    Ok(())
}

/// Free memory in KiB.
fn free_memory() -> Checked<i64> {
    let text = fs::read_to_string("/proc/meminfo").or_fail("read meminfo")?;
    let line = text.lines().find(|line| line.starts_with("MemFree:"));
    let words = line.and_then(|line| line.split_whitespace().nth(1));
    words
        .and_then(|word| word.parse().ok())
        .or_fail("MemFree in meminfo")
}

const ROUNDS: u32 = 500;
const BATCHES: usize = 8;

/// Fails if `round`, done often, costs memory for good: as much as half a KiB
/// each time. The kernel keeps lists of free pages and objects that grow for a
/// while, so it is enough that one batch of rounds costs nothing; a leak would
/// show in each. A kernel with checks delays what is freed and is asked about
/// leaks in the end, so there some rounds are all.
fn leaves_nothing(rounds: u32, round: impl Fn() -> Outcome) -> Outcome {
    if !is_stock_kernel() {
        return (0..rounds / 10).try_for_each(|_| round());
    }
    let mut losses = Vec::new();
    for _ in 0..BATCHES {
        let before = settled(i64::MAX, free_memory)?;
        for _ in 0..rounds {
            round()?;
        }
        let enough = before - i64::from(rounds / 2);
        let after = settled(enough, free_memory)?;
        if after >= enough {
            return Ok(());
        }
        losses.push(before - after);
    }
    failed(format!(
        "KiB lost in {rounds} rounds, each time: {losses:?}"
    ))
}

fn regions_leave_nothing() -> Outcome {
    leaves_nothing(ROUNDS, || {
        let region = Region::new(8)?;
        region.append(&asm::long_answer(1, 4 * PAGE))?;
        region.answers(0, 1)
    })
}

/// Also those that are not freed yet when the region is closed.
fn replaced_pages_leave_nothing() -> Outcome {
    leaves_nothing(ROUNDS, || {
        let region = Region::new(1)?;
        for value in 0..4 {
            let offset = region.append(&asm::answer(value))?;
            region.answers(offset, value)?;
        }
        Ok(())
    })
}

fn created_code_leaves_nothing() -> Outcome {
    let device = calls::open_device()?;
    let code = asm::long_answer(1, 3 * PAGE);
    leaves_nothing(ROUNDS, || {
        let mut argument = CreateCode {
            source: code.as_ptr().addr() as u64,
            len: code.len() as u64,
            ..Default::default()
        };
        calls::create_code(device.as_raw_fd(), &mut argument).or_fail("JIT_CREATE_CODE")?;
        let map = Mapping::adopt(argument.addr as usize, code.len());
        answers("the code", map.addr(), 1)
    })
}

fn clones_leave_nothing() -> Outcome {
    let region = Region::new(8)?;
    region.append(&asm::long_answer(1, 4 * PAGE))?;
    calls::reserve(region.fd(), 100, 0).or_fail("JIT_RESERVE")?;
    region.answers(0, 1)?;
    leaves_nothing(ROUNDS, || {
        let device = calls::open_device()?;
        let argument = CloneFrom {
            source_fd: region.device.as_raw_fd(),
            ..Default::default()
        };
        let append = calls::clone_region(device.as_raw_fd(), &argument).or_fail("JIT_CLONE")?;
        calls::append(append.as_raw_fd(), &[0xc3])
            .or_fail("JIT_APPEND")
            .map(|_| ())
    })
}

fn children_leave_nothing() -> Outcome {
    let region = Region::new(8)?;
    region.append(&asm::answer(1))?;
    leaves_nothing(ROUNDS / 5, || {
        in_child(|| {
            region.answers(0, 1)?;
            let own = Region::new(8)?;
            own.append(&asm::long_answer(2, 4 * PAGE))?;
            own.answers(0, 2)
        })
    })
}

/// Calls that fail after they have allocated.
fn refused_calls_leave_nothing() -> Outcome {
    let region = Region::new(8)?;
    let device = calls::open_device()?;
    let (_page, cut) = Mapping::cliff(64)?;
    leaves_nothing(ROUNDS, || {
        let segments = [Segment {
            source: cut as u64,
            len: 5 * PAGE as u64,
            ..Default::default()
        }];
        let argument = calls::publication(&segments);
        let result = calls::publish(region.fd(), JIT_APPEND, &argument);
        refused("JIT_APPEND", result, libc::EFAULT)?;
        let mut argument = CreateCode {
            source: cut as u64,
            len: 65,
            ..Default::default()
        };
        let result = calls::create_code(device.as_raw_fd(), &mut argument);
        refused("JIT_CREATE_CODE", result, libc::EFAULT)
    })
}

fn killed_children_leave_nothing() -> Outcome {
    leaves_nothing(ROUNDS / 5, || {
        let child = Child::start(|| {
            let region = Region::new(8)?;
            region.append(&asm::long_answer(2, 4 * PAGE))?;
            region.answers(0, 2)?;
            sys::kill(std::process::id() as libc::pid_t, libc::SIGKILL).or_fail("kill")
        })?;
        equal("the signal", child.join_killed()?, libc::SIGKILL)
    })
}

fn pages_are_charged_to_the_cgroup() -> Outcome {
    let group = Group::new("jit-suite")?;
    in_child(|| {
        group.enter()?;
        const PAGES: usize = 2048;
        let code = vec![0xc3; PAGES * PAGE];
        let region = Region::new(PAGES)?;
        let before = group.current()?;
        region.append(&code)?;
        let more = group.current()?.saturating_sub(before);
        let wanted = (PAGES * PAGE) as u64;
        let what = format!("{more} bytes are charged for {wanted}");
        holds(more > wanted / 10 * 9, what)
    })
}
