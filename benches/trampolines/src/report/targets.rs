// SPDX-License-Identifier: GPL-2.0

//! What the project wants to reach, and whether it does.

use crate::data::Run;
use crate::tables::FLOOR;

struct Target {
    text: String,
    key: &'static str,
    value: Option<f64>,
    bound: Bound,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn met(&self, value: f64) -> bool {
        match *self {
            Bound::AtLeast(least) => value >= least,
            Bound::AtMost(most) => value <= most,
        }
    }
}

/// A list of verdicts in reST, and a line for scripts.
pub fn judge(run: &Run) -> (String, String) {
    let mut targets = calls(run);
    targets.extend(makings(run));
    let mut text = String::from("Ratios of these:\n\n");
    let mut summary = String::from("bench: ok trampolines");
    let mut missed = 0;
    for target in &targets {
        let Some(value) = target.value else {
            continue;
        };
        let met = target.bound.met(value);
        missed += usize::from(!met);
        let verdict = if met { "met" } else { "missed" };
        text += &format!("* {}: **{value:.2}**, {verdict}\n", target.text);
        summary += &format!(" {}={value:.3}", target.key);
    }
    (text, format!("{summary} missed={missed}"))
}

/// Of calls.
fn calls(run: &Run) -> Vec<Target> {
    let warm = |one, other| ratio(run, one, other, "warm");
    let most = |text: &str, key, value| Target {
        text: text.to_owned(),
        key,
        value,
        bound: Bound::AtMost(1.05),
    };
    let least = |text: &str, key, value| Target {
        text: text.to_owned(),
        key,
        value,
        bound: Bound::AtLeast(100.0),
    };
    let own = |way| Some(run.median(way, "warm")? - run.median(FLOOR, "warm")?);
    let own_ratio = own("page fault").zip(own("jitfd table"));
    vec![
        most(
            "a call of the table's stub, by that of the same stub in the program's text: at most 1.05",
            "table_over_text",
            warm("jitfd table", "stub in text"),
        ),
        most(
            "the same, for a typed closure",
            "closure_over_text",
            warm("jitfd closure", "closure in text"),
        ),
        least(
            "a call by a page fault, by one of the table, target and loop included: at least 100",
            "fault_over_table",
            warm("page fault", "jitfd table"),
        ),
        least(
            "the same, by one of a typed closure",
            "fault_over_closure",
            warm("page fault", "jitfd closure"),
        ),
        least(
            "the same, by an embedded one",
            "fault_over_embedded",
            warm("page fault", "jitfd embedded"),
        ),
        least(
            "a call by a page fault, by one of the table, without what an indirect call costs alone",
            "fault_over_table_alone",
            own_ratio.map(|(fault, table)| fault / table),
        ),
        least(
            "the same, in instructions, target included",
            "fault_over_table_instructions",
            instructions(run, "page fault", "jitfd table", "call"),
        ),
        least(
            "the same, by one of a typed closure",
            "fault_over_closure_instructions",
            instructions(run, "page fault", "jitfd closure", "call"),
        ),
        least(
            "a fault that is served before a mapping is looked for, by a call of the table, in instructions",
            "least_fault_over_table_instructions",
            instructions(run, "vsyscall fault", "jitfd table", "call"),
        ),
    ]
}

/// Of making one, like by like: a trampoline alone, which both leave to their caller
/// what to do with, and a closure, which is ready to be called.
fn makings(run: &Run) -> Vec<Target> {
    let pairs = [
        (
            "a static trampoline of libffi, by an entry of the table",
            "libffi static trampoline",
            "jitfd table",
            [
                "bare_over_table",
                "bare_over_table_instructions",
                "bare_crowd_over_table",
            ],
        ),
        (
            "a closure of libffi, by a typed closure",
            "libffi closure",
            "jitfd closure",
            [
                "ffi_over_closure",
                "ffi_over_closure_instructions",
                "ffi_crowd_over_closure",
            ],
        ),
    ];
    let mut targets = Vec::new();
    for (what, one, other, [time, count, crowd]) in pairs {
        let values = [
            ("", time, ratio(run, one, other, "make")),
            (
                ", in instructions",
                count,
                instructions(run, one, other, "make"),
            ),
            (", each of a crowd", crowd, crowds(run, one, other)),
        ];
        targets.extend(values.map(|(how, key, value)| Target {
            text: format!("making {what}{how}: at least 10"),
            key,
            value,
            bound: Bound::AtLeast(10.0),
        }));
    }
    targets
}

fn ratio(run: &Run, one: &str, other: &str, kind: &str) -> Option<f64> {
    Some(run.median(one, kind)? / run.median(other, kind)?)
}

fn crowds(run: &Run, one: &str, other: &str) -> Option<f64> {
    Some(run.crowd(one)?.making / run.crowd(other)?.making)
}

fn instructions(run: &Run, one: &str, other: &str, kind: &str) -> Option<f64> {
    let all = |way| {
        let (program, kernel) = run.count(way, kind)?;
        Some(program + kernel)
    };
    Some(all(one)? / all(other)?)
}
