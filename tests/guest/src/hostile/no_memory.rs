// SPDX-License-Identifier: GPL-2.0
//! At the limit of a control group a call fails with ENOMEM. It does not have the
//! kernel kill somebody for it.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use jitfd_plan::abi::{CREATE_ANY_MM, CloneFrom, Create, CreateCode, MAX_REGION};

use crate::suite::calls;
use crate::suite::cgroup::Group;
use crate::suite::harness::{Test, tests};
use crate::suite::memory::{Mapping, load};
use crate::suite::outcome::{Checked, OrFail, Outcome, all_hold, holds};
use crate::suite::process::{Child, become_user};
use crate::suite::region::Region;
use crate::suite::shared::{Atomics, Shared};
use crate::suite::sys::{self, PAGE};

use super::bounds::{ATTACKER, MIB};
use super::innocent::Innocent;

pub fn tests() -> Vec<Test> {
    tests![
        appends_until_the_limit,
        appends_of_a_page_until_the_limit,
        appends_to_used_pages_until_the_limit,
        fills_until_the_limit,
        created_codes_until_the_limit,
        an_append_beyond_the_limit,
        a_fill_beyond_the_limit,
        a_created_code_beyond_the_limit,
        a_region_beyond_the_limit,
        a_clone_beyond_the_limit,
        reservations_until_the_limit,
        room_comes_back,
    ]
}

/// What the group of both may take.
const GROUP: u64 = 24 * MIB;
const INNOCENT: usize = 8 << 20;
/// What is left of it where a single call wants more than there is.
const LEFT: u64 = MIB;

/// How the calls ended: the errno, and how many succeeded before.
#[derive(Default)]
struct Board {
    errno: AtomicU64,
    calls: AtomicU64,
}

// SAFETY: zeros are a valid board, and all of it is atomic.
unsafe impl Atomics for Board {}

/// Calls what `prepare` returns, as a user in a group that has `left` bytes, until it
/// fails. Fails unless that is with ENOMEM and nobody is killed for it.
fn refused_at<'a, Call>(left: Option<u64>, prepare: impl FnOnce() -> Checked<Call>) -> Outcome
where
    Call: FnMut() -> io::Result<()> + 'a,
{
    let shared = Shared::<Board>::new()?;
    let board = shared.board();
    let group = Group::limited("jit-limit", GROUP)?;
    let innocent = Innocent::start(&group, INNOCENT, 0)?;
    let gauge = group.gauge()?;
    let caller = Child::start(|| {
        group.enter()?;
        become_user(ATTACKER)?;
        let mut call = prepare()?;
        let filler = Mapping::anonymous(GROUP as usize / PAGE)?;
        if let Some(left) = left {
            take_until(&filler, || Ok(gauge.read()? + left >= GROUP))?;
        }
        let errno = loop {
            match call() {
                Ok(()) => board.calls.fetch_add(1, SeqCst),
                Err(error) => break error.raw_os_error().unwrap_or(0),
            };
        };
        // At the limit anything may get the process killed but to end.
        board.errno.store(errno as u64, SeqCst);
        sys::exit(0);
    })?;
    let told = caller.join();
    let errno = board.errno.load(SeqCst) as i32;
    let calls = board.calls.load(SeqCst);
    let error = io::Error::from_raw_os_error(errno);
    all_hold([
        (told.is_ok(), format!("the caller: {told:?}")),
        (innocent.is_alive(), "the innocent was killed".to_owned()),
        (
            group.kills()? == 0,
            format!("{} were killed", group.kills()?),
        ),
        (
            errno == libc::ENOMEM,
            format!("after {calls} calls: errno {errno} ({error})"),
        ),
    ])
}

fn take_until(filler: &Mapping, enough: impl Fn() -> Checked<bool>) -> Outcome {
    const STEP: usize = 16 * PAGE;
    for offset in (0..filler.len()).step_by(STEP) {
        if enough()? {
            return Ok(());
        }
        filler.take(offset, STEP);
    }
    holds(enough()?, "the group is filled")
}

fn done<T>(result: io::Result<T>) -> io::Result<()> {
    result.map(|_| ())
}

/// Appends of `len` bytes.
fn appends(len: usize) -> impl FnOnce() -> Checked<Box<dyn FnMut() -> io::Result<()>>> {
    move || {
        let region = Region::new(64 << 8)?;
        let code = vec![0x90; len];
        Ok(Box::new(move || done(calls::append(region.fd(), &code))))
    }
}

fn appends_until_the_limit() -> Outcome {
    refused_at(None, appends(MIB as usize))
}

fn appends_of_a_page_until_the_limit() -> Outcome {
    refused_at(None, appends(PAGE))
}

/// Each replaces a page, and needs a new one before the old one is free.
fn appends_to_used_pages_until_the_limit() -> Outcome {
    refused_at(None, || {
        let region = Region::new(64 << 8)?;
        let code = vec![0x90; PAGE];
        region.append(&[0x90])?;
        Ok(move || {
            let offset = calls::append(region.fd(), &code)?;
            load(region.at(offset), 1);
            Ok(())
        })
    })
}

fn fills_until_the_limit() -> Outcome {
    refused_at(None, || {
        let region = Region::new(64 << 8)?;
        let code = vec![0x90; 16 * PAGE];
        let len = 64 * MIB;
        let mut offset = calls::reserve(region.fd(), len, 0).or_fail("JIT_RESERVE")?;
        Ok(move || {
            let result = calls::fill(region.fd(), offset, &code);
            offset += code.len() as u64;
            done(result)
        })
    })
}

fn create_code(device: i32, code: &[u8]) -> io::Result<()> {
    let mut argument = CreateCode {
        source: code.as_ptr().addr() as u64,
        len: code.len() as u64,
        ..Default::default()
    };
    done(calls::create_code(device, &mut argument))
}

fn created_codes_until_the_limit() -> Outcome {
    refused_at(None, || {
        let device = calls::open_device()?;
        let code = vec![0x90; 16 * PAGE];
        Ok(move || create_code(device.as_raw_fd(), &code))
    })
}

/// Zeros as large as what is wanted at once.
fn zeros() -> Checked<Mapping> {
    let zeros = Mapping::sparse(8 * LEFT as usize)?;
    // The page tables of it.
    load(zeros.addr(), zeros.len());
    Ok(zeros)
}

fn an_append_beyond_the_limit() -> Outcome {
    refused_at(Some(LEFT), || {
        let (region, zeros) = (Region::new(64 << 8)?, zeros()?);
        Ok(move || done(calls::append(region.fd(), zeros.bytes())))
    })
}

fn a_fill_beyond_the_limit() -> Outcome {
    refused_at(Some(LEFT), || {
        let (region, zeros) = (Region::new(64 << 8)?, zeros()?);
        let len = zeros.len() as u64;
        let offset = calls::reserve(region.fd(), len, 0).or_fail("JIT_RESERVE")?;
        Ok(move || done(calls::fill(region.fd(), offset, zeros.bytes())))
    })
}

fn a_created_code_beyond_the_limit() -> Outcome {
    refused_at(Some(LEFT), || {
        let (device, zeros) = (calls::open_device()?, zeros()?);
        Ok(move || create_code(device.as_raw_fd(), zeros.bytes()))
    })
}

/// A region of 1 GiB has a table of 2 MiB.
fn a_region_beyond_the_limit() -> Outcome {
    refused_at(Some(LEFT), || {
        let device = calls::open_device()?;
        let argument = Create {
            size: MAX_REGION,
            ..Default::default()
        };
        Ok(move || done(calls::create(device.as_raw_fd(), &argument)))
    })
}

/// The source was made elsewhere.
fn a_clone_beyond_the_limit() -> Outcome {
    let source = Region::with_flags(MAX_REGION as usize / PAGE, CREATE_ANY_MM)?;
    source.append(&[0x90; 16])?;
    refused_at(Some(LEFT), || {
        let device = calls::open_device()?;
        let argument = CloneFrom {
            source_fd: source.device.as_raw_fd(),
            ..Default::default()
        };
        Ok(move || done(calls::clone_region(device.as_raw_fd(), &argument)))
    })
}

/// Each takes some bytes of memory.
fn reservations_until_the_limit() -> Outcome {
    refused_at(Some(LEFT / 2), || {
        let region = Region::new(MAX_REGION as usize / PAGE)?;
        Ok(move || done(calls::reserve(region.fd(), 8, 0)))
    })
}

/// What could not be had is there again once something else was given back.
fn room_comes_back() -> Outcome {
    let group = Group::limited("jit-limit", GROUP)?;
    Child::start(|| {
        group.enter()?;
        become_user(ATTACKER)?;
        let (first, second) = (Region::new(64 << 8)?, Region::new(64 << 8)?);
        let code = vec![0x90; MIB as usize];
        let error = loop {
            if let Err(error) = calls::append(first.fd(), &code) {
                break error;
            }
        };
        let cursor = first.stats()?.cursor;
        let is_right = error.raw_os_error() == Some(libc::ENOMEM);
        holds(is_right, format!("an append: {error}"))?;
        drop(first);
        for _ in 0..cursor / MIB / 2 {
            second.append(&code)?;
        }
        Ok(())
    })?
    .join()
}
