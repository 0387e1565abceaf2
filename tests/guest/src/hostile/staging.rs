// SPDX-License-Identifier: GPL-2.0
//! A publication is refused before it takes memory, whatever it says it would
//! publish; and one that is not refused takes the code's memory once.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::thread;

use jitfd_plan::abi::{self, CreateCode, JIT_APPEND, JIT_FILL, MAX_SEGMENTS};

use crate::suite::calls;
use crate::suite::cgroup::Group;
use crate::suite::harness::{Test, tests};
use crate::suite::kmod::with_parameters;
use crate::suite::memory::{Mapping, load};
use crate::suite::outcome::{Checked, OrFail, Outcome, all_hold, equal, holds, refused};
use crate::suite::process::{Child, Gate, become_user};
use crate::suite::region::Region;
use crate::suite::sys::PAGE;

use super::bounds::{
    A_REGION, ATTACKER, BESIDE_CODE, BESIDE_QUOTA, BESIDE_REGION, MIB, USER_PAGES,
};
use super::innocent::Innocent;

pub fn tests() -> Vec<Test> {
    tests![
        an_append_beyond_the_quota,
        segments_beyond_the_quota,
        a_fill_beyond_the_quota,
        appends_at_once_beyond_the_quota,
        code_beyond_the_quota,
        an_append_takes_the_code_once,
        a_fill_takes_the_code_once,
        created_code_takes_the_code_once,
        a_failed_call_leaves_no_memory,
        what_regions_keep_is_paid_for,
    ]
}

/// The quota, in pages.
const QUOTA: usize = 1024;
/// What the attacker asks for.
const ASKED: usize = 192 << 20;
/// What the group of attacker and victim may take: more than the victim needs, and
/// so little that what the attacker asks for can't be had.
const GROUP: u64 = 96 * MIB;
const INNOCENT: usize = 24 << 20;

/// What an attacker calls: a region of his, and zeros as large as all he asks for.
type Call = fn(&Region, &Mapping) -> io::Result<u64>;

fn an_append_beyond_the_quota() -> Outcome {
    is_refused_early(1, append)
}

/// The bytes are few, but each segment has them again.
fn segments_beyond_the_quota() -> Outcome {
    is_refused_early(1, |region, zeros| {
        let piece = &zeros.bytes()[..ASKED / MAX_SEGMENTS as usize];
        let segments = vec![calls::segment(piece); MAX_SEGMENTS as usize];
        calls::publish(region.fd(), JIT_APPEND, &calls::publication(&segments))
    })
}

fn a_fill_beyond_the_quota() -> Outcome {
    is_refused_early(1, |region, zeros| {
        let offset = calls::reserve(region.fd(), ASKED as u64, 0)?;
        calls::fill(region.fd(), offset, zeros.bytes())
    })
}

fn appends_at_once_beyond_the_quota() -> Outcome {
    is_refused_early(4, append)
}

fn code_beyond_the_quota() -> Outcome {
    is_refused_early(1, |_, zeros| {
        let device = crate::suite::sys::open(c"/dev/jit", libc::O_RDWR)?;
        create_code(device.as_raw_fd(), zeros.bytes())
    })
}

fn append(region: &Region, zeros: &Mapping) -> io::Result<u64> {
    calls::append(region.fd(), zeros.bytes())
}

/// Fails unless `threads` of an attacker get EDQUOT for `call`, take no more memory
/// than the quota, and nobody is killed.
fn is_refused_early(threads: usize, call: Call) -> Outcome {
    with_parameters(&format!("{USER_PAGES}={QUOTA}"), || {
        let group = Group::limited("jit-staging", GROUP)?;
        let innocent = Innocent::start(&group, INNOCENT, 0)?;
        let (ready, go, done, end) = (Gate::new()?, Gate::new()?, Gate::new()?, Gate::new()?);
        let attacker = Child::start(|| {
            group.enter()?;
            become_user(ATTACKER)?;
            let region = Region::new(ASKED / PAGE)?;
            let zeros = Mapping::sparse(ASKED)?;
            ready.open()?;
            go.wait()?;
            at_once(threads, || {
                refused("the call", call(&region, &zeros), libc::EDQUOT)
            })?;
            equal("publications", region.stats()?.publications, 0)?;
            done.open()?;
            end.wait()
        })?;
        ready.wait_for(&attacker)?;
        let before = group.current()?;
        let peak = group.peak()?;
        go.open()?;
        // It ends, or it is killed.
        while attacker.is_alive() && !done.is_open()? {
            thread::yield_now();
        }
        let taken = peak.read()?.saturating_sub(before);
        let kept = group.current()?.saturating_sub(before);
        end.open()?;
        let lives = innocent.is_alive();
        let told = attacker.join();
        let most = (QUOTA * PAGE) as u64 + BESIDE_QUOTA;
        all_hold([
            (told.is_ok(), format!("the attacker: {told:?}")),
            (lives, "the innocent was killed".to_owned()),
            (taken <= most, format!("{} KiB were taken", taken >> 10)),
            (
                kept <= BESIDE_QUOTA,
                format!("{} KiB were kept", kept >> 10),
            ),
        ])
    })
}

/// Calls `run` in several threads; the first that fails is told.
fn at_once(threads: usize, run: impl Fn() -> Outcome + Sync) -> Outcome {
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(&run)).collect();
        all.into_iter()
            .try_for_each(|thread| thread.join().ok().or_fail("a thread")?)
    })
}

/// What is published, in bytes.
const CODE: usize = 32 << 20;

fn an_append_takes_the_code_once() -> Outcome {
    takes_once(append)
}

fn a_fill_takes_the_code_once() -> Outcome {
    takes_once(|region, zeros| {
        let offset = calls::reserve(region.fd(), CODE as u64, 0)?;
        let half = CODE / 2;
        let segments = [
            calls::segment_at(offset, &zeros.bytes()[..half]),
            calls::segment_at(offset + half as u64, &zeros.bytes()[half..]),
        ];
        calls::publish(region.fd(), JIT_FILL, &calls::publication(&segments))
    })
}

fn created_code_takes_the_code_once() -> Outcome {
    takes_once(|_, zeros| {
        let device = crate::suite::sys::open(c"/dev/jit", libc::O_RDWR)?;
        create_code(device.as_raw_fd(), zeros.bytes())
    })
}

/// The mapping stays until the process ends.
fn create_code(device: i32, code: &[u8]) -> io::Result<u64> {
    let mut argument = CreateCode {
        source: code.as_ptr().addr() as u64,
        len: code.len() as u64,
        ..Default::default()
    };
    calls::create_code(device, &mut argument)?;
    Ok(argument.addr)
}

/// Fails unless `call`, which publishes [`CODE`] bytes, takes hardly more memory than
/// that at any time.
fn takes_once(call: Call) -> Outcome {
    let group = Group::new("jit-staging")?;
    let measured = measured(&group, call);
    let (taken, kept) = measured?;
    let code = CODE as u64;
    let about =
        |what, bytes: u64| format!("{} KiB were {what} for {} KiB", bytes >> 10, code >> 10);
    all_hold([
        (taken <= code + BESIDE_CODE, about("taken", taken)),
        (kept <= code + BESIDE_CODE, about("kept", kept)),
        (kept >= code / 8 * 7, about("kept", kept)),
    ])
}

/// What `call` took at the most, and what of it stays.
fn measured(group: &Group, call: Call) -> Checked<(u64, u64)> {
    let (peak, gauge) = (group.peak()?, group.gauge()?);
    let (taken, kept) = (Gate::new()?, Gate::new()?);
    Child::start(|| {
        group.enter()?;
        become_user(ATTACKER)?;
        let region = Region::new(CODE / PAGE)?;
        let zeros = Mapping::sparse(CODE)?;
        let before = gauge.read()?;
        call(&region, &zeros).or_fail("the call")?;
        taken.send(peak.read()?.saturating_sub(before))?;
        kept.send(gauge.read()?.saturating_sub(before))
    })?
    .join()?;
    Ok((taken.receive()?, kept.receive()?))
}

/// Regions that the attacker has for the next test: many, so that what one of them takes
/// is more than what is not exact.
const REGIONS: usize = 500;

/// A call of many segments that is refused leaves nothing of its arrays with the region,
/// which has paid for little.
fn a_failed_call_leaves_no_memory() -> Outcome {
    let group = Group::new("jit-staging")?;
    let gauge = group.gauge()?;
    let kept = Gate::new()?;
    Child::start(|| {
        group.enter()?;
        become_user(ATTACKER)?;
        let nothing = vec![calls::segment(&[]); MAX_SEGMENTS as usize];
        let before = gauge.read()?;
        let regions = (0..REGIONS).map(|_| {
            let region = Region::new(1)?;
            let argument = calls::publication(&nothing);
            let result = calls::publish(region.fd(), JIT_APPEND, &argument);
            refused("empty segments", result, libc::EINVAL)?;
            // Its number is needed for the next; its mapping keeps it.
            Ok(region.map)
        });
        let regions = regions.collect::<Checked<Vec<_>>>()?;
        kept.send(gauge.read()?.saturating_sub(before))?;
        drop(regions);
        Ok(())
    })?
    .join()?;
    let each = kept.receive()? / REGIONS as u64;
    holds(
        each <= A_REGION,
        format!("{each} bytes are kept by each region"),
    )
}

/// Each region replaces one page that was used, which makes it keep pages for more.
fn what_regions_keep_is_paid_for() -> Outcome {
    let group = Group::new("jit-staging")?;
    let gauge = group.gauge()?;
    let (before, ready, end) = (Gate::new()?, Gate::new()?, Gate::new()?);
    let child = Child::start(|| {
        group.enter()?;
        become_user(ATTACKER)?;
        before.send(gauge.read()?)?;
        let regions = (0..REGIONS).map(|_| {
            let region = Region::new(1)?;
            load(region.at(region.append(&[0x90])?), 1);
            region.append(&[0x90])?;
            Ok(region.map)
        });
        let _regions = regions.collect::<Checked<Vec<_>>>()?;
        ready.open()?;
        end.wait()
    })?;
    ready.wait_for(&child)?;
    // In this order: what is idle is given back at any moment.
    let paid = pages_of(ATTACKER);
    let kept = gauge.read();
    end.open()?;
    child.join()?;
    let kept = kept?.saturating_sub(before.receive()?) / REGIONS as u64;
    let paid = paid? * PAGE as u64 / REGIONS as u64;
    let what = format!("each region keeps {kept} bytes and has paid for {paid}");
    holds(kept <= paid + BESIDE_REGION, what)
}

/// The pages that `user` has, as the administrator sees it.
fn pages_of(user: u32) -> Checked<u64> {
    let users = fs::read_to_string("/sys/kernel/debug/jit/users").or_fail("read users")?;
    let name = user.to_string();
    let line = users
        .lines()
        .find(|line| line.split(' ').next() == Some(&name));
    let pages = line.and_then(|line| line.split(' ').nth(1)?.parse().ok());
    pages.or_fail("the user's pages")
}

const _: () = assert!(ASKED as u64 <= abi::MAX_REGION);
