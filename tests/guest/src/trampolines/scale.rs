// SPDX-License-Identifier: GPL-2.0
//! Very many trampolines, and the end of what there is.

use super::adder::{bind, bound, call, made};
use crate::suite::harness::{Test, tests};
use crate::suite::outcome::{Checked, OrFail, Outcome, equal, holds};
use crate::suite::sys;
use jitfd::{Fallback, Kind};
use std::fs::{self, File};
use std::io::Read;
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    let mut tests = tests![
        mappings_used_up_change_nothing,
        mappings_and_heap_used_up_are_no_crash
    ];
    let million = Test::new("scale::a_million_trampolines", a_million_trampolines);
    tests.push(million.within(Duration::from_secs(120)));
    tests
}

/// A value of /proc/self/status, in KiB.
fn status(name: &str) -> Checked<usize> {
    let text = fs::read_to_string("/proc/self/status").or_fail("status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    value.or_fail(name)
}

/// Takes no memory: where mappings are used up the heap can't grow, either.
fn mappings() -> Checked<usize> {
    let mut maps = File::open("/proc/self/maps").or_fail("maps")?;
    let (mut part, mut lines) = ([0; 4096], 0);
    loop {
        let len = maps.read(&mut part).or_fail("maps")?;
        if len == 0 {
            return Ok(lines);
        }
        lines += part.iter().take(len).filter(|&&byte| byte == b'\n').count();
    }
}

fn a_million_trampolines() -> Outcome {
    const MILLION: usize = 1_000_000;
    let table = made(Fallback::Never, 1024)?;
    let mut entries = Vec::with_capacity(MILLION);
    // The vector's own pages.
    entries.resize_with(MILLION, || None);
    entries.clear();
    let (memory, before) = (status("VmRSS:")? + status("VmPTE:")?, mappings()?);
    for context in 0..MILLION {
        entries.push(Some(bound(&table, context)?));
    }
    let grown = status("VmRSS:")? + status("VmPTE:")? - memory;
    let each = grown * 1024 / MILLION;
    let mapped = mappings()? - before;
    println!(
        "a million: {each} bytes each, {mapped} mappings, {:?}",
        table.stats()
    );
    holds((16..=17).contains(&each), format!("{each} bytes each"))?;
    holds(mapped <= 2000, format!("{mapped} mappings"))?;
    for context in (0..MILLION).step_by(997) {
        let entry = entries.get(context).and_then(Option::as_ref);
        equal("a call", call(entry.or_fail("an entry")?, 7), context + 7)?;
    }
    // From both ends to the middle, so that all copies empty at the same time.
    for at in 0..MILLION {
        let at = at * 499_979 % MILLION;
        if let Some(place) = entries.get_mut(at) {
            *place = None;
        }
    }
    holds(entries.iter().all(Option::is_none), "some were not dropped")?;
    holds(table.stats().taken <= 64, "a thread keeps more than 64")?;
    table.trim();
    let left = table.stats();
    equal("copies and slots left", (left.copies, left.taken), (1, 0))?;
    let stays = (status("VmRSS:")? + status("VmPTE:")?).saturating_sub(memory);
    holds(stays < 1024, format!("{stays} KiB stay"))
}

const MAX_MAP_COUNT: &str = "/proc/sys/vm/max_map_count";

/// The bound of the system while a test lowers it.
struct MapCount(String);

impl MapCount {
    fn lowered(to: usize) -> Checked<Self> {
        let old = fs::read_to_string(MAX_MAP_COUNT).or_fail(MAX_MAP_COUNT)?;
        fs::write(MAX_MAP_COUNT, to.to_string()).or_fail(MAX_MAP_COUNT)?;
        Ok(Self(old))
    }
}

impl Drop for MapCount {
    fn drop(&mut self) {
        let _ = fs::write(MAX_MAP_COUNT, &self.0);
    }
}

fn mappings_used_up_change_nothing() -> Outcome {
    let table = made(Fallback::Never, 256)?;
    let mut entries = Vec::with_capacity(100_000);
    entries.push(bound(&table, 0)?);
    let bound_of_system = MapCount::lowered(mappings()? + 20)?;
    let error = loop {
        let before = table.stats();
        match bind(&table, entries.len()) {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                equal("after a failed call", table.stats(), before)?;
                break error;
            }
        }
        holds(entries.len() < 100_000, "no bound was met")?;
    };
    let before = mappings()?;
    let is_shortage = error.kind() == Some(Kind::NoMemory);
    holds(
        is_shortage && entries.len() > 1000,
        format!("{} entries: {error}", entries.len()),
    )?;
    for _ in 0..100 {
        holds(bind(&table, 0).is_err(), "bound all the same")?;
    }
    equal("mappings after failed calls", mappings()?, before)?;
    for (context, entry) in entries.iter().enumerate() {
        equal("a call", call(entry, 7), context + 7)?;
    }
    drop(bound_of_system);
    let further = bound(&table, 5)?;
    equal("a call", call(&further, 7), 12)
}

/// Mappings of one page each, until there may be no more: then the heap can't grow.
fn use_mappings_up() -> Outcome {
    // Neighbours that are alike would be one.
    let mut kinds = [libc::PROT_NONE, libc::PROT_READ].into_iter().cycle();
    let mut more = || sys::mmap(0, sys::PAGE, kinds.next()?, PRIVATE, -1, 0).ok();
    while more().is_some() {}
    Ok(())
}

/// All that the allocator has.
fn use_heap_up(pieces: &mut Vec<Vec<u8>>) -> Outcome {
    let mut len = 1 << 16;
    while len >= 16 {
        let mut piece = Vec::new();
        if piece.try_reserve_exact(len).is_err() {
            len /= 2;
            continue;
        }
        holds(pieces.len() < pieces.capacity(), "the heap grows")?;
        pieces.push(piece);
    }
    Ok(())
}

/// Room for a copy's two mappings, but then for nothing that goes with them.
fn mappings_and_heap_used_up_are_no_crash() -> Outcome {
    let table = made(Fallback::Never, 256)?;
    let mut entries = Vec::with_capacity(100_000);
    let mut pieces = Vec::with_capacity(100_000);
    let free = sys::mmap(0, 2 * sys::PAGE, libc::PROT_NONE, PRIVATE, -1, 0).or_fail("mmap")?;
    let bound_of_system = MapCount::lowered(mappings()? + 20)?;
    sys::mprotect(free, sys::PAGE, libc::PROT_READ).or_fail("two mappings")?;
    while let Ok(entry) = bind(&table, entries.len()) {
        entries.push(entry);
    }
    use_mappings_up()?;
    use_heap_up(&mut pieces)?;
    sys::munmap(free, 2 * sys::PAGE).or_fail("munmap")?;
    let before = table.stats();
    let bound_there = bind(&table, entries.len());
    let after = table.stats();
    pieces.clear();
    drop(bound_of_system);
    match bound_there {
        Ok(entry) => equal("a call", call(&entry, 7), entries.len() + 7)?,
        Err(error) => {
            equal("the error", error.kind(), Some(Kind::NoMemory))?;
            equal("after a failed call", after, before)?;
        }
    }
    equal("a call", call(&bound(&table, 5)?, 7), 12)
}

const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
