// SPDX-License-Identifier: GPL-2.0
//! Fuzzing with a shadow model: random calls on `/dev/jit`, its handles and its
//! mappings. The model, written from the documentation, predicts each result:
//! the value or the errno, and every byte that is seen.
//!
//! Flow: `choose` (a call) → `kernel` (makes it) and `model` (predicts it, over
//! `world`, `region`, `arena`) → `run` (compares) → `look` (what is visible).

mod arena;
mod call;
mod choose;
mod kernel;
mod look;
mod model;
mod region;
mod run;
mod tally;
mod world;

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use self::run::{Plan, run};
use crate::suite::harness::{self, Test};
use crate::suite::kmod;
use crate::suite::outcome::Stop;
use crate::suite::process::in_child;

/// Seeds of the tests, and calls of each.
const SEEDS: u64 = 8;
const CALLS: u64 = 4000;
/// A kernel with checks is that much slower.
const FEWER: u64 = 5;
/// Bounds that are met often.
const BOUNDS: &str = "user_pages=40 user_regions=7";
const LIMIT: Duration = Duration::from_secs(60);

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1)?.parse().ok()
    };
    match (number("--seed"), number("--calls")) {
        (None, None) => harness::main(tests()),
        (seed, calls) => alone(Plan {
            seed: seed.unwrap_or_else(seed_from_clock),
            calls: calls.unwrap_or(10_000),
            trace: words.iter().any(|word| word == "--trace"),
        }),
    }
}

fn seed_from_clock() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(1, |time| time.as_nanos() as u64 % 1_000_000_007)
}

/// The seeds are the same in every run but for one.
fn tests() -> Vec<Test> {
    let unknown = seed_from_clock();
    let free = (1..SEEDS).chain([unknown]);
    let calls = match harness::is_stock_kernel() {
        true => CALLS,
        false => CALLS / FEWER,
    };
    let plan = move |seed| Plan {
        seed,
        calls,
        trace: false,
    };
    let free = free.map(move |seed| {
        Test::new(format!("fuzz::seed_{seed}"), move || {
            run(plan(seed), "").map(|_| ())
        })
        .within(LIMIT)
    });
    let bounded = (1..=SEEDS / 4).map(move |seed| {
        Test::new(format!("fuzz::bounded_seed_{seed}"), move || {
            kmod::with_parameters(BOUNDS, || in_child(|| run(plan(seed), BOUNDS).map(|_| ())))
        })
        .within(LIMIT)
    });
    free.chain(bounded).collect()
}

/// One long run.
fn alone(plan: Plan) -> ExitCode {
    println!("fuzz: seed {} calls {}", plan.seed, plan.calls);
    match run(plan, &kmod::parameters()) {
        Ok(tally) => {
            println!("results:{tally}");
            println!("fuzz: ok seed={} calls={}", plan.seed, plan.calls);
            ExitCode::SUCCESS
        }
        Err(Stop::Failed(why) | Stop::Skipped(why) | Stop::Inapplicable(why)) => {
            println!("fuzz: FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}
