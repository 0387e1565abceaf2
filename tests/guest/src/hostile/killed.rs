// SPDX-License-Identifier: GPL-2.0
//! Whoever is killed is gone soon: in a long call of its own, and while it waits for
//! another's. "Soon" is told by the work that an observer gets done meanwhile.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::thread;

use jitfd_plan::abi::{CloneFrom, CreateCode};

use crate::suite::calls;
use crate::suite::harness::{Test, tests};
use crate::suite::memory::Mapping;
use crate::suite::outcome::{Checked, OrFail, Outcome, equal, failed, holds};
use crate::suite::process::{Child, Gate};
use crate::suite::race::needs_two_cpus;
use crate::suite::region::Region;
use crate::suite::shared::Shared;
use crate::suite::sys::{self, PAGE};

use super::bounds::{ATTACKER, VICTIM};
use super::hoard::{Board, Hoarder};
use super::work;

pub fn tests() -> Vec<Test> {
    tests![
        in_a_fill_of_many_pages,
        in_a_large_append,
        in_a_large_created_code,
        waiting_for_anothers_publication,
    ]
}

/// What is little work in any case: the end of a process, and one publication that is
/// as long as it may be.
const LITTLE: u64 = 40;
const ONE_PUBLICATION: u64 = 1000;

/// Whether a process is killed in its call, or makes it to the end.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Killed,
    Whole,
}

/// Work that is done from the moment `is_time` in a process's call to its end, or to
/// the end of the process.
fn work_until(
    end: End,
    call: impl Fn(&Board) -> Outcome,
    is_time: impl Fn() -> Checked<bool>,
) -> Checked<u64> {
    let shared = Shared::<Board>::new()?;
    let board = shared.board();
    let child = Child::of_user(ATTACKER, || {
        call(board)?;
        loop {
            thread::park();
        }
    })?;
    board.wait_for_call(&child)?;
    while !is_time()? {
        holds(child.is_alive(), "a child ended early")?;
    }
    if end == End::Whole {
        let whole = work::until(|| !board.is_calling());
        child.end()?;
        return Ok(whole);
    }
    sys::kill(child.pid(), libc::SIGKILL).or_fail("kill")?;
    let killed = work::until(|| !child.is_alive());
    equal("the signal", child.join_killed()?, libc::SIGKILL)?;
    Ok(killed)
}

/// Fails unless a killed process did little more, or a small part of its call.
fn is_soon(killed: u64, whole: u64, little: u64) -> Outcome {
    let what = format!("gone after {killed} units of work; what was left takes {whole}");
    holds(killed <= little.max(whole / 8), what)
}

/// More mappings of another page than are allowed: as many as can be had.
const MAPPINGS: usize = 12000;
const SOME: usize = 2000;

/// It is killed when some of its pages are published and some are not.
fn in_a_fill_of_many_pages() -> Outcome {
    needs_two_cpus()?;
    let work_until_its = |end| {
        let hoarder = Hoarder::new()?;
        let call = |board: &Board| {
            let _mappings = hoarder.map_often(MAPPINGS);
            hoarder.touch();
            board.during(|| hoarder.call(0))
        };
        work_until(end, call, || hoarder.is_half_done(0))
    };
    let whole = work_until_its(End::Whole)?;
    is_soon(work_until_its(End::Killed)?, whole, ONE_PUBLICATION)
}

/// Fails unless a process that is killed as soon as it calls is gone soon.
fn is_gone_soon(call: impl Fn(&Board) -> Outcome) -> Outcome {
    needs_two_cpus()?;
    let whole = work_until(End::Whole, &call, || Ok(true))?;
    is_soon(work_until(End::Killed, &call, || Ok(true))?, whole, LITTLE)
}

/// What is published, in bytes.
const CODE: usize = 32 << 20;

fn in_a_large_append() -> Outcome {
    is_gone_soon(|board| {
        let region = Region::new(CODE / PAGE)?;
        let zeros = Mapping::sparse(CODE)?;
        board.during(|| region.append(zeros.bytes()).map(|_| ()))
    })
}

fn in_a_large_created_code() -> Outcome {
    is_gone_soon(|board| {
        let device = calls::open_device()?;
        let zeros = Mapping::sparse(CODE)?;
        let mut argument = CreateCode {
            source: zeros.addr() as u64,
            len: CODE as u64,
            ..Default::default()
        };
        board.during(|| {
            let created = calls::create_code(device.as_raw_fd(), &mut argument);
            created.or_fail("JIT_CREATE_CODE").map(|_| ())
        })
    })
}

/// Publications that are tried: one may be over before the other process waits.
const TRIES: usize = 6;

/// One process publishes into a region for long; another, which waits for its turn,
/// is killed meanwhile and gone before half of what the first has to do yet is done. A clone takes no turn: it
/// looks time after time whether the publication is over.
fn waiting_for_anothers_publication() -> Outcome {
    needs_two_cpus()?;
    let waits: [fn(&Region) -> io::Result<()>; 4] = [
        |region| calls::append(region.fd(), &[0x90; 16]).map(|_| ()),
        |region| calls::reserve(region.fd(), 16, 0).map(|_| ()),
        |region| calls::seal(region.fd()),
        |region| {
            let device = sys::open(c"/dev/jit", libc::O_RDWR)?;
            let argument = CloneFrom {
                source_fd: region.device.as_raw_fd(),
                ..Default::default()
            };
            calls::clone_region(device.as_raw_fd(), &argument).map(|_| ())
        },
    ];
    for (index, wait) in waits.into_iter().enumerate() {
        if !(0..TRIES).any(|_| is_gone_before(wait).unwrap_or(false)) {
            return failed(format!(
                "call {index} outlives SIGKILL until the other's end"
            ));
        }
    }
    Ok(())
}

/// For how many ticks a process has run in the kernel.
fn ticks_in_kernel(pid: libc::pid_t) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = behind_name.split_whitespace().nth(12);
    ticks.and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

/// Whether a process waits in an ioctl.
fn waits_in_ioctl(pid: libc::pid_t) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next() == Some(&libc::SYS_ioctl.to_string())
}

fn is_gone_before(wait: impl Fn(&Region) -> io::Result<()>) -> Checked<bool> {
    let (shared, seconds) = (Shared::<Board>::new()?, Shared::<Board>::new()?);
    let (board, seconds) = (shared.board(), seconds.board());
    let hoarder = Hoarder::new()?;
    let go = Gate::new()?;
    let first = Child::of_user(ATTACKER, || {
        let _mappings = hoarder.map_often(SOME);
        hoarder.touch();
        board.during(|| hoarder.call(0))
    })?;
    let second = Child::of_user(VICTIM, || {
        go.wait()?;
        seconds.during(|| wait(&hoarder.region).or_fail("a call that waits"))
    })?;
    board.wait_for_call(&first)?;
    while board.is_calling() && !hoarder.is_half_done(0)? {
        std::hint::spin_loop();
    }
    go.open()?;
    let mut before_call = None;
    let mut is_waiting = || {
        let ticks = ticks_in_kernel(second.pid());
        let since = ticks.saturating_sub(*before_call.get_or_insert(ticks));
        if !seconds.is_calling() {
            before_call = None;
        }
        waits_in_ioctl(second.pid()) || since > 1
    };
    while board.is_calling() && second.is_alive() && !is_waiting() {
        thread::yield_now();
    }
    sys::kill(second.pid(), libc::SIGKILL).or_fail("kill")?;
    let gone = work::until(|| !second.is_alive());
    let left = work::until(|| !board.is_calling());
    equal("the signal", second.join_killed()?, libc::SIGKILL)?;
    first.join()?;
    // Who lives as long as pages are published is gone shortly before the call's end.
    Ok(left != 0 && gone <= left)
}
