// SPDX-License-Identifier: MIT OR Apache-2.0

//! A lazy compiler at work: one thread compiles functions on first use into one
//! region; threads on the other CPUs want them, wait for them while they execute
//! what is newest, and run each the moment it is published.
//!
//! In the order in which a function goes through them: `recipe` (what it
//! computes), `encode` (its machine code), `compiler` (publishes it), `table`
//! (makes it known), `executor` (runs it and checks its result).

mod compiler;
mod encode;
mod executor;
mod recipe;
mod table;

use crate::interrupts;
use crate::report::BoxError;
use crate::sys;
use compiler::Compiler;
use executor::{Executor, Tally};
use jitfd::{Fallback, Jit, Region, Stats};
use recipe::Book;
use std::sync::Barrier;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};
use table::Table;

/// Room for the code of one function, on average. They have about 110 bytes.
const BYTES_PER_FUNCTION: usize = 256;

/// Pages that were replaced last are given back within this time.
const RECLAIM_LIMIT: Duration = Duration::from_secs(1);

/// What came of a run.
pub struct Outcome {
    /// How many CPUs took part.
    pub cpus: usize,
    pub wrong: u64,
    pub ipis: u64,
    pub stats: Stats,
}

/// Compiles and executes `functions` functions. This thread is the compiler.
pub fn run(functions: usize) -> Result<Outcome, BoxError> {
    let cpus = thread::available_parallelism()?.get();
    let executors = cpus.saturating_sub(1).max(1);
    let region = Jit::open(Fallback::Never)?
        .region(functions.saturating_mul(BYTES_PER_FUNCTION).max(1 << 16))?;
    let book = Book::new(functions);
    let table = Table::new(functions, executors);
    let shared = Shared {
        region: &region,
        book: &book,
        table: &table,
    };
    // The executors start together and end together: what the kernel does for
    // a thread's start and end is not counted as the compiler's.
    let gate = Barrier::new(executors + 1);
    sys::run_on(0)?;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..executors)
            .map(|index| start(scope, shared, &gate, index, (index + 1) % cpus))
            .collect();
        gate.wait();
        let measured = measure(shared);
        // If that failed, nobody shall wait for functions that will not come.
        table.abandon();
        gate.wait();
        let tally = join(threads)?;
        let (stats, ipis, time) = measured?;
        describe(&tally, &stats, time, executors);
        Ok(Outcome {
            cpus,
            wrong: tally.wrong,
            ipis,
            stats,
        })
    })
}

/// What all threads work on.
#[derive(Clone, Copy)]
struct Shared<'a> {
    region: &'a Region,
    book: &'a Book,
    table: &'a Table,
}

fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    shared: Shared<'scope>,
    gate: &'scope Barrier,
    index: usize,
    cpu: usize,
) -> ScopedJoinHandle<'scope, Result<Tally, BoxError>> {
    scope.spawn(move || {
        let pinned = sys::run_on(cpu);
        gate.wait();
        let tally = Executor::new(shared, index).run();
        shared.table.finish();
        gate.wait();
        pinned.map_err(|error| format!("an executor could not be kept on CPU {cpu}: {error}"))?;
        Ok(tally?)
    })
}

/// Compiles until all executors are done. Nothing in here starts or ends a
/// thread.
fn measure(shared: Shared<'_>) -> Result<(Stats, u64, Duration), BoxError> {
    let before = interrupts::tlb_shootdowns()?;
    let start = Instant::now();
    Compiler::new(shared).run()?;
    let time = start.elapsed();
    let stats = settled(shared.region)?;
    // The kernel's shootdowns, and the module's own, which it counts itself.
    let ipis = interrupts::tlb_shootdowns()? - before + stats.ipis;
    Ok((stats, ipis, time))
}

/// The counters once all replaced pages are freed, or time is up.
fn settled(region: &Region) -> Result<Stats, BoxError> {
    let deadline = Instant::now() + RECLAIM_LIMIT;
    loop {
        let stats = region.stats()?;
        if stats.freed == stats.retired || Instant::now() > deadline {
            return Ok(stats);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn join(threads: Vec<ScopedJoinHandle<'_, Result<Tally, BoxError>>>) -> Result<Tally, BoxError> {
    threads
        .into_iter()
        .try_fold(Tally::default(), |sum, thread| {
            let tally = thread.join().map_err(|_| "an executor panicked")??;
            Ok(sum.with(&tally))
        })
}

fn describe(tally: &Tally, stats: &Stats, time: Duration, executors: usize) {
    println!(
        "lazy compiler: {} functions, {} bytes, {:.2} s; {executors} executor(s) made {} calls",
        stats.publications,
        stats.bytes,
        time.as_secs_f64(),
        tally.calls
    );
    println!(
        "  {} page-table entries swapped, {} pages written before any CPU could see them",
        stats.swaps, stats.in_place
    );
    println!(
        "  {} traps on old pages resumed; {} old pages retired, {} freed by {} flushes",
        stats.fixups, stats.retired, stats.freed, stats.flushes
    );
}
