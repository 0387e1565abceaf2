// SPDX-License-Identifier: GPL-2.0
//! What failed calls cost for good: nothing. Pages, which the kernel's leak
//! detector does not see, and the accounts of users.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use jitfd_plan::abi::{CloneFrom, Create, CreateCode};

use super::inject::{Injector, Mode};
use super::region::grown;
use crate::suite::asm;
use crate::suite::calls;
use crate::suite::harness::{Test, tests};
use crate::suite::kmod::with_parameters;
use crate::suite::memory::Mapping;
use crate::suite::outcome::{Checked, OrFail, Outcome, failed, holds};
use crate::suite::patience::{Patience, settled};
use crate::suite::process::in_child;
use crate::suite::region::Region;
use crate::suite::sys::PAGE;

pub fn tests() -> Vec<Test> {
    let limit = Duration::from_secs(60);
    tests![
        failed_appends_leave_no_page,
        failed_clones_leave_no_page,
        failed_codes_leave_no_page,
        failed_calls_leave_no_charge,
    ]
    .into_iter()
    .map(|test| test.within(limit))
    .collect()
}

/// Kinds of memory in /proc/meminfo. What is none of them was taken from the page
/// allocator by someone who keeps no count: by the module, say. Freed objects
/// that KASAN holds back are in `Slab`.
const KNOWN: [&str; 10] = [
    "MemFree",
    "Buffers",
    "Cached",
    "AnonPages",
    "Slab",
    "KernelStack",
    "PageTables",
    "SecPageTables",
    "VmallocUsed",
    "Percpu",
];

/// KiB of memory of a known kind.
fn accounted() -> Checked<i64> {
    let text = fs::read_to_string("/proc/meminfo").or_fail("read meminfo")?;
    let value = |name: &str| -> i64 {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    };
    Ok(KNOWN.iter().map(|name| value(name)).sum())
}

/// Rounds of a batch, and batches until a loss is believed: lists of free pages
/// grow and shrink, but a leak shows each time.
const ROUNDS: u32 = 1500;
const BATCHES: u32 = 4;

/// Fails if `call`, failing in all ways in turn, costs a page each second time.
fn leaves_no_page(call: impl Fn() -> io::Result<()>) -> Outcome {
    let injector = Injector::new(Mode::AllFrom)?;
    let last = failures(&injector, &call)?;
    let mut losses = Vec::new();
    for _ in 0..BATCHES {
        let before = settled(i64::MAX, accounted)?;
        for round in 0..ROUNDS {
            let (result, _) = injector.run(1 + round % last, &call)?;
            drop(result);
        }
        let enough = before - i64::from(ROUNDS) * 2;
        let after = settled(enough, accounted)?;
        if after >= enough {
            return Ok(());
        }
        losses.push(before - after);
    }
    failed(format!(
        "KiB lost in {ROUNDS} failures, each time: {losses:?}"
    ))
}

/// How many failures the call can meet.
fn failures(injector: &Injector, call: &impl Fn() -> io::Result<()>) -> Checked<u32> {
    for nth in 1..1000 {
        let (_, injected) = injector.run(nth, call)?;
        if !injected {
            holds(nth > 2, "some failures were met")?;
            return Ok(nth - 1);
        }
    }
    failed("there is no end of failures")
}

fn failed_appends_leave_no_page() -> Outcome {
    let code = vec![0x90; 3 * PAGE];
    leaves_no_page(|| {
        let (_device, append) = create(16)?;
        calls::append(append.as_raw_fd(), &code)?;
        calls::append(append.as_raw_fd(), &code).map(|_| ())
    })
}

fn failed_clones_leave_no_page() -> Outcome {
    let region = grown()?;
    leaves_no_page(|| clone(&region).map(|_| ()))
}

fn failed_codes_leave_no_page() -> Outcome {
    let code = vec![0x90; 3 * PAGE];
    leaves_no_page(|| create_code(&code).map(|_| ()))
}

fn device() -> io::Result<OwnedFd> {
    crate::suite::sys::open(c"/dev/jit", libc::O_RDWR)
}

fn create(pages: usize) -> io::Result<(OwnedFd, OwnedFd)> {
    let device = device()?;
    let argument = Create {
        size: (pages * PAGE) as u64,
        ..Default::default()
    };
    let append = calls::create(device.as_raw_fd(), &argument)?;
    Ok((device, append))
}

fn clone(region: &Region) -> io::Result<(OwnedFd, OwnedFd)> {
    let device = device()?;
    let argument = CloneFrom {
        source_fd: region.device.as_raw_fd(),
        ..Default::default()
    };
    let append = calls::clone_region(device.as_raw_fd(), &argument)?;
    Ok((device, append))
}

fn create_code(code: &[u8]) -> io::Result<Mapping> {
    let device = device()?;
    let mut argument = CreateCode {
        source: code.as_ptr().expose_provenance() as u64,
        len: code.len() as u64,
        ..Default::default()
    };
    calls::create_code(device.as_raw_fd(), &mut argument)?;
    Ok(Mapping::adopt(argument.addr as usize, code.len()))
}

/// Bounds of which nothing may be left over: three regions, each with two pages of
/// its own, 20 pages of code, and the page that it keeps for its next publication.
const BOUNDS: &str = "user_regions=3 user_pages=69";
/// Failures that each call meets here; it makes fewer calls that can fail.
const EACH: u32 = 150;

fn failed_calls_leave_no_charge() -> Outcome {
    Injector::new(Mode::One)?;
    with_parameters(BOUNDS, || {
        in_child(|| fail_in_all_ways(Mode::One))?;
        in_child(|| fail_in_all_ways(Mode::AllFrom))?;
        in_child(everything_is_left)
    })
}

fn fail_in_all_ways(mode: Mode) -> Outcome {
    let injector = Injector::new(mode)?;
    let code = asm::long_answer(1, 5 * PAGE);
    for nth in 1..EACH {
        let region = Region::new(16)?;
        injector.run(nth, || calls::append(region.fd(), &code).is_ok())?;
        injector.run(nth, || clone(&region).is_ok())?;
        injector.run(nth, || create(8).is_ok())?;
        injector.run(nth, || create_code(&code).is_ok())?;
    }
    Ok(())
}

/// As many regions as one user may have, and as many pages.
fn everything_is_left() -> Outcome {
    let mut patience = Patience::new();
    let code = asm::long_answer(1, 20 * PAGE);
    loop {
        let made = (0..3).map(|_| create(20)).collect::<io::Result<Vec<_>>>();
        let filled = made.and_then(|regions| {
            regions
                .iter()
                .try_for_each(|(_, append)| calls::append(append.as_raw_fd(), &code).map(|_| ()))
        });
        match filled {
            // What waits to be freed still counts.
            Err(_) if !patience.is_over(0) => thread::sleep(Duration::from_millis(20)),
            other => return other.or_fail("all that one user may have"),
        }
    }
}
