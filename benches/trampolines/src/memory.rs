// SPDX-License-Identifier: GPL-2.0

//! Memory that is in use: the process's own, its page tables, and all that the machine
//! has given away.

use std::fs;

const KIB: i64 = 1024;
const PAGE: i64 = 4096;

/// In KiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Pages of the process that are nobody else's: none of a file, which is in memory
    /// however often it is mapped, and none that a module maps.
    pub process: i64,
    /// Its page tables.
    pub tables: i64,
    /// What the whole machine has free.
    pub free: i64,
}

impl Memory {
    /// What is in use now.
    pub fn now() -> Result<Self, String> {
        // Counters that CPUs keep for themselves are added up. Only root can ask for
        // it; without, a few hundred pages are missed.
        _ = fs::write("/proc/sys/vm/stat_refresh", "1");
        Ok(Memory {
            process: field("/proc/self/smaps_rollup", "Pss_Anon:")?,
            tables: field("/proc/self/status", "VmPTE:")?,
            free: free(&read("/proc/zoneinfo")?) * PAGE / KIB,
        })
    }

    /// What is in use more than before: the process's, its page tables, and the rest,
    /// which is the kernel's: objects and the pages of modules.
    pub fn since(self, before: Self) -> [i64; 3] {
        let process = self.process - before.process;
        let tables = self.tables - before.tables;
        [process, tables, before.free - self.free - process - tables]
    }
}

/// Free pages of all zones, and those that CPUs keep to give away next, which MemFree
/// leaves out.
fn free(zones: &str) -> i64 {
    let pages = |line: &str| {
        let line = line.trim_start();
        let number = ["pages free", "count:"]
            .iter()
            .find_map(|name| line.strip_prefix(name));
        number.and_then(|number| number.trim().parse::<i64>().ok())
    };
    zones.lines().filter_map(pages).sum()
}

fn read(file: &str) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))
}

fn field(file: &str, name: &str) -> Result<i64, String> {
    let text = read(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.split_whitespace().next());
    let value = value.and_then(|value| value.parse().ok());
    value.ok_or(format!("{file} has no {name}"))
}
