// SPDX-License-Identifier: GPL-2.0

//! All samples, as a file: a line for each turn.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::error::{Result, doing};
use crate::samples::{Scenario, Series, Slice};

const HEADER: &str = "threads,method,functions_per_call,round,tlb,cal,executed,lasted_us,\
     drained_us,ns_per_call...\n";

/// Writes them.
pub fn write(path: &Path, scenarios: &[Scenario], rate: f64) -> Result<()> {
    let mut text = HEADER.to_owned();
    for scenario in scenarios {
        for series in &scenario.series {
            for (round, slice) in series.slices.iter().enumerate() {
                line(&mut text, scenario.threads, series, (round, slice), rate);
            }
        }
    }
    fs::write(path, text).map_err(doing("write the samples"))
}

fn line(text: &mut String, threads: usize, series: &Series, turn: (usize, &Slice), rate: f64) {
    let (round, slice) = turn;
    let (method, functions) = (series.method, series.functions);
    let (tlb, cal) = (slice.interrupts.shootdowns, slice.interrupts.calls);
    let lasted = slice.lasted as f64 / rate / 1e3;
    let drained = slice.drained.map(|ticks| ticks as f64 / rate / 1e3);
    let drained = drained.map(|us| format!("{us:.0}")).unwrap_or_default();
    let executed = slice.executed;
    // Writing to a string can't fail.
    let _ = write!(
        text,
        "{threads},{method},{functions},{round},{tlb},{cal},{executed},{lasted:.0},{drained}"
    );
    for &ticks in &slice.calls {
        let _ = write!(text, ",{:.0}", ticks as f64 / rate);
    }
    text.push('\n');
}
