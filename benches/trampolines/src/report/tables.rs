// SPDX-License-Identifier: GPL-2.0

//! The tables, in reST.

use crate::data::Run;

/// The way that the others are divided by, and the two floors.
pub const FLOOR: &str = "indirect call";

/// All tables of a run in the guest.
pub fn all(run: &Run) -> String {
    let memory = table(
        &[
            "way",
            "process",
            "page tables",
            "kernel",
            "sum",
            "a million",
        ],
        makes(run).map(|way| memory(run, way)).collect(),
    );
    let extra = [
        "nothing",
        "keeping one",
        "getppid",
        "no call",
        "unused call",
        "vsyscall fault",
    ];
    let extra = extra.map(|name| {
        let (program, kernel) = run.count(name, "call").unzip();
        vec![name.to_owned(), number(program), number(kernel)]
    });
    format!(
        "A call, the target and its loop included, in nanoseconds; instructions:\n\n{}\n\
         Making one, in nanoseconds (set up: in microseconds); instructions; and the\n\
         crowd{}:\n\n{}\n\
         Memory for each of the crowd, in bytes; for a million, in MiB:\n\n{memory}\n\
         Instructions of other things, for scale:\n\n{}\n",
        calls(run),
        tries(run),
        makings(run),
        table(&["what", "program", "kernel"], extra.to_vec())
    )
}

/// The tables of a run on a machine as it is.
pub fn here(run: &Run) -> String {
    format!(
        "{}. A call, as above:\n\n{}\nMaking one; the crowd{}:\n\n{}\n",
        run.machine,
        calls(run),
        tries(run),
        makings(run)
    )
}

/// The ways that make something.
fn makes(run: &Run) -> impl Iterator<Item = &String> {
    run.ways.iter().filter(|way| run.crowd(way).is_some())
}

fn tries(run: &Run) -> String {
    match run.tries {
        1 => String::new(),
        tries => format!(", the median of {tries}"),
    }
}

/// The columns of instructions, if any were counted.
fn counted(run: &Run) -> &'static [&'static str] {
    match run.machine.is_empty() {
        true => &["program", "kernel"],
        false => &[],
    }
}

fn calls(run: &Run) -> String {
    let times = [
        "way", "warm", "p99", "cold", "p99", "in turn", "p99", "ratio",
    ];
    let head = [times.as_slice(), counted(run)].concat();
    table(&head, run.ways.iter().map(|way| call(run, way)).collect())
}

fn makings(run: &Run) -> String {
    let times = ["way", "set up", "one", "p99", "remove"];
    let head = [times.as_slice(), counted(run), &["made", "each"]].concat();
    table(&head, makes(run).map(|way| making(run, way)).collect())
}

fn call(run: &Run, way: &str) -> Vec<String> {
    let mut cells = vec![way.to_owned()];
    for kind in ["warm", "cold", "turn"] {
        let times = run.times(way, kind);
        cells.push(number(times.and_then(|times| times.median())));
        cells.push(number(times.and_then(|times| times.p99())));
    }
    let floor = run.median(FLOOR, "warm");
    let ratio = run.median(way, "warm").zip(floor);
    cells.push(number(ratio.map(|(own, floor)| own / floor)));
    cells.extend(instructions(run, way, "call"));
    cells
}

fn making(run: &Run, way: &str) -> Vec<String> {
    let crowd = run.crowd(way);
    let times = run.times(way, "make");
    let mut cells = vec![
        way.to_owned(),
        number(crowd.map(|crowd| crowd.setting_up / 1e3)),
        number(times.and_then(|times| times.median())),
        number(times.and_then(|times| times.p99())),
        number(run.median(way, "remove")),
    ];
    cells.extend(instructions(run, way, "make"));
    cells.push(
        crowd.map_or("-".to_owned(), |crowd| match crowd.stopped_by.as_str() {
            "" => number(Some(crowd.made)),
            _ => format!("{} (limit)", number(Some(crowd.made))),
        }),
    );
    cells.push(number(crowd.map(|crowd| crowd.making)));
    cells
}

fn memory(run: &Run, way: &str) -> Vec<String> {
    let Some(crowd) = run.crowd(way) else {
        return Vec::new();
    };
    let sum: f64 = crowd.memory.iter().sum();
    let mut cells = vec![way.to_owned()];
    cells.extend(crowd.memory.iter().map(|&bytes| number(Some(bytes))));
    cells.push(number(Some(sum)));
    cells.push(number(Some(sum * 1e6 / 1024.0 / 1024.0)));
    cells
}

fn instructions(run: &Run, way: &str, kind: &str) -> Vec<String> {
    if counted(run).is_empty() {
        return Vec::new();
    }
    let (program, kernel) = run.count(way, kind).unzip();
    vec![number(program), number(kernel)]
}

/// Three digits that say something, at least.
pub fn number(value: Option<f64>) -> String {
    let Some(value) = value else {
        return "-".to_owned();
    };
    let value = if value.abs() < 0.05 { 0.0 } else { value };
    match value.abs() {
        0.0 => "0".to_owned(),
        small if small < 100.0 && small.fract() != 0.0 => format!("{value:.1}"),
        _ => grouped(value.round()),
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 {
        format!("-{text}")
    } else {
        text
    }
}

/// A simple table: names to the left, numbers to the right.
fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let width = |column: usize| {
        let cells = rows.iter().chain([&head]).filter_map(|row| row.get(column));
        cells.map(|cell| cell.len()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let rule: Vec<String> = widths.iter().map(|&width| "=".repeat(width)).collect();
    let rule = rule.join(" ");
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, &width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join(" ").trim_end().to_owned()
    };
    let body: Vec<String> = rows.iter().map(line).collect();
    format!(
        "{rule}\n{}\n{rule}\n{}\n{rule}\n",
        line(&head),
        body.join("\n")
    )
}
