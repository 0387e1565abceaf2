// SPDX-License-Identifier: GPL-2.0

//! What the project wants to reach, and whether it does.

use crate::data::Run;
use crate::tables::FLOOR;

struct Target {
    text: &'static str,
    key: &'static str,
    value: Option<f64>,
    met: fn(f64) -> bool,
}

/// A list of verdicts in reST, and a line for scripts.
pub fn judge(run: &Run) -> (String, String) {
    let warm = |one, other| ratio(run, one, other, "warm");
    let instructions = |one, other| {
        let sum = |way| {
            run.count(way, "call")
                .map(|(program, kernel)| program + kernel)
        };
        sum(one).zip(sum(other)).map(|(one, other)| one / other)
    };
    let own = |way| Some(run.median(way, "warm")? - run.median(FLOOR, "warm")?);
    let own_ratio = own("page fault").zip(own("jitfd table"));
    let closure = run.times("jitfd closure", "warm").map(|_| "jitfd closure");
    let targets = [
        Target {
            text: "a call of the table's stub, by that of the same stub in the program's text: at most 1.05",
            key: "table_over_text",
            value: warm("jitfd table", "stub in text"),
            met: |value| value <= 1.05,
        },
        Target {
            text: "the same, for a typed closure",
            key: "closure_over_text",
            value: closure.and_then(|name| warm(name, "closure in text")),
            met: |value| value <= 1.05,
        },
        Target {
            text: "a call by a page fault, by one of the table, target and loop included: at least 100",
            key: "fault_over_table",
            value: warm("page fault", "jitfd table"),
            met: |value| value >= 100.0,
        },
        Target {
            text: "the same, by an embedded one",
            key: "fault_over_embedded",
            value: warm("page fault", "jitfd embedded"),
            met: |value| value >= 100.0,
        },
        Target {
            text: "the same as the first, without what an indirect call costs alone",
            key: "fault_over_table_alone",
            value: own_ratio.map(|(fault, table)| fault / table),
            met: |value| value >= 100.0,
        },
        Target {
            text: "the same as the first, in instructions",
            key: "fault_over_table_instructions",
            value: instructions("page fault", "jitfd table"),
            met: |value| value >= 100.0,
        },
        Target {
            text: "making a closure of libffi, by one of the table: at least 10",
            key: "ffi_over_table",
            value: ratio(run, "libffi closure", "jitfd table", "make"),
            met: |value| value >= 10.0,
        },
        Target {
            text: "making a static trampoline of libffi alone, by one of the table: at least 10",
            key: "bare_over_table",
            value: ratio(run, "libffi static trampoline", "jitfd table", "make"),
            met: |value| value >= 10.0,
        },
        Target {
            text: "each of a crowd of closures of libffi, by each of the table's: at least 10",
            key: "ffi_crowd_over_table",
            value: crowds(run, "libffi closure", "jitfd table"),
            met: |value| value >= 10.0,
        },
        Target {
            text: "each of a crowd of static trampolines of libffi, by each of the table's: at least 10",
            key: "bare_crowd_over_table",
            value: crowds(run, "libffi static trampoline", "jitfd table"),
            met: |value| value >= 10.0,
        },
    ];
    let mut text = String::from("Ratios of these:\n\n");
    let mut summary = String::from("bench: ok trampolines");
    let mut missed = 0;
    for target in &targets {
        let Some(value) = target.value else {
            continue;
        };
        let met = (target.met)(value);
        missed += usize::from(!met);
        let verdict = if met { "met" } else { "missed" };
        text += &format!("* {}: **{value:.2}**, {verdict}\n", target.text);
        summary += &format!(" {}={value:.3}", target.key);
    }
    (text, format!("{summary} missed={missed}"))
}

fn ratio(run: &Run, one: &str, other: &str, kind: &str) -> Option<f64> {
    Some(run.median(one, kind)? / run.median(other, kind)?)
}

fn crowds(run: &Run, one: &str, other: &str) -> Option<f64> {
    Some(run.crowd(one)?.making / run.crowd(other)?.making)
}
