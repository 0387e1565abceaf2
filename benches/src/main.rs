// SPDX-License-Identifier: GPL-2.0

//! What it costs to publish a 64-byte function, by jitfd and by the ways that
//! need no module, while other threads of the process execute. Runs in the
//! guest; `benches/run.sh` starts it.
//!
//! In the order of a run: `function` (the bytes), `methods` (ways to publish
//! them), `executors` (threads that call them), `round` (measures each method in
//! turn, again and again, so that drift hits all alike), `samples` (numbers),
//! `module` (what it counts), `report` and `targets` (what is printed), `raw` (what is kept). `profile` is
//! another program in the same file: work for the instruction counter.
//!
//! No number is printed that was not measured, and a scenario in which the
//! module did not do what the scenario is about ends the run.

mod clock;
mod error;
mod executors;
mod function;
mod interrupts;
mod methods;
mod module;
mod profile;
mod raw;
mod report;
mod round;
mod samples;
mod sys;
mod targets;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Result;
use crate::samples::Scenario;

/// Measures publishing. Needs /dev/jit; run it by `make bench`.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures all methods and prints a table.
    Measure {
        /// How often each method has its turn.
        #[arg(long, default_value_t = 24)]
        rounds: usize,
        /// Scenarios: how many threads execute.
        #[arg(long, value_delimiter = ',', default_value = "0,1,3")]
        threads: Vec<usize>,
        /// CPUs of the host. With more virtual ones time is distorted, and
        /// only counts are reported.
        #[arg(long)]
        host_cpus: usize,
        /// A file for all samples.
        #[arg(long)]
        raw: Option<std::path::PathBuf>,
    },
    /// Publishes between marks that the instruction counter looks for.
    Profile {
        /// How many functions in each section.
        #[arg(long, default_value_t = 256)]
        functions: usize,
        /// How many threads execute: 0 shows writing in place, 1 swaps.
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// A file for the kernel's symbols.
        #[arg(long)]
        symbols: std::path::PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Measure {
            rounds,
            threads,
            host_cpus,
            raw,
        } => measure(rounds, &threads, host_cpus, raw.as_deref()),
        Command::Profile {
            functions,
            threads,
            symbols,
        } => profile::run(functions, threads, &symbols),
    }
}

fn measure(
    rounds: usize,
    threads: &[usize],
    host_cpus: usize,
    raw: Option<&std::path::Path>,
) -> Result<()> {
    let cpus = sys::cpus();
    let clock = clock::Clock::start();
    let scenarios: Vec<Scenario> = threads
        .iter()
        .map(|&threads| round::scenario(threads, rounds))
        .collect::<Result<_>>()?;
    let rate = clock.ticks_per_nanosecond();
    if let Some(path) = raw {
        raw::write(path, &scenarios, rate)?;
    }
    let timed = cpus <= host_cpus;
    report::print(&scenarios, cpus, timed, rate);
    for scenario in &scenarios {
        scenario.check()?;
    }
    targets::print(&scenarios, cpus, timed, rate);
    Ok(())
}
