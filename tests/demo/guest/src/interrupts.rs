// SPDX-License-Identifier: MIT OR Apache-2.0

//! TLB shootdowns, as the kernel counts them.

use crate::report::BoxError;
use std::fs;

/// How many interrupts all CPUs have got that asked them to flush translations.
pub fn tlb_shootdowns() -> Result<u64, BoxError> {
    let table = fs::read_to_string("/proc/interrupts")?;
    row(&table, "TLB:").ok_or_else(|| "/proc/interrupts has no row TLB".into())
}

/// The sum of a row's counts: one for each CPU, then the row's description.
fn row(table: &str, name: &str) -> Option<u64> {
    let line = table
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(name))?;
    Some(
        line.split_whitespace()
            .map_while(|word| word.parse::<u64>().ok())
            .sum(),
    )
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
        assert_eq!(row(TABLE, "TLB:"), Some(42));
        assert_eq!(row(TABLE, "RES:"), None);
    }
}
