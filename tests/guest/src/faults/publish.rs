// SPDX-License-Identifier: GPL-2.0
//! Failures while code is published.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use jitfd_plan::abi::{self, CreateCode, JIT_APPEND, JIT_FILL, PUBLISH_FRESH, PUBLISH_SYNC};

use super::region::grown;
use super::sweep::{State, Sweep, USUAL, done, of_process, of_region, some_failed};
use crate::suite::asm;
use crate::suite::calls;
use crate::suite::execute::answers;
use crate::suite::harness::{Test, tests};
use crate::suite::memory::{Mapping, debugger_view};
use crate::suite::outcome::{Checked, OrFail, Outcome, equal, holds};
use crate::suite::region::Region;
use crate::suite::sys::{self, PAGE};

pub fn tests() -> Vec<Test> {
    tests![
        append_the_first,
        append_over_used_pages,
        append_in_steady_state,
        append_where_nobody_looked,
        append_many_pages,
        append_much,
        append_a_batch,
        append_synchronously,
        append_fresh,
        append_what_looks_like_a_breakpoint,
        reserve,
        fill_over_used_pages,
        fill_across_used_pages,
        fill_in_pieces,
        create_code,
        create_much_code,
        create_code_fixed,
    ]
    .into_iter()
    .map(|test| test.within(Duration::from_secs(60)))
    .collect()
}

/// Appends `code`, which ends by answering 7, to what `prepare` makes.
fn append(prepare: &dyn Fn() -> Checked<Region>, code: &[u8], flags: u32) -> Outcome {
    let sweep = Sweep {
        prepare,
        call: &|region: &mut Region| done(calls::append_with(region.fd(), code, flags)),
        state: &of_region,
        verify: &|region| {
            let cursor = region.stats()?.cursor;
            let start = match flags & PUBLISH_FRESH {
                0 => cursor - code.len() as u64,
                _ => cursor - code.len().next_multiple_of(PAGE) as u64,
            };
            region.answers(start, 7)
        },
        errnos: USUAL,
    };
    some_failed(sweep.run()?)
}

fn empty() -> Checked<Region> {
    Region::new(35)
}

fn append_the_first() -> Outcome {
    append(&empty, &asm::answer(7), 0)
}

fn append_over_used_pages() -> Outcome {
    append(&grown, &asm::answer(7), 0)
}

/// What a region keeps for its next publication is there.
fn append_in_steady_state() -> Outcome {
    let sweep = Sweep {
        prepare: &|| {
            let region = grown()?;
            for value in 0..10 {
                let offset = region.append(&asm::answer(value))?;
                region.answers(offset, value)?;
            }
            Ok(region)
        },
        call: &|region: &mut Region| done(calls::append(region.fd(), &asm::answer(7))),
        state: &of_region,
        verify: &|region| region.answers(region.stats()?.cursor - 6, 7),
        errnos: USUAL,
    };
    some_failed(sweep.run_twice()?)
}

/// Written in place: the state is asked without touching the pages.
fn append_where_nobody_looked() -> Outcome {
    let sweep = Sweep {
        prepare: &|| {
            let region = empty()?;
            region.append(&asm::answer(1))?;
            let stats = region.stats()?;
            Ok((region, stats))
        },
        call: &|(region, _): &mut (Region, abi::Stats)| {
            let failed = calls::append(region.fd(), &asm::answer(7));
            done(failed)
        },
        state: &of_process,
        verify: &|(region, before)| {
            let stats = region.stats()?;
            equal("publications", stats.publications, before.publications + 1)?;
            equal("the cursor", stats.cursor, before.cursor + 6)?;
            region.answers(6, 7)
        },
        errnos: USUAL,
    };
    some_failed(sweep.run_twice()?)
}

fn append_many_pages() -> Outcome {
    append(&grown, &asm::long_answer(7, 3 * PAGE), 0)
}

/// More than a region keeps, and more than the slab allocator likes.
fn append_much() -> Outcome {
    append(&empty, &asm::long_answer(7, 34 * PAGE), 0)
}

fn append_synchronously() -> Outcome {
    append(&grown, &asm::answer(7), PUBLISH_SYNC)
}

fn append_fresh() -> Outcome {
    append(&grown, &asm::long_answer(7, PAGE + 10), PUBLISH_FRESH)
}

fn append_what_looks_like_a_breakpoint() -> Outcome {
    let mut code = asm::answer(0x0003_cd00);
    code.extend(asm::answer(7));
    let sweep = Sweep {
        prepare: &grown,
        call: &|region: &mut Region| done(calls::append(region.fd(), &code)),
        state: &of_region,
        verify: &|region| region.answers(region.stats()?.cursor - 6, 7),
        errnos: USUAL,
    };
    some_failed(sweep.run()?)
}

/// Each lies apart, and is copied by itself.
const SEGMENTS: u32 = 40;

fn append_a_batch() -> Outcome {
    let codes: Vec<Vec<u8>> = (0..SEGMENTS)
        .map(|value| asm::long_answer(value, 40))
        .collect();
    let sweep = Sweep {
        prepare: &grown,
        call: &|region: &mut Region| {
            let segments: Vec<_> = codes.iter().map(|code| calls::segment(code)).collect();
            let argument = calls::publication(&segments);
            done(calls::publish(region.fd(), JIT_APPEND, &argument))
        },
        state: &of_region,
        verify: &|region| {
            let start = region.stats()?.cursor - u64::from(SEGMENTS) * 40;
            (0..SEGMENTS).try_for_each(|value| region.answers(start + u64::from(value) * 40, value))
        },
        errnos: USUAL,
    };
    some_failed(sweep.run()?)
}

fn reserve() -> Outcome {
    let sweep = Sweep {
        prepare: &grown,
        call: &|region: &mut Region| done(calls::reserve(region.fd(), 100, 4)),
        state: &of_region,
        verify: &|region| {
            let start = region.stats()?.cursor - 100;
            region.fill(start, &asm::answer(7))?;
            region.answers(start, 7)
        },
        errnos: USUAL,
    };
    some_failed(sweep.run()?)
}

/// A reservation of three pages between used code.
const HOLE: u64 = 64;

fn with_hole() -> Checked<Region> {
    let region = Region::new(6)?;
    region.append(&asm::long_answer(1, HOLE as usize))?;
    calls::reserve(region.fd(), 3 * PAGE as u64, 0).or_fail("JIT_RESERVE")?;
    region.append(&asm::long_answer(2, 100))?;
    // Every page of it has code, and was looked at.
    for page in 1..3 {
        let offset = page * PAGE as u64 + 500;
        region.fill(offset, &asm::answer(3))?;
        region.answers(offset, 3)?;
    }
    region.answers(0, 1)?;
    Ok(region)
}

/// Fills pieces, each with an answer of its own.
fn fill(offsets: &[u64]) -> Outcome {
    let codes: Vec<Vec<u8>> = (10..).take(offsets.len()).map(asm::answer).collect();
    let sweep = Sweep {
        prepare: &with_hole,
        call: &|region: &mut Region| {
            let pieces = offsets.iter().zip(&codes);
            let segments: Vec<_> = pieces
                .map(|(offset, code)| calls::segment_at(*offset, code))
                .collect();
            let argument = calls::publication(&segments);
            done(calls::publish(region.fd(), JIT_FILL, &argument))
        },
        state: &of_region,
        verify: &|region| {
            let mut pieces = offsets.iter().zip(10..);
            pieces.try_for_each(|(offset, value)| region.answers(*offset, value))?;
            // What is between them is still reserved.
            region.fill(offsets[0] + 20, &asm::answer(8))?;
            region.answers(offsets[0] + 20, 8)
        },
        errnos: USUAL,
    };
    some_failed(sweep.run()?)
}

fn fill_over_used_pages() -> Outcome {
    fill(&[HOLE])
}

fn fill_across_used_pages() -> Outcome {
    fill(&[PAGE as u64 - 3])
}

fn fill_in_pieces() -> Outcome {
    fill(&[HOLE + 10, HOLE + 100, 5000, 9000, 9100])
}

/// A handle, and the code that a call has made.
type Code = (OwnedFd, Option<Mapping>);

fn create_code_of(len: usize) -> Outcome {
    let code = asm::long_answer(7, len);
    let sweep = Sweep {
        prepare: &|| Ok((calls::open_device()?, None)),
        call: &|(device, made): &mut Code| {
            let mut argument = CreateCode {
                source: code.as_ptr().expose_provenance() as u64,
                len: len as u64,
                ..Default::default()
            };
            calls::create_code(device.as_raw_fd(), &mut argument)?;
            let pages = len.next_multiple_of(PAGE);
            *made = Some(Mapping::adopt(argument.addr as usize, pages));
            Ok(())
        },
        state: &of_process,
        verify: &|(_, made)| {
            let map = made.as_ref().or_fail("a mapping")?;
            answers("the code", map.addr(), 7)
        },
        errnos: USUAL,
    };
    some_failed(sweep.run()?)
}

fn create_code() -> Outcome {
    create_code_of(100)
}

fn create_much_code() -> Outcome {
    create_code_of(20 * PAGE)
}

/// Memory of which the two pages in the middle are replaced. The kernel unmaps
/// them before it maps, like for any `MAP_FIXED`: a failure in between leaves a
/// hole. Nothing else may change.
struct Target {
    device: OwnedFd,
    memory: Mapping,
    code: Vec<u8>,
    called: bool,
}

impl Target {
    fn new() -> Checked<Self> {
        let target = Target {
            device: calls::open_device()?,
            memory: Mapping::anonymous(4)?,
            code: asm::long_answer(7, PAGE + 100),
            called: false,
        };
        target.memory.write(0, &[0x55; 4 * PAGE]);
        target.memory.write(PAGE, &target.code);
        Ok(target)
    }

    fn addr(&self) -> usize {
        self.memory.addr() + PAGE
    }

    /// The memory may be gone after the first call.
    fn call(&mut self) -> std::io::Result<()> {
        if std::mem::replace(&mut self.called, true) {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            sys::mmap(self.addr(), 2 * PAGE, sys::RW, flags, -1, 0)?;
            self.memory.write(PAGE, &self.code);
        }
        let mut argument = CreateCode {
            source: self.code.as_ptr().expose_provenance() as u64,
            len: self.code.len() as u64,
            addr: self.addr() as u64,
            flags: abi::CREATE_CODE_FIXED,
            ..Default::default()
        };
        done(calls::create_code(self.device.as_raw_fd(), &mut argument))
    }

    fn state(&self) -> Checked<State> {
        let read =
            |page: usize| debugger_view(std::process::id(), self.memory.addr() + page * PAGE, PAGE);
        for page in [0, 3] {
            let same = read(page).is_ok_and(|bytes| bytes == [0x55; PAGE]);
            holds(same, "the memory around it is as before")?;
        }
        let mut before = self.code.clone();
        before.resize(2 * PAGE, 0x55);
        for (page, wanted) in (1..).zip(before.chunks(PAGE)) {
            let same = read(page).map_or(true, |bytes| bytes == wanted);
            holds(same, "the pages are as before, or gone")?;
        }
        State::of(&[])
    }
}

fn create_code_fixed() -> Outcome {
    let sweep = Sweep {
        prepare: &Target::new,
        call: &|target: &mut Target| target.call(),
        state: &Target::state,
        verify: &|target| answers("the code", target.addr(), 7),
        errnos: USUAL,
    };
    some_failed(sweep.run()?)
}
