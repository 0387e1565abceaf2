// SPDX-License-Identifier: GPL-2.0
//! Whoever may only map a region can't slow its owner down, however often it maps;
//! and gets EDQUOT where it is too often.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::suite::calls;
use crate::suite::harness::{Test, tests};
use crate::suite::kmod::with_parameters;
use crate::suite::memory::{self, Mapping, load};
use crate::suite::outcome::{Checked, OrFail, Outcome, equal, holds, refused};
use crate::suite::passing::Socket;
use crate::suite::process::{Child, Gate, in_child};
use crate::suite::region::Region;
use crate::suite::sys::{self, PAGE, RX};

use super::bounds::{
    ATTACKER, DEFAULT_MAPPINGS, HOLDER_MAPPINGS, SLOWER_BY_OTHER_PAGES, SLOWER_BY_SAME_PAGE, VICTIM,
};

pub fn tests() -> Vec<Test> {
    tests![
        mappings_of_another_page_cost_nothing,
        mappings_of_another_page_in_children_cost_nothing,
        splits_of_a_mapping_cost_nothing,
        mappings_of_the_page_are_bounded,
        the_default_is_as_documented,
        mappings_are_bounded,
        unmapping_gives_back,
        children_have_a_bound_of_their_own,
        another_users_processes_share_the_bound,
        another_users_mappings_are_not_inherited,
        a_worker_that_gives_up_its_rights_counts_for_itself,
        a_sealed_region_has_no_bound,
        others_have_bounds_of_their_own,
    ]
}

const PAGES: usize = 512;
/// The page that the owner publishes into; another is the last.
const LAST: usize = PAGES - 1;

fn map(device: &OwnedFd, page: usize) -> io::Result<Mapping> {
    Mapping::of_file(device.as_raw_fd(), PAGE, libc::PROT_READ, page * PAGE)
}

/// Maps a page again and again, `most` times or until that is refused.
fn map_often(device: &OwnedFd, page: usize, most: usize) -> Checked<Vec<Mapping>> {
    let mut mappings = Vec::new();
    while mappings.len() < most {
        match map(device, page) {
            Ok(mapping) => mappings.push(mapping),
            Err(error) if error.raw_os_error() == Some(libc::EDQUOT) => break,
            Err(error) => return Err(error).or_fail("mmap"),
        }
    }
    Ok(mappings)
}

/// The shortest time that some appends took, of many tries: what they cost.
fn cost_of_appends(region: &Region) -> Checked<Duration> {
    const BATCH: usize = 20;
    let mut best = Duration::MAX;
    for _ in 0..12 {
        let start = Instant::now();
        for _ in 0..BATCH {
            let offset = region.append(&[0x90; 16])?;
            load(region.at(offset), 1);
        }
        best = best.min(start.elapsed());
    }
    Ok(best)
}

/// Fails if appends of a victim cost more than `slower` times as much once a process
/// of another user, which has the descriptor and did `attack`, does no more.
fn costs_no_more(slower: u32, attack: impl FnOnce(&OwnedFd) -> Outcome) -> Outcome {
    let (here, there) = Socket::pair().or_fail("a socket")?;
    let (ready, end) = (Gate::new()?, Gate::new()?);
    let attacker = Child::of_user(ATTACKER, || {
        let device = there.receive().or_fail("receive the device")?;
        attack(&device)?;
        ready.open()?;
        end.wait()
    })?;
    let victim = Child::of_user(VICTIM, || {
        let region = Region::new(PAGES)?;
        let before = cost_of_appends(&region)?;
        here.send(region.device.as_raw_fd()).or_fail("pass on")?;
        ready.wait_for(&attacker)?;
        let after = cost_of_appends(&region)?;
        let what = format!("appends took {before:?} before and {after:?} after");
        holds(after <= before * slower, what)
    })?;
    let outcome = victim.join();
    end.open()?;
    outcome.and(attacker.join())
}

/// So many that each publication that looks at all of them is 25 times slower.
const MANY: usize = 10_000;

fn mappings_of_another_page_cost_nothing() -> Outcome {
    costs_no_more(SLOWER_BY_OTHER_PAGES, |device| {
        std::mem::forget(map_often(device, LAST, MANY)?);
        Ok(())
    })
}

/// A fork can't be refused, so it would multiply what there is.
fn mappings_of_another_page_in_children_cost_nothing() -> Outcome {
    const CHILDREN: usize = 10;
    costs_no_more(SLOWER_BY_OTHER_PAGES, |device| {
        std::mem::forget(map_often(device, LAST, MANY / CHILDREN)?);
        for _ in 0..CHILDREN {
            std::mem::forget(Child::start(|| {
                loop {
                    std::thread::park();
                }
            })?);
        }
        Ok(())
    })
}

/// Each second page with another protection: so many areas of one mapping.
fn splits_of_a_mapping_cost_nothing() -> Outcome {
    costs_no_more(SLOWER_BY_OTHER_PAGES, |device| {
        for _ in 0..MANY / (PAGES / 2) {
            let fd = device.as_raw_fd();
            let len = PAGES / 2 * PAGE;
            let Ok(mapping) = Mapping::of_file(fd, len, libc::PROT_READ, len) else {
                break;
            };
            for page in (0..PAGES / 2).step_by(2) {
                // At a bound that counts areas this may be refused.
                let _ = sys::mprotect(mapping.addr() + page * PAGE, PAGE, RX);
            }
            std::mem::forget(mapping);
        }
        Ok(())
    })
}

/// Each of these has to be looked at. The bound is what helps.
fn mappings_of_the_page_are_bounded() -> Outcome {
    costs_no_more(SLOWER_BY_SAME_PAGE, |device| {
        for page in 0..2 {
            std::mem::forget(map_often(device, page, 2 * MANY)?);
        }
        Ok(())
    })
}

/// A region that the test has, mapped once.
fn region() -> Checked<Region> {
    let region = Region::new(2)?;
    region.append(&[0x90; 16])?;
    Ok(region)
}

fn the_default_is_as_documented() -> Outcome {
    let region = region()?;
    let _mappings = map_often(&region.device, 1, DEFAULT_MAPPINGS - 1)?;
    equal(
        "mappings that are allowed",
        _mappings.len(),
        DEFAULT_MAPPINGS - 1,
    )?;
    region.unchanged_by(|| refused("mmap", map(&region.device, 1), libc::EDQUOT))
}

fn with_bound(bound: usize, test: impl FnOnce() -> Outcome) -> Outcome {
    with_parameters(&format!("{HOLDER_MAPPINGS}={bound}"), test)
}

fn mappings_are_bounded() -> Outcome {
    with_bound(8, || {
        let region = region()?;
        let mappings = map_often(&region.device, 0, 7)?;
        equal("mappings that are allowed", mappings.len(), 7)?;
        refused("mmap of the page", map(&region.device, 0), libc::EDQUOT)?;
        refused("mmap of another", map(&region.device, 1), libc::EDQUOT)
    })
}

/// Also of a part of a mapping that is still there: it is one again then.
fn unmapping_gives_back() -> Outcome {
    with_bound(4, || {
        let region = region()?;
        for _ in 0..100 {
            let mut mappings = map_often(&region.device, 0, 3)?;
            equal("mappings that are allowed", mappings.len(), 3)?;
            refused("mmap", map(&region.device, 0), libc::EDQUOT)?;
            mappings.pop();
            mappings.push(map(&region.device, 0).or_fail("mmap after munmap")?);
        }
        let map = Mapping::of_file(region.device.as_raw_fd(), PAGE, RX, 0);
        map.or_fail("mmap in the end").map(|_| ())
    })
}

/// Of the region's own user: what a child inherits counts for the child.
fn children_have_a_bound_of_their_own() -> Outcome {
    with_bound(4, || {
        let region = region()?;
        let _mapping = map_often(&region.device, 0, 1)?;
        let (ready, end) = (Gate::new()?, Gate::new()?);
        let child = Child::start(|| {
            let more = map_often(&region.device, 0, 100)?;
            equal("mappings of the child", more.len(), 2)?;
            ready.open()?;
            end.wait()
        })?;
        ready.wait_for(&child)?;
        let more = map_often(&region.device, 0, 100)?;
        end.open()?;
        child.join()?;
        equal("mappings of the parent", more.len(), 2)
    })
}

/// Runs `attack` in a process of another user that has the descriptor of a region, and
/// `look` while that one still has what it has.
fn beside(
    attack: impl FnOnce(&OwnedFd) -> Outcome,
    look: impl FnOnce(&Region) -> Outcome,
) -> Outcome {
    let (here, there) = Socket::pair().or_fail("a socket")?;
    let (ready, end) = (Gate::new()?, Gate::new()?);
    let attacker = Child::of_user(ATTACKER, || {
        let device = there.receive().or_fail("receive the device")?;
        attack(&device)?;
        ready.open()?;
        end.wait()
    })?;
    let region = region()?;
    here.send(region.device.as_raw_fd()).or_fail("pass on")?;
    ready.wait_for(&attacker)?;
    let outcome = look(&region);
    end.open()?;
    outcome.and(attacker.join())
}

fn another_users_processes_share_the_bound() -> Outcome {
    with_bound(8, || {
        beside(
            |device| {
                let mappings = map_often(device, 0, 5)?;
                equal("mappings of the first", mappings.len(), 5)?;
                in_child(|| {
                    let more = map_often(device, 0, 100)?;
                    equal("mappings of the second", more.len(), 3)
                })?;
                std::mem::forget(mappings);
                Ok(())
            },
            |_| Ok(()),
        )
    })
}

fn another_users_mappings_are_not_inherited() -> Outcome {
    beside(
        |device| {
            let mapping = map(device, 0).or_fail("mmap")?;
            let addr = mapping.addr();
            equal("the byte", load(addr, 1), vec![0x90])?;
            in_child(|| {
                equal("mappings of a child", memory::jit_mappings()?.len(), 0)?;
                let again = map(device, 0).or_fail("mmap in the child")?;
                equal("the byte", load(again.addr(), 1), vec![0x90])
            })?;
            let advice = sys::madvise(addr, PAGE, libc::MADV_DOFORK);
            refused("MADV_DOFORK", advice, libc::EINVAL)
        },
        |_| Ok(()),
    )
}

/// A child has its parent's mappings and becomes another user: its parts of them count
/// for that one, and its parent can map as before.
fn a_worker_that_gives_up_its_rights_counts_for_itself() -> Outcome {
    with_bound(4, || {
        let region = Region::new(64)?;
        region.append(&[0x90; 16])?;
        let (ready, end) = (Gate::new()?, Gate::new()?);
        let worker = Child::of_user(ATTACKER, || {
            for page in (0..64).step_by(2) {
                sys::mprotect(region.at(0) + page * PAGE, PAGE, libc::PROT_READ)
                    .or_fail("mprotect of one page")?;
            }
            ready.open()?;
            end.wait()
        })?;
        ready.wait_for(&worker)?;
        let users = fs::read_to_string("/sys/kernel/debug/jit/users").or_fail("read users");
        let own = map_often(&region.device, 0, 100)?;
        end.open()?;
        worker.join()?;
        equal("mappings of the parent", own.len(), 3)?;
        // Its own one, and the first part of the child's.
        let users = users?;
        let of = |user: u32| {
            let line = users
                .lines()
                .find(|line| line.starts_with(&format!("{user} ")));
            line.and_then(|line| line.split(' ').nth(3)?.parse::<u64>().ok())
        };
        let (own, workers) = (of(0).unwrap_or(0), of(ATTACKER).unwrap_or(0));
        let what = format!("mappings: {own} of the parent's user, {workers} of the worker's");
        holds(own <= 3 && workers >= 60, what)
    })
}

/// Of which nothing is replaced any more.
fn a_sealed_region_has_no_bound() -> Outcome {
    with_bound(8, || {
        let region = region()?;
        calls::seal(region.fd()).or_fail("JIT_SEAL")?;
        let mappings = map_often(&region.device, 0, 100)?;
        equal("mappings that are allowed", mappings.len(), 100)
    })
}

/// Another address space has a bound of its own, and so has another region.
fn others_have_bounds_of_their_own() -> Outcome {
    with_bound(8, || {
        let (here, there) = Socket::pair().or_fail("a socket")?;
        let (full, end) = (Gate::new()?, Gate::new()?);
        let holder = Child::of_user(ATTACKER, || {
            let device = there.receive().or_fail("receive the device")?;
            let mappings = map_often(&device, 0, 100)?;
            equal("mappings of the holder", mappings.len(), 8)?;
            full.open()?;
            end.wait()
        })?;
        let region = region()?;
        here.send(region.device.as_raw_fd()).or_fail("pass on")?;
        full.wait_for(&holder)?;
        let own = map_often(&region.device, 0, 100)?;
        let other = self::region()?;
        let others = map_often(&other.device, 0, 100)?;
        end.open()?;
        holder.join()?;
        equal("mappings of the owner", own.len(), 7)?;
        equal("mappings of another region", others.len(), 7)
    })
}
