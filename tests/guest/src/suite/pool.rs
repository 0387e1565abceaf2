// SPDX-License-Identifier: GPL-2.0
//! Blank pages that regions keep: used again, bounded, and given back when
//! memory is short, when nobody uses them, and when another region is refused
//! for their sake.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::asm;
use super::harness::{Test, tests};
use super::kmod::with_parameters;
use super::outcome::{Checked, OrFail, Outcome, equal, failed, holds};
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

fn replaced_pages_are_used_again() -> Outcome {
    let region = used(100)?;
    let before = pooled(&region)?;
    holds(before > 0, format!("{before} pages are kept"))?;
    let offset = region.append(&asm::answer(7))?;
    equal("after one more", pooled(&region)?, before - 1)?;
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

/// It has as many as ever waited at a time, of which a slow kernel has fewer.
fn a_pool_is_bounded() -> Outcome {
    let kept = pooled(&used(1500)?)?;
    holds((1..=512).contains(&kept), format!("{kept} pages are kept"))
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
    let region = used(100)?;
    holds(pooled(&region)? > 0, "pages are kept")?;
    fs::write("/proc/sys/vm/drop_caches", "2").or_fail("drop_caches")?;
    equal("pages kept", pooled(&region)?, 0)?;
    let offset = region.append(&asm::answer(3))?;
    region.answers(offset, 3)
}

fn idle_pools_are_emptied() -> Outcome {
    let region = used(100)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while pooled(&region)? != 0 {
        if Instant::now() > deadline {
            return failed(format!("{} pages are kept", pooled(&region)?));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Also while another region is never idle.
fn a_busy_region_does_not_spare_others() -> Outcome {
    let (idle, busy) = (used(100)?, used(1)?);
    let deadline = Instant::now() + Duration::from_secs(10);
    for value in 0.. {
        if pooled(&idle)? == 0 {
            break;
        }
        if Instant::now() > deadline {
            return failed(format!("{} pages are kept", pooled(&idle)?));
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
    with_parameters("user_pages=60", || {
        let region = used(40)?;
        holds(pooled(&region)? > 0, "pages are kept")?;
        // All that the user may have, but for the one page of the first region.
        let other = Region::new(59)?;
        let offset = other.append(&asm::long_answer(5, 59 * PAGE))?;
        other.answers(offset, 5)
    })
}
