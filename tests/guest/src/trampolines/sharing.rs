// SPDX-License-Identifier: GPL-2.0
//! What copies and processes share: the physical pages of the code, and none of
//! the data.

use super::adder::{bound, call, made};
use crate::suite::harness::{Test, tests};
use crate::suite::outcome::{Checked, OrFail, Outcome, equal, holds};
use crate::suite::process::in_child;
use jitfd::{Backend, Fallback};
use jitfd_trampoline::{Table, Trampoline};
use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

pub fn tests() -> Vec<Test> {
    tests![
        code_of_the_kernel_is_of_its_device,
        copies_share_the_pages_of_the_code,
        a_child_shares_code_and_not_data
    ]
}

const PAGE: usize = 4096;
/// The trampolines of a copy; the first is not used.
const CAPACITY: usize = 256;
/// From an entry to its copy, and from there to the data.
const MASK: usize = CAPACITY * 64 - 1;
const CODE: usize = CAPACITY * 32;

fn table(backend: Backend) -> Checked<Table> {
    made(Fallback::Only(backend), CAPACITY)
}

/// The number of the physical page at an address, which is root's to know.
fn frame(address: usize) -> Checked<u64> {
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    let map = File::open("/proc/self/pagemap").or_fail("pagemap")?;
    let mut word = [0; 8];
    map.read_exact_at(&mut word, (address / PAGE * 8) as u64)
        .or_fail("pagemap")?;
    let word = u64::from_le_bytes(word);
    holds(
        word & PRESENT != 0 && word & FRAME != 0,
        format!("{address:#x}: {word:#x}"),
    )?;
    Ok(word & FRAME)
}

/// What is mapped at an address: the access and the file.
fn mapping(address: usize) -> Checked<String> {
    let maps = fs::read_to_string("/proc/self/maps").or_fail("maps")?;
    let has = |line: &&str| {
        let range = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'));
        range.is_some_and(|(from, to)| {
            let [from, to] = [from, to].map(|end| usize::from_str_radix(end, 16).unwrap_or(0));
            (from..to).contains(&address)
        })
    };
    let line = maps.lines().find(has).or_fail("a mapping")?;
    let words = Vec::from_iter(line.split_whitespace());
    Ok(format!("{} {}", words[1], words.get(5).unwrap_or(&"")))
}

/// What the code of an entry is in: the frame of a memory file's page. The frames
/// of the kernel's regions are no one's to see; there it is the mapping.
fn code(backend: Backend, entry: &Trampoline<'_>) -> Checked<Result<u64, String>> {
    let page = entry.address();
    match backend {
        Backend::Kernel => Ok(Err(mapping(page)?)),
        _ => Ok(Ok(frame(page)?)),
    }
}

/// The frame of the data of an entry's copy.
fn data(entry: &Trampoline<'_>) -> Checked<u64> {
    frame((entry.address() & !MASK) + CODE)
}

fn on_both(test: impl Fn(Backend, &Table) -> Outcome) -> Outcome {
    [Backend::Kernel, Backend::DualMapping]
        .into_iter()
        .try_for_each(|backend| test(backend, &table(backend)?))
}

fn code_of_the_kernel_is_of_its_device() -> Outcome {
    let table = table(Backend::Kernel)?;
    let entry = bound(&table, 1)?;
    let mapped = mapping(entry.address())?;
    equal("the code", mapped.as_str(), "r-xs /dev/jit")
}

fn copies_share_the_pages_of_the_code() -> Outcome {
    on_both(|backend, table| {
        let mut entries = Vec::new();
        for context in 0..3 * (CAPACITY - 1) {
            entries.push(bound(table, context)?);
        }
        equal("copies", table.stats().copies, 3)?;
        for (context, entry) in entries.iter().enumerate() {
            equal("a call", call(entry, 0), context)?;
        }
        let of_copies = || entries.iter().step_by(CAPACITY - 1);
        let first = code(backend, &entries[0])?;
        for entry in of_copies() {
            equal("the code", code(backend, entry)?, first.clone())?;
        }
        let frames: Checked<HashSet<u64>> = of_copies().map(data).collect();
        equal("frames of data", frames?.len(), 3)
    })
}

fn a_child_shares_code_and_not_data() -> Outcome {
    on_both(|backend, table| {
        let first = bound(table, 1)?;
        equal("the parent's call", call(&first, 0), 1)?;
        let (shared, before) = (code(backend, &first)?, data(&first)?);
        in_child(|| {
            equal("the child's call", call(&first, 0), 1)?;
            equal("the child's code", code(backend, &first)?, shared.clone())?;
            equal("the child's data", data(&first)?, before)?;
            let own = bound(table, 2)?;
            equal("of its own", call(&own, 0), 2)?;
            equal("the child's code", code(backend, &first)?, shared.clone())?;
            let written = data(&first)? != before;
            holds(written, "the child has written to the parent's page")
        })?;
        let second = bound(table, 3)?;
        equal("the parent's next", call(&second, 0), 3)?;
        equal("the parent's first", call(&first, 0), 1)
    })
}
