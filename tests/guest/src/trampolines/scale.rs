// SPDX-License-Identifier: GPL-2.0
//! Very many trampolines, and the end of what there is.

use super::adder::{bind, bound, call, made};
use crate::suite::harness::{Test, tests};
use crate::suite::outcome::{Checked, OrFail, Outcome, equal, holds};
use jitfd::Kind;
use jitfd::trampoline::{Carrier, TableOptions};
use std::fs;
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    let mut tests = tests![mappings_used_up_change_nothing];
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

fn mappings() -> Checked<usize> {
    let maps = fs::read_to_string("/proc/self/maps").or_fail("maps")?;
    Ok(maps.lines().count())
}

fn a_million_trampolines() -> Outcome {
    const MILLION: usize = 1_000_000;
    let table = made(TableOptions::new(Carrier::Rsi))?;
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
        equal("a call", call(entry.or_fail("an entry")?, 7)?, context + 7)?;
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
    let table = made(TableOptions::new(Carrier::Rsi).copy_capacity(256))?;
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
        equal("a call", call(entry, 7)?, context + 7)?;
    }
    drop(bound_of_system);
    let further = bound(&table, 5)?;
    equal("a call", call(&further, 7)?, 12)
}
