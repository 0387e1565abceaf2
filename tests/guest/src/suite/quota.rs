// SPDX-License-Identifier: GPL-2.0
//! The bounds of one user, set by module parameters: EDQUOT, with nothing
//! changed, and room again after something was given back.
//!
//! A region counts as one page beside its code, and has one more to work with as
//! soon as something was published into it; a created code counts as one.
//!
//! These load the module anew, so they run late.

use std::os::fd::{AsRawFd, OwnedFd};

use jitfd_plan::abi::{CloneFrom, Create, CreateCode, JIT_FILL};

use super::asm;
use super::calls;
use super::harness::{Test, tests};
use super::kmod::with_parameters;
use super::memory::{self, Mapping};
use super::outcome::{Checked, OrFail, Outcome, equal, refused};
use super::process::{become_user, in_child};
use super::race::freed;
use super::region::Region;
use super::sys::PAGE;

pub fn tests() -> Vec<Test> {
    tests![
        regions_are_bounded,
        clones_count_as_regions,
        clones_pay_before_they_share,
        created_codes_count_as_regions,
        pages_of_a_region_are_bounded,
        pages_of_created_code_are_bounded,
        tables_of_large_regions_count_as_pages,
        reserved_ranges_count_as_pages,
        room_comes_back,
        users_are_apart,
        few_retired_pages_are_enough,
    ]
}

fn create(device: &OwnedFd) -> std::io::Result<OwnedFd> {
    let argument = Create {
        size: PAGE as u64,
        ..Default::default()
    };
    calls::create(device.as_raw_fd(), &argument)
}

fn regions_are_bounded() -> Outcome {
    with_parameters("user_regions=3", || {
        let regions: Vec<Region> = (0..3).map(|_| Region::new(1)).collect::<Checked<_>>()?;
        let device = calls::open_device()?;
        refused("a fourth region", create(&device), libc::EDQUOT)?;
        refused("JIT_STATS", calls::stats(device.as_raw_fd()), libc::ENODATA)?;
        drop(regions);
        create(&device).or_fail("after the others are gone")?;
        Ok(())
    })
}

fn clones_count_as_regions() -> Outcome {
    with_parameters("user_regions=1", || {
        let region = Region::new(1)?;
        region.append(&asm::answer(1))?;
        let device = calls::open_device()?;
        let argument = CloneFrom {
            source_fd: region.device.as_raw_fd(),
            ..Default::default()
        };
        region.unchanged_by(|| {
            let result = calls::clone_region(device.as_raw_fd(), &argument);
            refused("JIT_CLONE", result, libc::EDQUOT)
        })
    })
}

/// A page that a clone has shared is never written in place again. One that nobody can
/// pay for is not shared.
fn clones_pay_before_they_share() -> Outcome {
    with_parameters("user_pages=1300", || {
        let region = Region::new(1300)?;
        region.append(&asm::long_answer(1, 1200 * PAGE - 64))?;
        in_child(|| {
            become_user(1000)?;
            let other = Region::new(1000)?;
            other.append(&asm::long_answer(2, 1000 * PAGE))?;
            let device = calls::open_device()?;
            let argument = CloneFrom {
                source_fd: region.device.as_raw_fd(),
                ..Default::default()
            };
            let result = calls::clone_region(device.as_raw_fd(), &argument);
            refused("JIT_CLONE", result, libc::EDQUOT)
        })?;
        let before = region.stats()?.in_place;
        let offset = region.append(&asm::answer(3))?;
        equal("changes in place", region.stats()?.in_place, before + 1)?;
        region.answers(offset, 3)
    })
}

fn create_code(device: &OwnedFd, code: &[u8]) -> std::io::Result<Mapping> {
    let mut argument = CreateCode {
        source: code.as_ptr().addr() as u64,
        len: code.len() as u64,
        ..Default::default()
    };
    calls::create_code(device.as_raw_fd(), &mut argument)?;
    let len = code.len().next_multiple_of(PAGE);
    Ok(Mapping::adopt(argument.addr as usize, len))
}

fn created_codes_count_as_regions() -> Outcome {
    with_parameters("user_regions=2", || {
        let device = calls::open_device()?;
        let code = asm::answer(1);
        let _first = create_code(&device, &code).or_fail("the first")?;
        let second = create_code(&device, &code).or_fail("the second")?;
        let before = memory::jit_mappings()?;
        refused("the third", create_code(&device, &code), libc::EDQUOT)?;
        equal("the mappings", memory::jit_mappings()?, before)?;
        drop(second);
        create_code(&device, &code).or_fail("again")?;
        Ok(())
    })
}

fn pages_of_a_region_are_bounded() -> Outcome {
    with_parameters("user_pages=13", || {
        let region = Region::new(40)?;
        region.append(&asm::long_answer(1, 8 * PAGE))?;
        region.unchanged_by(|| {
            let result = calls::append(region.fd(), &[0xc3; 5 * PAGE]);
            refused("JIT_APPEND of five more", result, libc::EDQUOT)
        })?;
        let offset = region.append(&asm::long_answer(2, PAGE))?;
        region.answers(0, 1)?;
        region.answers(offset, 2)
    })
}

fn pages_of_created_code_are_bounded() -> Outcome {
    with_parameters("user_pages=12", || {
        let device = calls::open_device()?;
        let code = asm::long_answer(1, 11 * PAGE);
        let before = memory::jit_mappings()?;
        refused("eleven pages", create_code(&device, &code), libc::EDQUOT)?;
        equal("the mappings", memory::jit_mappings()?, before)?;
        let map = create_code(&device, &code[..10 * PAGE]).or_fail("ten pages")?;
        refused("one more", create_code(&device, &[0xc3]), libc::EDQUOT)?;
        drop(map);
        create_code(&device, &code[..10 * PAGE]).or_fail("ten pages again")?;
        Ok(())
    })
}

/// A region of 1 GiB has a table of 2 MiB before there is any code in it.
fn tables_of_large_regions_count_as_pages() -> Outcome {
    with_parameters("user_pages=600", || {
        let device = calls::open_device()?;
        let large = Create {
            size: 1 << 30,
            ..Default::default()
        };
        let first = calls::create(device.as_raw_fd(), &large).or_fail("the first")?;
        let other = calls::open_device()?;
        let second = calls::create(other.as_raw_fd(), &large);
        refused("a second", second, libc::EDQUOT)?;
        refused("JIT_STATS", calls::stats(other.as_raw_fd()), libc::ENODATA)?;
        drop((device, first));
        let again = calls::create(other.as_raw_fd(), &large);
        again.or_fail("after the first is gone").map(drop)
    })
}

/// 64 of them take a page of memory.
fn reserved_ranges_count_as_pages() -> Outcome {
    with_parameters("user_pages=6", || {
        let region = Region::new(4)?;
        for _ in 0..5 * 64 - 1 {
            calls::reserve(region.fd(), 8, 0).or_fail("JIT_RESERVE")?;
        }
        region.unchanged_by(|| {
            let one_more = calls::reserve(region.fd(), 8, 0);
            refused("JIT_RESERVE of one more", one_more, libc::EDQUOT)
        })?;
        drop(region);
        let region = Region::new(4)?;
        region.append(&asm::answer(1))?;
        region.answers(0, 1)
    })
}

/// Replaced pages count until they are freed, then make room.
fn room_comes_back() -> Outcome {
    with_parameters("user_pages=9", || {
        let region = Region::new(4)?;
        for value in 0..100 {
            let offset = match calls::append(region.fd(), &asm::answer(value)) {
                Err(error) if error.raw_os_error() == Some(libc::EDQUOT) => {
                    freed(&region)?;
                    region.append(&asm::answer(value))?
                }
                other => other.or_fail("JIT_APPEND")?,
            };
            region.answers(offset, value)?;
        }
        Ok(())
    })
}

fn users_are_apart() -> Outcome {
    with_parameters("user_regions=1 user_pages=6", || {
        let region = Region::new(4)?;
        region.append(&asm::long_answer(1, 3 * PAGE))?;
        in_child(|| {
            become_user(1000)?;
            let own = Region::new(4)?;
            let offset = own.append(&asm::long_answer(2, 3 * PAGE))?;
            own.answers(offset, 2)?;
            let device = calls::open_device()?;
            refused("a second region", create(&device), libc::EDQUOT)
        })?;
        region.answers(0, 1)
    })
}

/// The smallest bounds that the module takes: publications flush when they
/// must, and all is freed.
fn few_retired_pages_are_enough() -> Outcome {
    with_parameters("retired_region=1", || {
        const PAGES: usize = 600;
        let region = Region::new(PAGES)?;
        let hole = calls::reserve(region.fd(), (PAGES * PAGE) as u64, 0).or_fail("reserve")?;
        for round in 0..20u64 {
            let code = asm::answer(round as u32);
            let segments: Vec<_> = (0..PAGES as u64)
                .map(|page| calls::segment_at(hole + page * PAGE as u64 + 8 * round, &code))
                .collect();
            let argument = calls::publication(&segments);
            calls::publish(region.fd(), JIT_FILL, &argument).or_fail("JIT_FILL")?;
            for segment in &segments {
                region.answers(segment.offset, round as u32)?;
            }
        }
        freed(&region).map(|_| ())
    })
}
