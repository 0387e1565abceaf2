// SPDX-License-Identifier: GPL-2.0

//! What the project wants to reach, whether it does, and the last line, which
//! scripts read.

use crate::methods::{DUAL_BATCH, FLIP, FLOOR, FLOOR_CODE, FLOOR_PAGE, JITFD, JITFD_BATCH};
use crate::report::{cell, per_function, ratio};
use crate::samples::{Scenario, Series};

/// A wish, and what was measured.
struct Target {
    text: String,
    key: String,
    value: Option<f64>,
    met: fn(f64) -> bool,
}

/// Prints targets and summary.
pub fn print(scenarios: &[Scenario], cpus: usize, timed: bool, rate: f64) {
    let mut targets: Vec<Target> = scenarios.iter().flat_map(counts).collect();
    if timed {
        targets.extend(scenarios.iter().flat_map(|scenario| times(scenario, rate)));
        targets.extend(scenarios.iter().flat_map(|scenario| frees(scenario, rate)));
    }
    let mut summary = format!("bench: ok cpus={cpus}");
    let mut missed = 0;
    for target in &targets {
        let Some(value) = target.value else {
            continue;
        };
        let met = (target.met)(value);
        missed += usize::from(!met);
        let verdict = if met { "met   " } else { "missed" };
        println!("{verdict} {}: {value:.2}", target.text);
        summary += &format!(" {}={}", target.key, cell(Some(value), 3));
    }
    for scenario in scenarios {
        summary += &calls(scenario);
    }
    println!("{summary} missed={missed}");
}

/// Interrupts for each publication, until all is freed: those that the kernel
/// sent to flush, and those that the module says it sent.
fn counts(scenario: &Scenario) -> Vec<Target> {
    let threads = scenario.threads;
    let mut targets = Vec::new();
    for (method, name) in [(JITFD, "one"), (JITFD_BATCH, "batch")] {
        let Some(series) = scenario.of(method) else {
            continue;
        };
        targets.push(Target {
            text: format!("{threads} threads, {method}: 0.00 IPIs per function, freeing included"),
            key: format!("ipis_{name}_{threads}"),
            value: per_function(series, flushes(series)),
            met: |value| value < 0.005,
        });
    }
    targets
}

/// For the record: all function-call interrupts of the machine meanwhile, wake-ups
/// of threads included.
fn calls(scenario: &Scenario) -> String {
    let sum = |series: &Series| per_function(series, series.interrupts().calls);
    let value = cell(scenario.of(JITFD).and_then(sum), 3);
    format!(" cal_one_{}={value}", scenario.threads)
}

fn flushes(series: &Series) -> u64 {
    let sent = series.module.map_or(0, |module| module.ipis);
    series.interrupts().shootdowns + sent
}

fn times(scenario: &Scenario, rate: f64) -> Vec<Target> {
    let threads = scenario.threads;
    let over = |method, other| ratio(scenario, scenario.of(method)?, other, rate);
    let inverse = |method, other| over(method, other).map(|value| 1.0 / value);
    let target = |text: &str, key: &str, value, met| Target {
        text: format!("{threads} threads, {text}"),
        key: format!("{key}_{threads}"),
        value,
        met,
    };
    let mut targets = vec![
        target(
            "one function within 2 times the floor",
            "one_over_floor",
            over(JITFD, FLOOR),
            |value| value <= 2.0,
        ),
        target(
            "batch of 64 within 2 times dual mapping in batches",
            "batch_over_dual",
            over(JITFD_BATCH, DUAL_BATCH),
            |value| value <= 2.0,
        ),
    ];
    if threads > 0 {
        targets.push(target(
            "one function within 2 times the floor that copies the page",
            "one_over_page",
            over(JITFD, FLOOR_PAGE),
            |value| value <= 2.0,
        ));
        targets.push(target(
            "one function within 2 times the floor that copies to an executed page",
            "one_over_code",
            over(JITFD, FLOOR_CODE),
            |value| value <= 2.0,
        ));
        targets.push(target(
            "one function 8 times faster than mprotect flips",
            "faster_than_mprotect",
            inverse(JITFD, FLIP),
            |value| value >= 8.0,
        ));
    }
    targets
}

/// The longest time from a last publication to the last free.
fn frees(scenario: &Scenario, rate: f64) -> Vec<Target> {
    if scenario.threads == 0 {
        return Vec::new();
    }
    let longest = [JITFD, JITFD_BATCH]
        .iter()
        .filter_map(|method| scenario.of(method))
        .filter_map(|series| series.drains(rate).last().copied())
        .max_by(f64::total_cmp);
    vec![Target {
        text: format!("{} threads, freed within 100 ms", scenario.threads),
        key: format!("freed_ms_{}", scenario.threads),
        value: longest,
        met: |value| value <= 100.0,
    }]
}
