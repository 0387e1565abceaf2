// SPDX-License-Identifier: GPL-2.0

//! The table, a line for each method and scenario. A dash is what was not
//! measured, or means nothing there.

use crate::methods::{ALONE, CLOCK, DUAL, DUAL_BATCH, FLIP, FLOOR};
use crate::samples::{Scenario, Series, percentile};

/// Prints it. Without `timed` only counts are shown.
pub fn print(scenarios: &[Scenario], cpus: usize, timed: bool, rate: f64) {
    println!("bench: {cpus} virtual CPUs; microseconds and interrupts for each function");
    if !timed {
        println!("bench: more virtual CPUs than the host has: only counts, no times");
    }
    println!(
        "{:>7} {:<10} {:>9} {:>9} {:>7} {:>9} {:>7} {:>8} {:>8} {:>6} {:>7} {:>7} {:>7} {:>6} {:>5} {:>5} {:>9} {:>7}",
        "threads",
        "method",
        "median",
        "p99",
        "/floor",
        "/mprotect",
        "/dual",
        "TLB",
        "CAL",
        "calls%",
        "count",
        "swaps",
        "inplace",
        "fixups",
        "flush",
        "ipis",
        "freed ms",
        "max ms"
    );
    for scenario in scenarios {
        for series in &scenario.series {
            println!("{}", line(scenario, series, timed, rate));
        }
    }
}

fn line(scenario: &Scenario, series: &Series, timed: bool, rate: f64) -> String {
    let sorted = series.sorted(rate);
    let shown = timed && series.method != ALONE;
    let microseconds = |percent| {
        let value = percentile(&sorted, percent).filter(|_| shown);
        cell(value.map(|nanoseconds| nanoseconds / 1000.0), 2)
    };
    let over = |method| cell(ratio(scenario, series, method, rate).filter(|_| shown), 2);
    let dual = if series.functions > 1 {
        DUAL_BATCH
    } else {
        DUAL
    };
    let drains = series.drains(rate);
    let drained = |percent| cell(percentile(&drains, percent).filter(|_| timed), 1);
    format!(
        "{:>7} {:<10} {:>9} {:>9} {:>7} {:>9} {:>7} {} {:>6} {:>7} {} {:>9} {:>7}",
        scenario.threads,
        series.method,
        microseconds(50),
        microseconds(99),
        over(FLOOR),
        over(FLIP),
        over(dual),
        interrupts(series),
        cell(lost(scenario, series, rate).filter(|_| timed), 0),
        series.publications(),
        module(series),
        drained(50),
        drained(100),
    )
}

/// The medians of two methods, divided.
pub fn ratio(scenario: &Scenario, series: &Series, other: &str, rate: f64) -> Option<f64> {
    let publishes = series.functions > 0 || other == FLOOR;
    let other = scenario.of(other)?.median(rate)?;
    let own = series.median(rate)?;
    (publishes && series.method != CLOCK && other > 0.0).then_some(own / other)
}

/// Interrupts for each function published.
pub fn per_function(series: &Series, count: u64) -> Option<f64> {
    let functions = series.publications() * series.functions as u64;
    (functions > 0).then(|| count as f64 / functions as f64)
}

fn interrupts(series: &Series) -> String {
    let sum = series.interrupts();
    let each = |count| cell(per_function(series, count), 3);
    format!("{:>8} {:>8}", each(sum.shootdowns), each(sum.calls))
}

/// The calls per second of the executing threads, in percent of those when they
/// were alone.
fn lost(scenario: &Scenario, series: &Series, rate: f64) -> Option<f64> {
    let alone = scenario.of(ALONE)?.call_rate(rate);
    (alone > 0.0).then(|| series.call_rate(rate) * 100.0 / alone)
}

fn module(series: &Series) -> String {
    match series.module {
        Some(module) => format!(
            "{:>7} {:>7} {:>6} {:>5} {:>5}",
            module.swaps, module.in_place, module.fixups, module.flushes, module.ipis
        ),
        None => format!("{:>7} {:>7} {:>6} {:>5} {:>5}", "-", "-", "-", "-", "-"),
    }
}

/// A number with `digits` decimals, or a dash.
pub fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}
