// SPDX-License-Identifier: GPL-2.0
//! Chooses, predicts, calls and compares, call after call. A failure tells the
//! seed, the number of the call and the last calls.

use std::collections::VecDeque;
use std::io;

use jitfd_plan::abi::Stats;

use super::arena::Cell;
use super::call::{ARENA, Call, Look, Place};
use super::choose::{choose, choose_in_child};
use super::kernel::Kernel;
use super::look::look;
use super::model::{Predicted, Value};
use super::tally::Tally;
use super::world::{Limits, World};
use crate::suite::calls;
use crate::suite::outcome::{Checked, OrFail, Outcome, Stop, equal, failed, holds};
use crate::suite::process::in_child;
use crate::suite::random::Random;
use crate::suite::region::steady;

/// Calls after which it is said that there were so many.
const TELL: u64 = 5000;
/// Calls that a failure tells.
const TOLD: usize = 16;
/// Calls of a child.
const IN_CHILD: usize = 12;
/// Whether a call changes counters is looked at once in so many.
const STATS_EACH: usize = 6;

/// What a run does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub calls: u64,
    /// Print each call before it is made.
    pub trace: bool,
}

/// A run: the model, the kernel, and what was called last.
struct Run {
    world: World,
    kernel: Kernel,
    random: Random,
    last: VecDeque<String>,
    tally: Tally,
    trace: bool,
}

/// Makes all calls of the plan on a module loaded with `parameters`.
pub fn run(plan: Plan, parameters: &str) -> Checked<Tally> {
    let mut run = Run {
        world: World::new(Limits::parse(parameters)),
        kernel: Kernel::new()?,
        random: Random::new(plan.seed),
        last: VecDeque::new(),
        tally: Tally::default(),
        trace: plan.trace,
    };
    for number in 0..plan.calls {
        if number % TELL == TELL - 1 {
            // Whoever hears nothing for long takes the guest for stalled.
            println!("fuzz: {} calls", number + 1);
        }
        let step = run.step();
        step.or_else(|stop| run.tell(plan, number, stop))?;
    }
    let end = run.look_at_all();
    end.or_else(|stop| run.tell(plan, plan.calls, stop))?;
    Ok(run.tally)
}

impl Run {
    fn tell(&self, plan: Plan, number: u64, stop: Stop) -> Outcome {
        let Stop::Failed(why) = stop else {
            return Err(stop);
        };
        let calls: Vec<&str> = self.last.iter().map(String::as_str).collect();
        failed(format!(
            "seed {} call {number}: {why}\n  the last calls:\n  {}\n  repeat with --seed {} --calls {}",
            plan.seed,
            calls.join("\n  "),
            plan.seed,
            number + 1,
        ))
    }

    fn step(&mut self) -> Outcome {
        let call = choose(&self.world, &mut self.random);
        let text = format!("{call:?}");
        if self.trace {
            eprintln!("{text}");
        }
        if self.last.len() == TOLD {
            self.last.pop_front();
        }
        self.last.push_back(text);
        match call {
            Call::Look(what) => {
                self.tally.count(&call, None);
                look(&self.world, &self.kernel, what)
            }
            Call::Fork { seed } => {
                self.tally.count(&call, None);
                self.fork(seed)
            }
            _ => self.make(&call),
        }
    }

    /// One call, and that a refused one leaves the counters as they were.
    fn make(&mut self, call: &Call) -> Outcome {
        let watched = self.watched(call);
        let before = self.counters(watched)?;
        let actual = make_and_compare(&mut self.world, &mut self.kernel, call)?;
        self.tally.count(
            call,
            actual.as_ref().err().and_then(io::Error::raw_os_error),
        );
        if actual.is_err() {
            let same = equal("the counters", self.counters(watched)?, before);
            same.or_else(|stop| add_call(call, stop))?;
        }
        Ok(())
    }

    /// The slot whose counters are compared.
    fn watched(&mut self, call: &Call) -> Option<usize> {
        match *call {
            Call::Publish { slot, .. } | Call::Reserve { slot, .. } | Call::Seal { slot } => {
                let watch = self.random.one_in(STATS_EACH) && self.world.shown(slot).is_ok();
                watch.then_some(slot)
            }
            _ => None,
        }
    }

    fn counters(&self, slot: Option<usize>) -> Checked<Option<Stats>> {
        let stats = slot.map(|slot| calls::stats(self.kernel.fd(slot)));
        Ok(stats.transpose().or_fail("JIT_STATS")?.map(steady))
    }

    /// A child makes calls. The parent's model goes through the same.
    fn fork(&mut self, seed: u64) -> Outcome {
        let random = Random::new(seed);
        let Run { world, kernel, .. } = self;
        in_child(|| {
            kernel.in_child()?;
            enter_child(world);
            child_calls(world, random.clone(), |world, call| match *call {
                Call::Look(what) => look(world, kernel, what),
                _ => make_and_compare(world, kernel, call).map(|_| ()),
            })
        })?;
        let cells = self.world.arena.cells;
        enter_child(&mut self.world);
        let dry = child_calls(&mut self.world, random, |world, call| {
            // What it returns was compared in the child.
            let _ = world.step(call, None);
            Ok(())
        });
        self.world.owner = true;
        self.world.arena.cells = cells;
        dry
    }

    /// The end: every page, in every way.
    fn look_at_all(&mut self) -> Outcome {
        let all = (0..ARENA).flat_map(|page| [Look::Load { page }, Look::Debugger { page }]);
        for what in all.chain([Look::Mappings]) {
            look(&self.world, &self.kernel, what)?;
        }
        Ok(())
    }
}

/// The model of a child: it may not publish, and lacks some mappings.
fn enter_child(world: &mut World) {
    world.owner = false;
    for cell in &mut world.arena.cells {
        if matches!(cell, Cell::Code(mapped) if !mapped.in_child) {
            *cell = Cell::Hole;
        }
    }
}

fn child_calls(
    world: &mut World,
    mut random: Random,
    mut make: impl FnMut(&mut World, &Call) -> Outcome,
) -> Outcome {
    for _ in 0..IN_CHILD {
        let call = choose_in_child(world, &mut random);
        // Whether a bound is met is not known beforehand.
        if world.is_bounded() && matches!(call, Call::Publish { .. }) {
            continue;
        }
        make(world, &call)?;
    }
    Ok(())
}

/// Makes the call and fails unless it does what the model says.
fn make_and_compare(
    world: &mut World,
    kernel: &mut Kernel,
    call: &Call,
) -> Checked<io::Result<i64>> {
    let actual = kernel.make(call);
    let errno = actual.as_ref().err().and_then(io::Error::raw_os_error);
    let predicted = world.step(call, errno);
    compare(call, &actual, predicted)?;
    if let Call::Stats { slot, .. } = *call {
        compare_stats(world, kernel, slot, &actual)?;
    }
    if let (Call::Map(map), Err(_)) = (call, &actual) {
        if map.place == Place::Fixed {
            find_holes(world, kernel, map.page, map.pages)?;
        }
    }
    Ok(actual)
}

fn compare(call: &Call, actual: &io::Result<i64>, predicted: Predicted) -> Outcome {
    let right = match (actual, predicted) {
        (Ok(value), Ok(Value::Exactly(wanted))) => *value == wanted,
        (Ok(_), Ok(Value::Any)) => true,
        (Err(error), Err(errno)) => error.raw_os_error() == Some(errno),
        _ => false,
    };
    holds(
        right,
        format!(
            "{call:?} returned {actual:?}, predicted {}",
            text(predicted)
        ),
    )
}

fn text(predicted: Predicted) -> String {
    match predicted {
        Ok(value) => format!("{value:?}"),
        Err(errno) => io::Error::from_raw_os_error(errno).to_string(),
    }
}

fn add_call(call: &Call, stop: Stop) -> Outcome {
    match stop {
        Stop::Failed(why) => failed(format!("{call:?}: {why}")),
        other => Err(other),
    }
}

/// The counters that calls decide, and how the others hang together.
fn compare_stats(world: &World, kernel: &Kernel, slot: usize, actual: &io::Result<i64>) -> Outcome {
    let (Ok(_), Ok(region)) = (actual, world.shown(slot)) else {
        return Ok(());
    };
    let stats = kernel.stats;
    let decided = Stats {
        swaps: 0,
        in_place: 0,
        retired: 0,
        straddles: 0,
        ..steady(stats)
    };
    equal("JIT_STATS", decided, world.regions[region].stats())?;
    let sane = stats.freed <= stats.retired && stats.straddles <= stats.flushes;
    holds(sane, format!("counters that fit together: {stats:?}"))
}

/// A mapping that was refused may leave a hole where it should have come: the
/// kernel unmaps before it asks the module. Nothing else may appear.
fn find_holes(world: &mut World, kernel: &Kernel, page: usize, pages: usize) -> Outcome {
    for page in page..page + pages {
        let mapped = kernel.is_mapped(page);
        let was = world.arena.cells[page];
        holds(
            !mapped || was != Cell::Hole,
            format!("nothing appears on page {page}"),
        )?;
        if !mapped {
            world.arena.cells[page] = Cell::Hole;
        }
    }
    Ok(())
}
