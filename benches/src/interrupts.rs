// SPDX-License-Identifier: GPL-2.0

//! Interrupts between CPUs, as the kernel counts them.

use std::fs;
use std::ops::{AddAssign, Sub};

use crate::error::{Error, Result, doing};

/// Interrupts of all CPUs since boot, or between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interrupts {
    /// Row TLB: requests by the kernel to flush translations. Each is a function
    /// call too, so row CAL counts it as well.
    pub shootdowns: u64,
    /// Row CAL: requests to call a function. The module's flushes are these, and
    /// so are some wake-ups of threads on another CPU.
    pub calls: u64,
}

impl Interrupts {
    /// Until now.
    pub fn now() -> Result<Self> {
        let path = "/proc/interrupts";
        let table = fs::read_to_string(path).map_err(doing(path))?;
        Ok(Interrupts {
            shootdowns: row(&table, "TLB:")?,
            calls: row(&table, "CAL:")?,
        })
    }
}

impl Sub for Interrupts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Interrupts {
            shootdowns: self.shootdowns - before.shootdowns,
            calls: self.calls - before.calls,
        }
    }
}

impl AddAssign for Interrupts {
    fn add_assign(&mut self, more: Self) {
        self.shootdowns += more.shootdowns;
        self.calls += more.calls;
    }
}

/// The sum of a row: one count for each CPU, then the row's description.
fn row(table: &str, name: &str) -> Result<u64> {
    let line = table
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(name))
        .ok_or_else(|| Error(format!("/proc/interrupts has no row {name}")))?;
    let counts = line.split_whitespace();
    Ok(counts.map_while(|word| word.parse::<u64>().ok()).sum())
}

#[cfg(test)]
mod tests {
    use super::row;

    const TABLE: &str = "\
           CPU0       CPU1
 CAL:          7          8   Function call interrupts
 TLB:         40          2   TLB shootdowns
";

    #[test]
    fn a_row_is_summed_over_its_cpus() {
        assert_eq!(row(TABLE, "TLB:").ok(), Some(42));
        assert!(row(TABLE, "RES:").is_err());
    }
}
