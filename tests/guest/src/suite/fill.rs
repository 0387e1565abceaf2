// SPDX-License-Identifier: GPL-2.0
//! `JIT_RESERVE` and `JIT_FILL`: reserved ranges are filled in any order.

use jitfd_plan::abi;

use super::asm;
use super::calls;
use super::execute::{breaks_at, faults};
use super::harness::{Test, tests};
use super::memory;
use super::outcome::{Checked, OrFail, Outcome, equal, refused};
use super::random::Random;
use super::region::Region;
use super::sys::PAGE;

pub fn tests() -> Vec<Test> {
    tests![
        in_reverse_order,
        before_and_after_the_neighbours_run,
        unfilled_code_traps,
        unfilled_page_raises_sigbus,
        alignment_of_a_reservation,
        in_pieces,
        of_many_pages,
        batch_of_scattered_stubs,
        across_two_live_pages,
        across_a_live_and_a_new_page,
        across_a_new_and_a_live_page,
        synchronous,
        any_mix_agrees_with_a_shadow,
    ]
}

fn reserve(region: &Region, len: u64, align_log2: u32) -> Checked<u64> {
    calls::reserve(region.fd(), len, align_log2).or_fail("JIT_RESERVE")
}

fn in_reverse_order() -> Outcome {
    let region = Region::new(4)?;
    let stubs: Vec<u64> = (0..1500)
        .map(|_| reserve(&region, 10, 0))
        .collect::<Checked<_>>()?;
    for (value, offset) in (0..1500).zip(&stubs).rev() {
        region.fill(*offset, &asm::answer(value))?;
        region.answers(*offset, value)?;
    }
    for (value, offset) in (0..1500).zip(&stubs) {
        region.answers(*offset, value)?;
    }
    Ok(())
}

fn before_and_after_the_neighbours_run() -> Outcome {
    let region = Region::new(1)?;
    let hole = reserve(&region, 32, 0)?;
    let behind = region.append(&asm::answer(1))?;
    equal("the code behind", behind, 32)?;
    region.answers(behind, 1)?;
    region.fill(hole, &asm::answer(2))?;
    region.answers(hole, 2)?;
    region.answers(behind, 1)
}

fn unfilled_code_traps() -> Outcome {
    let region = Region::new(1)?;
    let hole = reserve(&region, 32, 0)?;
    region.append(&asm::answer(1))?;
    breaks_at("unfilled code", region.at(hole), region.at(hole) + 1)?;
    region.fill(hole, &asm::answer(2))?;
    region.answers(hole, 2)
}

fn unfilled_page_raises_sigbus() -> Outcome {
    let region = Region::new(3)?;
    let hole = reserve(&region, 3 * PAGE as u64, 0)?;
    let middle = hole + PAGE as u64;
    faults("a reserved page", region.at(middle), libc::SIGBUS)?;
    region.fill(middle, &asm::answer(2))?;
    region.answers(middle, 2)?;
    faults("the page before", region.at(hole), libc::SIGBUS)
}

fn alignment_of_a_reservation() -> Outcome {
    let region = Region::new(16)?;
    let mut cursor: u64 = 0;
    for align in 0..=abi::MAX_ALIGN_LOG2 {
        let offset = reserve(&region, 7, align)?;
        equal("the offset", offset, cursor.next_multiple_of(1 << align))?;
        region.fill(offset, &asm::answer(align))?;
        region.answers(offset, align)?;
        cursor = offset + 7;
    }
    Ok(())
}

fn in_pieces() -> Outcome {
    let region = Region::new(1)?;
    let hole = reserve(&region, 30, 0)?;
    for (offset, value) in [(12, 1), (0, 2), (24, 3), (6, 4), (18, 5)] {
        region.fill(hole + offset, &asm::answer(value))?;
    }
    for (offset, value) in [(12, 1), (0, 2), (24, 3), (6, 4), (18, 5)] {
        region.answers(hole + offset, value)?;
    }
    let result = calls::fill(region.fd(), hole, &[0x90]);
    refused("nothing is left", result, libc::EEXIST)
}

fn of_many_pages() -> Outcome {
    let region = Region::new(64)?;
    region.append(&asm::answer(1))?;
    region.answers(0, 1)?;
    let len = 50 * PAGE;
    let hole = reserve(&region, len as u64, 0)?;
    let behind = region.append(&asm::answer(2))?;
    region.answers(behind, 2)?;
    region.fill(hole, &asm::long_answer(3, len))?;
    region.answers(hole, 3)?;
    region.answers(0, 1)?;
    region.answers(behind, 2)
}

/// Every second stub in one call, the rest in another.
fn batch_of_scattered_stubs() -> Outcome {
    let region = Region::new(64)?;
    let stubs: Vec<u64> = (0..256)
        .map(|_| reserve(&region, 1000, 0))
        .collect::<Checked<_>>()?;
    let codes: Vec<Vec<u8>> = (0..256).map(asm::answer).collect();
    for start in [1, 0] {
        let segments: Vec<abi::Segment> = (start..256)
            .step_by(2)
            .map(|index| calls::segment_at(stubs[index], &codes[index]))
            .collect();
        let argument = calls::publication(&segments);
        calls::publish(region.fd(), abi::JIT_FILL, &argument).or_fail("a batch")?;
        for index in (start..256).step_by(2) {
            region.answers(stubs[index], index as u32)?;
        }
    }
    Ok(())
}

/// A region of two pages with a hole across their boundary.
fn hole_across() -> Checked<(Region, u64)> {
    let region = Region::new(2)?;
    region.append(&asm::answer(1))?;
    region.skip_to(PAGE as u64 - 3)?;
    Ok((region, PAGE as u64 - 3))
}

/// Both pages were executed: their entries may be cached with the hole's 0xCC.
/// That costs a flush before the first byte of the instruction appears.
fn across_two_live_pages() -> Outcome {
    let (region, start) = hole_across()?;
    reserve(&region, 6, 0)?;
    let behind = region.append(&asm::answer(2))?;
    region.answers(0, 1)?;
    region.answers(behind, 2)?;
    let before = region.stats()?;
    region.fill(start, &asm::answer(3))?;
    region.answers(start, 3)?;
    let after = region.stats()?;
    equal("straddles", after.straddles - before.straddles, 1)?;
    equal("flushes", after.flushes - before.flushes, 1)
}

fn across_a_live_and_a_new_page() -> Outcome {
    let (region, start) = hole_across()?;
    region.answers(0, 1)?;
    reserve(&region, 6, 0)?;
    region.fill(start, &asm::answer(3))?;
    region.answers(start, 3)?;
    equal("straddles", region.stats()?.straddles, 0)
}

fn across_a_new_and_a_live_page() -> Outcome {
    let region = Region::new(2)?;
    let hole = reserve(&region, PAGE as u64 + 3, 0)?;
    let behind = region.append(&asm::answer(2))?;
    region.answers(behind, 2)?;
    let start = hole + PAGE as u64 - 3;
    region.fill(start, &asm::answer(3))?;
    region.answers(start, 3)
}

fn synchronous() -> Outcome {
    let region = Region::new(1)?;
    let hole = reserve(&region, 32, 0)?;
    let behind = region.append(&asm::answer(1))?;
    region.answers(behind, 1)?;
    let code = asm::load_own_data(0x55aa);
    let segments = [calls::segment_at(hole, &code)];
    let argument = abi::Publish {
        flags: abi::PUBLISH_SYNC,
        ..calls::publication(&segments)
    };
    calls::publish(region.fd(), abi::JIT_FILL, &argument).or_fail("JIT_FILL")?;
    region.answers(hole, 0x55aa)?;
    equal("flushes", region.stats()?.flushes, 1)
}

/// What a region must hold, kept beside it.
struct Shadow {
    bytes: Vec<u8>,
    reserved: Vec<bool>,
    cursor: usize,
}

impl Shadow {
    fn new(len: usize) -> Self {
        Shadow {
            bytes: vec![0xcc; len],
            reserved: vec![false; len],
            cursor: 0,
        }
    }

    fn place(&mut self, len: usize) -> Option<usize> {
        let start = self.cursor;
        if start + len > self.bytes.len() {
            return None;
        }
        self.cursor += len;
        Some(start)
    }

    fn write(&mut self, start: usize, bytes: &[u8]) {
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self.reserved[start..start + bytes.len()].fill(false);
    }
}

/// Appends, reserves and fills at random; what the calls say and what the
/// region holds must be what the shadow says.
fn any_mix_agrees_with_a_shadow() -> Outcome {
    for seed in 1..=8 {
        let mut random = Random::new(seed);
        let region = Region::new(4)?;
        let mut shadow = Shadow::new(4 * PAGE);
        for _ in 0..400 {
            shadow_step(&region, &mut shadow, &mut random)?;
        }
        let same = region.content()? == shadow.bytes;
        equal(&format!("seed {seed}: the content is right"), same, true)?;
    }
    Ok(())
}

fn shadow_step(region: &Region, shadow: &mut Shadow, random: &mut Random) -> Outcome {
    let len = 1 + random.below(90);
    let bytes = vec![random.below(256) as u8; len];
    match random.below(3) {
        0 => {
            let result = calls::append(region.fd(), &bytes);
            agree("append", result, shadow.place(len), libc::ENOSPC)?.inspect(|&start| {
                shadow.write(start, &bytes);
            });
        }
        1 => {
            let result = calls::reserve(region.fd(), len as u64, 0);
            agree("reserve", result, shadow.place(len), libc::ENOSPC)?
                .inspect(|&start| shadow.reserved[start..start + len].fill(true));
        }
        _ => {
            let start = random.below(4 * PAGE - len);
            return shadow_fill(region, shadow, start, &bytes);
        }
    }
    // Some pages become live.
    memory::seen(region.at((random.below(4) * PAGE) as u64)).map(|_| ())
}

/// Two reservations side by side are still two: only a range that the shadow
/// knows to be one hole is expected to be filled.
fn shadow_fill(region: &Region, shadow: &mut Shadow, start: usize, bytes: &[u8]) -> Outcome {
    let result = calls::fill(region.fd(), start as u64, bytes);
    let free = shadow.reserved[start..start + bytes.len()]
        .iter()
        .all(|&is| is);
    match result {
        Ok(_) if free => {
            shadow.write(start, bytes);
            Ok(())
        }
        Ok(_) => refused("a fill of what is not reserved", Ok(()), libc::EEXIST),
        Err(error) => refused("a fill", Err::<(), _>(error), libc::EEXIST),
    }
}

/// Fails unless the call gave what the shadow gives.
fn agree(
    what: &str,
    result: std::io::Result<u64>,
    wanted: Option<usize>,
    errno: i32,
) -> Checked<Option<usize>> {
    match wanted {
        Some(start) => equal(what, result.or_fail(what)?, start as u64)?,
        None => refused(what, result, errno)?,
    }
    Ok(wanted)
}
