// SPDX-License-Identifier: GPL-2.0
//! `JIT_APPEND`: where code comes to lie, what is around it, and that it runs.

use std::os::fd::AsRawFd;

use jitfd_plan::abi::{self, Segment};

use super::asm;
use super::calls;
use super::harness::{Test, tests};
use super::memory::load;
use super::outcome::{Checked, OrFail, Outcome, equal, holds};
use super::process::in_child;
use super::region::Region;
use super::sys::PAGE;

pub fn tests() -> Vec<Test> {
    tests![
        many_functions_run,
        functions_across_page_boundaries_run,
        each_split_of_an_instruction_runs,
        one_publication_of_many_pages,
        byte_by_byte,
        before_the_first_access_is_in_place,
        after_an_access_swaps_the_entry,
        alignments,
        padding_is_fill,
        offsets_of_a_batch,
        largest_batch,
        batch_across_pages,
        fresh_leaves_page_boundaries,
        fresh_pages_are_touched_once,
        fresh_data_is_read_right,
        synchronous_data_is_read_right,
        synchronous_flush_is_counted,
        calls_between_functions,
        source_is_the_region_itself,
        counters_add_up,
        fdinfo_shows_the_counters,
        region_of_the_largest_size,
    ]
}

fn many_functions_run() -> Outcome {
    let region = Region::new(8)?;
    let mut offsets = Vec::new();
    for value in 0..3000 {
        let offset = region.append(&asm::answer(value))?;
        region.answers(offset, value)?;
        offsets.push(offset);
    }
    for (value, offset) in (0..).zip(offsets) {
        region.answers(offset, value)?;
    }
    Ok(())
}

fn functions_across_page_boundaries_run() -> Outcome {
    let region = Region::new(64)?;
    for value in 0..60 {
        let len = PAGE - 17 + value as usize;
        let offset = region.append(&asm::long_answer(value, len))?;
        region.answers(offset, value)?;
    }
    for (value, offset) in (0..10).zip([0, PAGE as u64 - 17, 2 * PAGE as u64 - 33]) {
        region.answers(offset, value)?;
    }
    Ok(())
}

/// An instruction of five bytes, with 1 to 5 of them before the boundary; the
/// page before is live, and the page after is live or new.
fn each_split_of_an_instruction_runs() -> Outcome {
    for before in 1..=6 {
        let region = Region::new(2)?;
        let first = region.append(&asm::answer(1))?;
        region.answers(first, 1)?;
        let boundary = PAGE as u64;
        region.skip_to(boundary - before)?;
        let offset = region.append(&asm::answer(0x1234_5678))?;
        equal("the offset", offset, boundary - before)?;
        region.answers(offset, 0x1234_5678)?;
        region.answers(first, 1)?;
    }
    Ok(())
}

fn one_publication_of_many_pages() -> Outcome {
    let region = Region::new(2048)?;
    region.append(&[0xc3; 100])?;
    let code = asm::long_answer(77, 2000 * PAGE);
    let offset = region.append(&code)?;
    equal("the offset", offset, 100)?;
    region.answers(offset, 77)?;
    let same = load(region.at(100), code.len()) == code;
    equal("all bytes are right", same, true)
}

fn byte_by_byte() -> Outcome {
    let region = Region::new(2)?;
    let code = asm::long_answer(5, PAGE + 40);
    for (index, byte) in code.iter().enumerate() {
        equal("the offset", region.append(&[*byte])?, index as u64)?;
        // A plain load may still see the fill: bytes that code loads need
        // PUBLISH_SYNC or PUBLISH_FRESH. It may see nothing else.
        let seen = load(region.at(index as u64), 1)[0];
        holds(seen == *byte || seen == 0xcc, "a byte or the fill")?;
    }
    equal("all bytes", &region.content()?[..code.len()], &code[..])?;
    region.answers(0, 5)
}

fn before_the_first_access_is_in_place() -> Outcome {
    let region = Region::new(1)?;
    region.append(&asm::answer(1))?;
    region.append(&asm::answer(2))?;
    region.append(&asm::answer(3))?;
    let stats = region.stats()?;
    equal("written in place", stats.in_place, 2)?;
    equal("swaps", stats.swaps, 0)?;
    equal("replaced", stats.retired, 0)?;
    region.answers(12, 3)
}

fn after_an_access_swaps_the_entry() -> Outcome {
    let region = Region::new(1)?;
    region.append(&asm::answer(1))?;
    region.answers(0, 1)?;
    for value in 2..10 {
        let offset = region.append(&asm::answer(value))?;
        region.answers(offset, value)?;
    }
    let stats = region.stats()?;
    equal("swaps", stats.swaps, 8)?;
    equal("replaced", stats.retired, 8)
}

/// Appends one segment with an alignment.
fn append_aligned(region: &Region, code: &[u8], align_log2: u32) -> Checked<u64> {
    let mut segment = calls::segment(code);
    segment.align_log2 = align_log2;
    calls::publish(
        region.fd(),
        abi::JIT_APPEND,
        &calls::publication(&[segment]),
    )
    .or_fail("JIT_APPEND, aligned")
}

fn alignments() -> Outcome {
    let region = Region::new(16)?;
    let mut cursor: u64 = 0;
    for align in (0..=abi::MAX_ALIGN_LOG2).chain((0..=abi::MAX_ALIGN_LOG2).rev()) {
        let offset = append_aligned(&region, &asm::answer(align), align)?;
        equal("the offset", offset, cursor.next_multiple_of(1 << align))?;
        region.answers(offset, align)?;
        cursor = offset + 6;
        equal("the cursor", region.stats()?.cursor, cursor)?;
    }
    Ok(())
}

fn padding_is_fill() -> Outcome {
    let region = Region::new(1)?;
    region.append(&[0x90])?;
    append_aligned(&region, &[0x90], 6)?;
    let mut wanted = vec![0xcc; PAGE];
    wanted[0] = 0x90;
    wanted[64] = 0x90;
    equal("the page", load(region.at(0), PAGE), wanted.clone())?;
    equal("for a debugger", region.content()?, wanted)
}

/// Appends functions in one call, function i with alignment `align(i)`.
fn append_batch(
    region: &Region,
    count: u32,
    align: impl Fn(u32) -> u32,
    flags: u32,
) -> Checked<u64> {
    let codes: Vec<Vec<u8>> = (0..count).map(asm::answer).collect();
    let segments: Vec<Segment> = (0..)
        .zip(&codes)
        .map(|(index, code)| Segment {
            align_log2: align(index),
            ..calls::segment(code)
        })
        .collect();
    let argument = abi::Publish {
        flags,
        ..calls::publication(&segments)
    };
    calls::publish(region.fd(), abi::JIT_APPEND, &argument).or_fail("a batch")
}

fn offsets_of_a_batch() -> Outcome {
    let region = Region::new(4)?;
    region.append(&[0xc3; 3])?;
    let first = append_batch(&region, 40, |index| index % 7, 0)?;
    let mut cursor: u64 = 3;
    for value in 0..40 {
        cursor = cursor.next_multiple_of(1 << (value % 7));
        if value == 0 {
            equal("the first offset", first, cursor)?;
        }
        region.answers(cursor, value)?;
        cursor += 6;
    }
    equal("the cursor", region.stats()?.cursor, cursor)
}

fn largest_batch() -> Outcome {
    let region = Region::new(4)?;
    let first = append_batch(&region, abi::MAX_SEGMENTS, |_| 0, 0)?;
    for value in 0..abi::MAX_SEGMENTS {
        region.answers(first + 6 * u64::from(value), value)?;
    }
    let stats = region.stats()?;
    equal("publications", stats.publications, 1)?;
    equal("segments", stats.segments, u64::from(abi::MAX_SEGMENTS))
}

fn batch_across_pages() -> Outcome {
    let region = Region::new(64)?;
    let first = append_batch(&region, 32, |_| abi::MAX_ALIGN_LOG2, 0)?;
    equal("the first offset", first, 0)?;
    for value in 0..32 {
        region.answers(u64::from(value) * PAGE as u64, value)?;
    }
    let again = append_batch(&region, 100, |_| 0, 0)?;
    for value in 0..100 {
        region.answers(again + 6 * u64::from(value), value)?;
    }
    Ok(())
}

fn fresh_leaves_page_boundaries() -> Outcome {
    let region = Region::new(8)?;
    let page = PAGE as u64;
    region.append(&asm::answer(1))?;
    let fresh = region.append_with(&asm::answer(2), abi::PUBLISH_FRESH)?;
    equal("the fresh offset", fresh, page)?;
    equal("the cursor", region.stats()?.cursor, 2 * page)?;
    let next = region.append(&asm::answer(3))?;
    equal("the next offset", next, 2 * page)?;
    let batch = append_batch(&region, 3, |_| 0, abi::PUBLISH_FRESH)?;
    equal("a fresh batch", batch, 3 * page)?;
    equal("the cursor", region.stats()?.cursor, 4 * page)?;
    region.answers(fresh, 2)?;
    region.answers(batch + 12, 2)
}

fn fresh_pages_are_touched_once() -> Outcome {
    let region = Region::new(8)?;
    region.append(&asm::answer(1))?;
    region.answers(0, 1)?;
    for value in 0..5 {
        let offset = region.append_with(&asm::answer(value), abi::PUBLISH_FRESH)?;
        region.answers(offset, value)?;
    }
    let stats = region.stats()?;
    equal("swaps", stats.swaps, 0)?;
    equal("flushes", stats.flushes, 0)
}

fn fresh_data_is_read_right() -> Outcome {
    let region = Region::new(40)?;
    for value in 0..30 {
        let offset = region.append_with(&asm::load_own_data(value), abi::PUBLISH_FRESH)?;
        region.answers(offset, value)?;
    }
    Ok(())
}

fn synchronous_data_is_read_right() -> Outcome {
    let region = Region::new(40)?;
    for value in 0..300 {
        let offset = region.append_with(&asm::load_own_data(value), abi::PUBLISH_SYNC)?;
        region.answers(offset, value)?;
    }
    Ok(())
}

/// A flush happens only if a CPU may have cached the entry.
fn synchronous_flush_is_counted() -> Outcome {
    let region = Region::new(1)?;
    region.append_with(&asm::answer(1), abi::PUBLISH_SYNC)?;
    region.append_with(&asm::answer(2), abi::PUBLISH_SYNC)?;
    equal("flushes without an access", region.stats()?.flushes, 0)?;
    region.answers(0, 1)?;
    region.append_with(&asm::answer(3), abi::PUBLISH_SYNC)?;
    equal("flushes after an access", region.stats()?.flushes, 1)?;
    region.answers(12, 3)
}

fn calls_between_functions() -> Outcome {
    let region = Region::new(2)?;
    let mut target = region.append(&asm::answer(99))?;
    for _ in 0..200 {
        let at = region.stats()?.cursor;
        let offset = region.append(&asm::call(at, target))?;
        equal("the offset", offset, at)?;
        region.answers(offset, 99)?;
        target = offset;
    }
    Ok(())
}

/// Published code may be the source, also of its own page.
fn source_is_the_region_itself() -> Outcome {
    let region = Region::new(1)?;
    region.append(&asm::answer(4))?;
    for copy in 1..20 {
        let segments = [Segment {
            source: region.at(0) as u64,
            len: 6,
            ..Default::default()
        }];
        let argument = calls::publication(&segments);
        let offset =
            calls::publish(region.fd(), abi::JIT_APPEND, &argument).or_fail("JIT_APPEND")?;
        equal("the offset", offset, copy * 6)?;
        region.answers(offset, 4)?;
    }
    Ok(())
}

fn counters_add_up() -> Outcome {
    let region = Region::new(4)?;
    append_batch(&region, 10, |_| 0, 0)?;
    region.append(&[0x90; 5000])?;
    calls::reserve(region.fd(), 100, 0).or_fail("JIT_RESERVE")?;
    region.fill(5060, &[0x90; 10])?;
    let stats = region.stats()?;
    equal("capacity", stats.capacity, 4 * PAGE as u64)?;
    equal("cursor", stats.cursor, 5160)?;
    equal("publications", stats.publications, 3)?;
    equal("segments", stats.segments, 12)?;
    equal("bytes", stats.bytes, 5070)?;
    equal("sealed", stats.sealed, 0)?;
    let of_device = calls::stats(region.device.as_raw_fd()).or_fail("JIT_STATS")?;
    equal("on the other handle", of_device, stats)
}

fn fdinfo_shows_the_counters() -> Outcome {
    let region = Region::new(1)?;
    region.append(&[0x90; 12])?;
    for fd in [region.fd(), region.device.as_raw_fd()] {
        let path = format!("/proc/self/fdinfo/{fd}");
        let text = std::fs::read_to_string(path).or_fail("read fdinfo")?;
        for line in ["jit-cursor:\t12\n", "jit-publications:\t1\n"] {
            holds(text.contains(line), format!("{line:?} in {text}"))?;
        }
    }
    let fresh = calls::open_device()?;
    let path = format!("/proc/self/fdinfo/{}", fresh.as_raw_fd());
    let text = std::fs::read_to_string(path).or_fail("read fdinfo")?;
    holds(
        !text.contains("jit-"),
        "a handle without a region has no counters",
    )
}

/// Its first and its last byte can be published and run, by a child too.
fn region_of_the_largest_size() -> Outcome {
    let region = Region::new(abi::MAX_REGION as usize / PAGE)?;
    let first = region.append(&asm::answer(1))?;
    region.skip_to(abi::MAX_REGION - 6)?;
    let last = region.append(&asm::answer(2))?;
    equal("the last offset", last, abi::MAX_REGION - 6)?;
    region.answers(first, 1)?;
    region.answers(last, 2)?;
    in_child(|| region.answers(last, 2))
}
