// SPDX-License-Identifier: GPL-2.0
//! Blank pages that regions keep: used again, bounded, and given back when
//! memory is short, when nobody uses them, and when another region is refused
//! for their sake.

use std::fs;
use std::thread;
use std::time::Duration;

use super::asm;
use super::harness::{Test, tests};
use super::kmod::with_parameters;
use super::outcome::{Checked, OrFail, Outcome, equal, failed, holds};
use super::patience::Patience;
use super::race::freed;
use super::region::Region;
use super::sys::PAGE;

pub fn tests() -> Vec<Test> {
    tests![
        replaced_pages_are_used_again,
        a_pool_is_bounded,
        a_region_that_replaces_nothing_keeps_little,
        short_memory_empties_pools,
        idle_pools_are_emptied,
        a_busy_region_does_not_spare_others,
        kept_pages_refuse_nobody,
    ]
}

/// A region that has replaced `count` pages, all freed by now.
fn used(count: u32) -> Checked<Region> {
    let region = Region::new(count as usize / 128 + 2)?;
    let mut value = 0;
    while region.stats()?.retired < u64::from(count) {
        let offset = region.append(&asm::answer(value))?;
        region.answers(offset, value)?;
        value += 1;
    }
    freed(&region)?;
    Ok(region)
}

fn pooled(region: &Region) -> Checked<u64> {
    Ok(region.stats()?.pooled)
}

/// How often something is tried that fails where the machine stands still for the
/// second after which pools are emptied.
const TRIES: usize = 20;

/// A region that has replaced `count` pages, and what it keeps of them.
fn with_pool(count: u32) -> Checked<(Region, u64)> {
    for _ in 0..TRIES {
        let region = used(count)?;
        let kept = pooled(&region)?;
        if kept > 0 {
            return Ok((region, kept));
        }
    }
    failed("no page is kept")
}

fn replaced_pages_are_used_again() -> Outcome {
    let (region, offset) = recycled()?;
    // A recycled page has nothing of its last life.
    region.answers(offset, 7)?;
    let content = region.content()?;
    let rest = &content[region.stats()?.cursor as usize..];
    let end = rest
        .len()
        .min(PAGE - region.stats()?.cursor as usize % PAGE);
    holds(
        rest[..end].iter().all(|&byte| byte == 0xcc),
        "the rest of the page is 0xCC",
    )
}

/// A region, and where in it the answer 7 is, on a page that it had kept.
fn recycled() -> Checked<(Region, u64)> {
    for _ in 0..TRIES {
        let (region, before) = with_pool(100)?;
        let offset = region.append(&asm::answer(7))?;
        let after = pooled(&region)?;
        if after + 1 == before {
            return Ok((region, offset));
        }
        equal("after one more", after, 0)?;
    }
    failed("no page was used again")
}

/// It has as many as ever waited at a time, of which a slow kernel has fewer.
fn a_pool_is_bounded() -> Outcome {
    let (_region, kept) = with_pool(1500)?;
    holds(kept <= 512, format!("{kept} pages are kept"))
}

fn a_region_that_replaces_nothing_keeps_little() -> Outcome {
    let region = Region::new(4)?;
    for value in 0..500 {
        region.append(&asm::answer(value))?;
    }
    let kept = pooled(&region)?;
    holds(kept <= 4, format!("{kept} pages are kept"))
}

fn short_memory_empties_pools() -> Outcome {
    let (region, _) = with_pool(100)?;
    fs::write("/proc/sys/vm/drop_caches", "2").or_fail("drop_caches")?;
    equal("pages kept", pooled(&region)?, 0)?;
    let offset = region.append(&asm::answer(3))?;
    region.answers(offset, 3)
}

fn idle_pools_are_emptied() -> Outcome {
    let region = used(100)?;
    let mut patience = Patience::new();
    loop {
        let kept = pooled(&region)?;
        if kept == 0 {
            return Ok(());
        }
        if patience.is_over(kept) {
            return failed(format!("{kept} pages are kept"));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Also while another region is never idle.
fn a_busy_region_does_not_spare_others() -> Outcome {
    let (idle, busy) = (used(100)?, used(1)?);
    let mut patience = Patience::new();
    for value in 0.. {
        let kept = pooled(&idle)?;
        if kept == 0 {
            break;
        }
        if patience.is_over(kept) {
            return failed(format!("{kept} pages are kept"));
        }
        let before = busy.stats()?.cursor;
        if before as usize + 64 < busy.map.len() {
            let offset = busy.append(&asm::answer(value))?;
            busy.answers(offset, value)?;
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn kept_pages_refuse_nobody() -> Outcome {
    with_parameters("user_pages=62", || {
        let (_region, _) = with_pool(40)?;
        // All that the user may have, but for the one page of the first region's
        // code, and for what each of the two regions needs beside.
        let other = Region::new(55)?;
        let offset = other.append(&asm::long_answer(5, 55 * PAGE))?;
        other.answers(offset, 5)
    })
}
