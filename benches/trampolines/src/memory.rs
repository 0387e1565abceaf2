// SPDX-License-Identifier: GPL-2.0

//! Memory that is in use: the process's own, its page tables, and the kernel's.

use std::fs;

/// In KiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Pages of the process that are there.
    pub resident: i64,
    /// Its page tables.
    pub tables: i64,
    /// The kernel's objects, of the whole machine.
    pub slab: i64,
}

impl Memory {
    /// What is in use now.
    pub fn now() -> Result<Self, String> {
        Ok(Memory {
            resident: field("/proc/self/smaps_rollup", "Rss:")?,
            tables: field("/proc/self/status", "VmPTE:")?,
            slab: field("/proc/meminfo", "Slab:")?,
        })
    }

    /// What is in use more than before.
    pub fn since(self, before: Self) -> Self {
        Memory {
            resident: self.resident - before.resident,
            tables: self.tables - before.tables,
            slab: self.slab - before.slab,
        }
    }
}

fn field(file: &str, name: &str) -> Result<i64, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.split_whitespace().next());
    let value = value.and_then(|value| value.parse().ok());
    value.ok_or(format!("{file} has no {name}"))
}
