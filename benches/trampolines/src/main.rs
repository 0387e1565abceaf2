// SPDX-License-Identifier: GPL-2.0

//! Trampolines of jitfd next to the other ways to have them: what it costs to make
//! one, to call one, and to keep a million. Runs in the guest, where `run.sh` starts
//! it; and, without what needs the kernel, on any machine (`here.sh`). The program
//! `report` makes the tables and the picture of what it leaves.
//!
//! In the order of a run: `ways` (what is measured), `crowd` (a process for each
//! way makes as many as it can), `rounds` (each way has its turn in each round),
//! `counted` (the same, for the instruction counter). `calls` has the loops that
//! are timed, `marks` and `machine` the rest that is `unsafe`, `record` what is kept.
//!
//! A trampoline that gives a wrong result ends the run.

mod calls;
mod counted;
mod crowd;
mod machine;
mod marks;
mod memory;
mod record;
mod rounds;
mod ways;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use ways::{Place, Start};

/// Measures trampolines. Needs /dev/jit and trampfd.ko; run it by `make bench`.
#[derive(Parser)]
struct Arguments {
    /// Needs neither: jitfd over dual mapping, and nothing in the kernel.
    #[arg(long, global = true)]
    here: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures all ways.
    Measure {
        /// How often each way has its turn.
        #[arg(long, default_value_t = 24)]
        rounds: usize,
        /// How many trampolines each way tries to make.
        #[arg(long, default_value_t = 1_000_000)]
        crowd: usize,
        /// How often it tries.
        #[arg(long, default_value_t = 3)]
        crowds: usize,
        /// A folder for all samples.
        #[arg(long)]
        out: PathBuf,
    },
    /// Makes as many trampolines of one way as it can, and prints what they cost.
    Crowd {
        /// The way.
        way: String,
        /// How many.
        count: usize,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trampolines: failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), String> {
    let place = match arguments.here {
        true => Place::Here,
        false => Place::Guest,
    };
    match arguments.command {
        Command::Measure {
            rounds,
            crowd: count,
            crowds,
            out,
        } => measure(rounds, &Start { count, place }, crowds, &out),
        Command::Crowd { way, count } => crowd::run(&way, &Start { count, place }),
    }
}

fn measure(rounds: usize, crowd: &Start, crowds: usize, out: &Path) -> Result<(), String> {
    let place = crowd.place;
    machine::pin(0)?;
    if place == Place::Guest {
        jitfd_peers::Kernel::load("trampfd.ko").map_err(|error| format!("trampfd.ko: {error}"))?;
    }
    let mut record = record::Record::create(out)?;
    let clock = machine::Clock::start();
    for time in 1..=crowds {
        for (name, count) in ways::crowds(place, crowd.count) {
            eprintln!("trampolines: a crowd of {name}, {time} of {crowds}");
            record.crowd(&crowd::spawn(name, &Start { count, place })?);
        }
    }
    let count = rounds::made(rounds) + counted::TIMES;
    let mut ways = ways::all(&Start { count, place })?;
    rounds::run(&mut ways, rounds, &mut record)?;
    record.rate(clock.ticks_per_nanosecond());
    match place {
        Place::Guest => counted::run(&mut ways, &mut record)?,
        Place::Here => record.machine(machine::name()?),
    }
    record.finish()?;
    println!("trampolines: ok rounds={rounds} ways={}", ways.len());
    Ok(())
}
