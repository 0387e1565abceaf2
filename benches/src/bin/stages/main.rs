// SPDX-License-Identifier: GPL-2.0

//! `stages KALLSYMS COUNTS` turns what the instruction counter wrote
//! (`benches/profile/count.c`) into tables: for each section the functions that
//! cost most, and the stages: what the module's functions spend themselves, and
//! in each kernel function they call. A unit is an instruction, or an element
//! stored by a string instruction.

mod counts;
mod symbols;

use std::collections::BTreeMap;
use std::process::ExitCode;

use counts::{Count, Counts};
use symbols::Symbols;

/// Lines of a table.
const LINES: usize = 30;

/// Sections, by their marks in `profile.rs`.
const SECTIONS: [(u32, &str); 6] = [
    (1, "clock"),
    (2, "floor"),
    (3, "mprotect"),
    (4, "dual/64"),
    (5, "jitfd"),
    (6, "jitfd/64"),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kallsyms, counts] = arguments.as_slice() else {
        eprintln!("usage: stages KALLSYMS COUNTS");
        return ExitCode::FAILURE;
    };
    match print(kallsyms, counts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stages: failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(kallsyms: &str, counts: &str) -> std::io::Result<()> {
    let symbols = Symbols::parse(&std::fs::read_to_string(kallsyms)?);
    let counts = Counts::parse(&std::fs::read_to_string(counts)?);
    for (section, name) in SECTIONS {
        let Some(calls) = counts.calls(section) else {
            continue;
        };
        let section: Vec<&Count> = counts.of(section).collect();
        let units: u64 = section.iter().map(|count| count.units()).sum();
        println!("{name}: {:.0} units for each call", units as f64 / calls);
        table("by function", &section, calls, |count| {
            symbols.name(count.block)
        });
        if section.iter().any(|count| count.module != 0) {
            table("by stage", &section, calls, |count| stage(&symbols, count));
        }
    }
    Ok(())
}

fn stage(symbols: &Symbols, count: &Count) -> String {
    let module = match count.module {
        0 => "before the module".to_owned(),
        module => symbols.name(module),
    };
    match count.callee {
        0 => format!("{module}, itself"),
        callee => format!("{module} -> {}", symbols.name(callee)),
    }
}

fn table(title: &str, counts: &[&Count], calls: f64, key: impl Fn(&Count) -> String) {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for count in counts {
        *sums.entry(key(count)).or_default() += count.units();
    }
    let mut sums: Vec<(String, u64)> = sums.into_iter().collect();
    sums.sort_by_key(|&(_, units)| std::cmp::Reverse(units));
    println!("  {title}");
    for (name, units) in sums.into_iter().take(LINES) {
        println!("  {:>10.1}  {name}", units as f64 / calls);
    }
}
