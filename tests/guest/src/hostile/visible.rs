// SPDX-License-Identifier: GPL-2.0
//! Code is seen where the kernel looks for whom to kill: it is resident memory of
//! the process that owns it, also where nobody has mapped it.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use jitfd_plan::abi::{CREATE_ANY_MM, CloneFrom, Create, CreateCode};

use crate::suite::calls;
use crate::suite::cgroup::Group;
use crate::suite::harness::{Test, tests};
use crate::suite::memory::{Mapping, load};
use crate::suite::outcome::{Checked, OrFail, Outcome, equal, holds};
use crate::suite::passing::Socket;
use crate::suite::process::{Child, Gate, become_user, in_child};
use crate::suite::race::freed;
use crate::suite::region::Region;
use crate::suite::sys::{self, PAGE};

use super::bounds::{ATTACKER, BLUR, MIB};
use super::innocent::Innocent;

pub fn tests() -> Vec<Test> {
    tests![
        appended_code_is_seen,
        filled_code_is_seen,
        created_code_is_seen,
        code_of_a_clone_is_seen,
        replaced_pages_are_seen_until_they_are_freed,
        a_child_has_not_what_it_inherits,
        a_region_outlives_its_owner,
        who_unmaps_has_nobody_else_pay,
        the_hog_is_killed_for_appended_code,
        the_hog_is_killed_for_filled_code,
        the_hog_is_killed_for_created_code,
    ]
}

const CODE: usize = 16 << 20;

/// Resident memory of the caller that is shared with others, or could be: where a
/// memory file's pages are counted.
fn resident() -> Checked<u64> {
    let status = fs::read_to_string("/proc/self/status").or_fail("read the status")?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    kib("RssShmem:").map(|kib| kib << 10).or_fail("RssShmem")
}

/// Fails unless the caller has `wanted` bytes more than `before`.
fn has_more(when: &str, before: u64, wanted: usize) -> Outcome {
    let now = resident()?;
    let wanted = before + wanted as u64;
    holds(
        now.abs_diff(wanted) <= BLUR,
        format!(
            "{when}: {} KiB are resident, wanted {}",
            now >> 10,
            wanted >> 10
        ),
    )
}

/// A region that nobody has mapped.
struct Unmapped {
    device: OwnedFd,
    append: OwnedFd,
}

impl Unmapped {
    fn new(size: usize, flags: u32) -> Checked<Self> {
        let device = calls::open_device()?;
        let argument = Create {
            size: size as u64,
            flags,
            ..Default::default()
        };
        let append = calls::create(device.as_raw_fd(), &argument).or_fail("JIT_CREATE")?;
        Ok(Unmapped { device, append })
    }

    fn append(&self, code: &[u8]) -> Outcome {
        let result = calls::append(self.append.as_raw_fd(), code);
        result.or_fail("JIT_APPEND").map(|_| ())
    }

    fn fill(&self, code: &[u8]) -> Outcome {
        let fd = self.append.as_raw_fd();
        let offset = calls::reserve(fd, code.len() as u64, 0).or_fail("JIT_RESERVE")?;
        let result = calls::fill(fd, offset, code);
        result.or_fail("JIT_FILL").map(|_| ())
    }
}

fn create_code(code: &[u8]) -> Checked<Mapping> {
    let device = calls::open_device()?;
    let mut argument = CreateCode {
        source: code.as_ptr().addr() as u64,
        len: code.len() as u64,
        ..Default::default()
    };
    calls::create_code(device.as_raw_fd(), &mut argument).or_fail("JIT_CREATE_CODE")?;
    Ok(Mapping::adopt(argument.addr as usize, code.len()))
}

fn appended_code_is_seen() -> Outcome {
    is_seen(|region, zeros| region.append(zeros))
}

fn filled_code_is_seen() -> Outcome {
    is_seen(|region, zeros| region.fill(zeros))
}

fn is_seen(publish: impl Fn(&Unmapped, &[u8]) -> Outcome) -> Outcome {
    in_child(|| {
        become_user(ATTACKER)?;
        let zeros = Mapping::sparse(CODE)?;
        let region = Unmapped::new(CODE, 0)?;
        let before = resident()?;
        publish(&region, zeros.bytes())?;
        has_more("published", before, CODE)?;
        drop(region);
        has_more("closed", before, 0)
    })
}

fn created_code_is_seen() -> Outcome {
    in_child(|| {
        become_user(ATTACKER)?;
        let zeros = Mapping::sparse(CODE)?;
        let before = resident()?;
        let map = create_code(zeros.bytes())?;
        has_more("created", before, CODE)?;
        drop(map);
        has_more("unmapped", before, 0)
    })
}

/// A clone shares its pages: they count once, and stay with one of the two.
fn code_of_a_clone_is_seen() -> Outcome {
    in_child(|| {
        become_user(ATTACKER)?;
        let zeros = Mapping::sparse(CODE)?;
        let before = resident()?;
        let region = Unmapped::new(2 * CODE, 0)?;
        region.append(zeros.bytes())?;
        let device = calls::open_device()?;
        let argument = CloneFrom {
            source_fd: region.device.as_raw_fd(),
            ..Default::default()
        };
        let append = calls::clone_region(device.as_raw_fd(), &argument).or_fail("JIT_CLONE")?;
        // Both pay for what they share.
        has_more("cloned", before, 2 * CODE)?;
        let copy = Unmapped { device, append };
        copy.append(zeros.bytes())?;
        has_more("published", before, 3 * CODE)?;
        drop(region);
        has_more("without the source", before, 2 * CODE)?;
        drop(copy);
        has_more("closed", before, 0)
    })
}

fn replaced_pages_are_seen_until_they_are_freed() -> Outcome {
    in_child(|| {
        become_user(ATTACKER)?;
        const PAGES: usize = 512;
        let before = resident()?;
        let region = Region::new(PAGES)?;
        for _ in 0..PAGES * PAGE / 256 {
            load(region.at(region.append(&[0x90; 256])?), 1);
        }
        freed(&region)?;
        // Blank pages may be kept: as many again.
        let more = resident()?.saturating_sub(before);
        let pages = (PAGES * PAGE) as u64;
        let range = pages - BLUR..=2 * pages + BLUR;
        holds(
            range.contains(&more),
            format!("{} KiB are resident", more >> 10),
        )?;
        drop(region);
        has_more("closed", before, 0)
    })
}

/// It executes the same pages, but they are its parent's. That the counters of both
/// are right when they end is said by the kernel: its log is looked at.
fn a_child_has_not_what_it_inherits() -> Outcome {
    in_child(|| {
        become_user(ATTACKER)?;
        let region = Region::new(CODE / PAGE)?;
        let zeros = Mapping::sparse(CODE)?;
        let before = resident()?;
        region.append(zeros.bytes())?;
        in_child(|| {
            load(region.at(0), CODE);
            let resident = resident()?;
            let what = format!("the child has {} KiB", resident >> 10);
            holds(resident < CODE as u64 / 8, what)
        })?;
        has_more("with a child", before, CODE)
    })
}

/// The owner ends, and another process goes on with the region. Whether its pages
/// are that one's from then on or nobody's, all counters are right in the end.
fn a_region_outlives_its_owner() -> Outcome {
    let (here, there) = Socket::pair().or_fail("a socket")?;
    let owner = Child::of_user(ATTACKER, || {
        let zeros = Mapping::sparse(CODE)?;
        let region = Unmapped::new(2 * CODE, CREATE_ANY_MM)?;
        region.append(zeros.bytes())?;
        there.send(region.device.as_raw_fd()).or_fail("pass on")?;
        there.send(region.append.as_raw_fd()).or_fail("pass on")
    })?;
    let device = here.receive().or_fail("receive the device")?;
    let append = here.receive().or_fail("receive the handle")?;
    owner.join()?;
    let before = resident()?;
    let region = Unmapped { device, append };
    let zeros = Mapping::sparse(CODE)?;
    region.append(zeros.bytes())?;
    let more = resident()?.saturating_sub(before);
    let what = format!("{} KiB more are resident", more >> 10);
    holds(more <= 2 * CODE as u64 + BLUR, what)?;
    let fd = region.device.as_raw_fd();
    let map = Mapping::of_file(fd, 2 * CODE, sys::RX, 0).or_fail("mmap")?;
    equal("the last byte", load(map.addr() + 2 * CODE - 1, 1), vec![0])?;
    drop((map, region));
    let after = resident()?;
    let what = format!("{} KiB are resident, {} before", after >> 10, before >> 10);
    holds(after <= before + BLUR, what)
}

/// The owner passes its region on, unmaps it and goes on publishing: its pages stay
/// with it, not with who has mapped the region.
fn who_unmaps_has_nobody_else_pay() -> Outcome {
    let (here, there) = Socket::pair().or_fail("a socket")?;
    let (mapped, end) = (Gate::new()?, Gate::new()?);
    let owner = Child::of_user(ATTACKER, || {
        let region = Region::new(CODE / PAGE)?;
        there.send(region.device.as_raw_fd()).or_fail("pass on")?;
        mapped.wait()?;
        drop(region.map);
        let before = resident()?;
        let zeros = Mapping::sparse(CODE)?;
        let result = calls::append(region.append.as_raw_fd(), zeros.bytes());
        result.or_fail("JIT_APPEND")?;
        there.send(region.device.as_raw_fd()).or_fail("say so")?;
        let outcome = has_more("published", before, CODE);
        end.wait()?;
        outcome
    })?;
    let device = here.receive().or_fail("receive the device")?;
    let before = resident()?;
    let map = Mapping::of_file(device.as_raw_fd(), CODE, sys::RX, 0).or_fail("mmap")?;
    mapped.open()?;
    drop(here.receive().or_fail("the owner has published")?);
    let outcome = has_more("while the owner lives", before, 0);
    end.open()?;
    drop(map);
    outcome.and(owner.join())
}

/// What the group of hog and innocent may take, what the hog has in code, and what
/// the innocent has before and after.
const GROUP: u64 = 48 * MIB;
const HOG: usize = 28 << 20;
const SMALL: usize = 8 << 20;
const MORE: usize = 12 << 20;
/// What is published at once.
const PIECE: usize = 1 << 20;

fn the_hog_is_killed_for_appended_code() -> Outcome {
    hog_is_killed(|zeros| {
        let region = Unmapped::new(HOG, 0)?;
        zeros
            .chunks(PIECE)
            .try_for_each(|piece| region.append(piece))?;
        std::mem::forget(region);
        Ok(())
    })
}

fn the_hog_is_killed_for_filled_code() -> Outcome {
    hog_is_killed(|zeros| {
        let region = Unmapped::new(HOG, 0)?;
        zeros
            .chunks(PIECE)
            .try_for_each(|piece| region.fill(piece))?;
        std::mem::forget(region);
        Ok(())
    })
}

fn the_hog_is_killed_for_created_code() -> Outcome {
    hog_is_killed(|zeros| {
        std::mem::forget(create_code(zeros)?);
        Ok(())
    })
}

/// Fails unless the process that has [`HOG`] bytes of code is killed when a smaller
/// one wants more than there is.
fn hog_is_killed(publish: impl Fn(&[u8]) -> Outcome) -> Outcome {
    let group = Group::limited("jit-hog", GROUP)?;
    let innocent = Innocent::start(&group, SMALL, MORE)?;
    let ready = Gate::new()?;
    let hog = Child::start(|| {
        group.enter()?;
        become_user(ATTACKER)?;
        let zeros = Mapping::sparse(HOG)?;
        publish(zeros.bytes())?;
        ready.open()?;
        loop {
            std::thread::park();
        }
    })?;
    ready.wait_for(&hog)?;
    // Until what a killed process has is given up, the kernel may choose another one
    // beside, so this says nothing of the innocent. A hog that the killer does not see
    // is not killed at all, and this waits for it in vain.
    let _ = innocent.grow();
    let ended = hog.join();
    holds(
        ended.is_err() && group.kills()? > 0,
        format!("the hog: {ended:?}"),
    )
}
