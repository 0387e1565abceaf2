// SPDX-License-Identifier: GPL-2.0

//! Stress: publishers and executors share a region across threads and
//! processes, while other threads fork, map, move and unmap it, send signals,
//! migrate threads and take CPUs off line. Every executed function proves its
//! identity. Any wrong result or unexpected signal ends the run at once, with
//! the seed to repeat it.
//!
//! Flow: `emit` (a function with an identity) → `publisher` → `board` (which
//! functions exist, shared by all processes) → `executor`; `chaos` disturbs;
//! `round` runs it all for one region; `duel` is about
//! one boundary at a time, `revoke` about `mprotect()`; `wait` ends what stands still,
//! `verdict` all of it.

mod board;
mod chaos;
mod duel;
mod emit;
mod executor;
mod publisher;
mod random;
mod revoke;
mod round;
mod sys;
mod verdict;
mod wait;

use clap::Parser;
use std::time::{Duration, Instant};

/// Stress the publish protocol. Needs /dev/jit; run it by `make stress`.
#[derive(Parser)]
struct Arguments {
    /// How long to run, in seconds; a round that has begun is finished.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How many rounds, instead: on every machine the same.
    #[arg(long)]
    rounds: Option<u64>,
    /// Repeats the random choices of an earlier run.
    #[arg(long)]
    seed: Option<u64>,
    /// Functions a round, all publishers together.
    #[arg(long, default_value_t = 6000)]
    functions: usize,
    /// Take CPUs off line and back, too.
    #[arg(long)]
    hotplug: bool,
}

impl Arguments {
    /// Whether there is another round after so many.
    fn more(&self, rounds: u64, begin: Instant) -> bool {
        match self.rounds {
            Some(all) => rounds < all.max(1),
            None => rounds == 0 || begin.elapsed() < Duration::from_secs(self.seconds),
        }
    }
}

fn main() {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(random::seed_from_clock);
    verdict::set_seed(seed);
    println!("stress: seed {seed}");
    let begin = Instant::now();
    let mut total = round::Totals::default();
    while arguments.more(total.rounds, begin) {
        let plan = round::Plan {
            seed: seed.wrapping_add(total.rounds),
            functions: arguments.functions,
            hotplug: arguments.hotplug,
        };
        total.add(&round::run(&plan));
        println!("stress: {:4.0} s {total}", begin.elapsed().as_secs_f64());
    }
    total.check();
    println!("stress: ok seed={seed} {total}");
}
