// SPDX-License-Identifier: GPL-2.0

//! What one costs: each way has its turn in every round, each round starting with
//! another one, so that what drifts hits all alike.

use jitfd_peers::target;

use crate::calls::{self, Callee};
use crate::machine::{Evictor, ticks};
use crate::record::Record;
use crate::ways::Way;

/// Trampolines that are called in turn.
pub const MANY: usize = 10_000;
/// From the one that a round calls again and again to the next round's: where its
/// pages lie decides about the emulator's time, and one address is luck.
const STRIDE: usize = 397;
/// Of these, in one sample.
const IN_TURN: usize = 100;
/// Trampolines that are made in one sample, and samples in a turn.
const MADE: usize = 256;
const MAKINGS: usize = 4;
/// Samples of warm and of cold calls in a turn.
const WARM: usize = 40;
const COLD: usize = 8;

/// How many trampolines the rounds make in all.
pub fn made(rounds: usize) -> usize {
    MANY + rounds * MAKINGS * MADE
}

/// Runs the rounds.
pub fn run(ways: &mut [Box<dyn Way>], rounds: usize, record: &mut Record) -> Result<(), String> {
    let contexts: &'static [u64] = Vec::leak((0..(MANY + MADE) as u64).map(|n| n * 3).collect());
    let (many, more) = contexts.split_at(MANY);
    for way in ways.iter_mut() {
        way.make(many)?;
    }
    let evictor = Evictor::new();
    for round in 0..rounds {
        eprintln!("trampolines: round {} of {rounds}", round + 1);
        for turn in 0..ways.len() {
            let index = (turn + round) % ways.len();
            let mut turn = Turn {
                way: ways[index].as_mut(),
                round,
                record,
            };
            turn.take(many, more, &evictor)?;
        }
    }
    Ok(())
}

struct Turn<'a> {
    way: &'a mut dyn Way,
    round: usize,
    record: &'a mut Record,
}

impl Turn<'_> {
    fn take(
        &mut self,
        many: &'static [u64],
        more: &'static [u64],
        evictor: &Evictor,
    ) -> Result<(), String> {
        let callees = self.way.callees();
        let index = self.round * STRIDE % callees.len();
        let (one, context) = (callees[index], &many[index]);
        self.warm(one, context)?;
        self.cold(one, context, evictor)?;
        self.in_turn(&callees, many)?;
        if self.way.makes() {
            self.make(callees.len(), more)?;
        }
        Ok(())
    }

    fn sample(&mut self, kind: &str, calls: usize, ticks: u64) -> Result<(), String> {
        let name = self.way.name();
        self.record.sample(name, kind, self.round, calls, ticks)
    }

    /// The same one, again and again.
    fn warm(&mut self, one: Callee, context: &u64) -> Result<(), String> {
        let count = self.way.calls();
        let all = vec![one; count];
        for sample in 0..=WARM {
            let ticks = timed(&all, context, (1 + context) * count as u64)?;
            // The first one warms up.
            if sample > 0 {
                self.sample("warm", count, ticks)?;
            }
        }
        Ok(())
    }

    fn cold(&mut self, one: Callee, context: &u64, evictor: &Evictor) -> Result<(), String> {
        let lines = [
            one.address(),
            target as *const () as usize,
            (&raw const *context).addr(),
        ];
        for _ in 0..COLD {
            // A page without permissions has nothing to flush.
            let lines = if self.way.calls() < 64 {
                &lines[1..]
            } else {
                &lines
            };
            evictor.evict(lines);
            let ticks = timed(&[one], context, 1 + context)?;
            self.sample("cold", 1, ticks)?;
        }
        Ok(())
    }

    fn in_turn(&mut self, callees: &[Callee], contexts: &[u64]) -> Result<(), String> {
        let samples = callees.chunks(IN_TURN).zip(contexts.chunks(IN_TURN));
        for (callees, contexts) in samples {
            // The floors have no context of their own.
            let floor = callees[0] == callees[callees.len() - 1];
            let wanted = match floor {
                true => (1 + contexts[0]) * callees.len() as u64,
                false => contexts.iter().map(|number| 1 + number).sum(),
            };
            let ticks = timed(callees, &contexts[0], wanted)?;
            self.sample("turn", callees.len(), ticks)?;
        }
        Ok(())
    }

    fn make(&mut self, kept: usize, contexts: &'static [u64]) -> Result<(), String> {
        for _ in 0..MAKINGS {
            let start = ticks();
            self.way.make(contexts)?;
            let made = ticks();
            self.way.keep(kept);
            let removed = ticks();
            self.sample("make", contexts.len(), made - start)?;
            self.sample("remove", contexts.len(), removed - made)?;
        }
        Ok(())
    }
}

/// Calls all of them; how long that took.
fn timed(callees: &[Callee], context: &u64, wanted: u64) -> Result<u64, String> {
    let addresses: Vec<usize> = callees.iter().map(|callee| callee.address()).collect();
    let direct = callees.first() == Some(&Callee::Direct);
    let start = ticks();
    let sum = match direct {
        true => calls::each_direct(callees.len(), context),
        // SAFETY: They are kept by their way.
        false => unsafe { calls::each(&addresses, context) },
    };
    let ticks = ticks() - start;
    match sum == wanted {
        true => Ok(ticks),
        false => Err(format!("wrong results: {sum}, not {wanted}")),
    }
}
