// SPDX-License-Identifier: GPL-2.0

//! One scenario: each method has its turn in every round, each round starting
//! with another one, so that what drifts hits all alike. A turn ends when all
//! pages it replaced are freed, so that interrupts are counted where they belong.

use std::thread;
use std::time::Duration;

use crate::clock::ticks;
use crate::error::{Error, Result};
use crate::executors::{Executors, Window};
use crate::interrupts::Interrupts;
use crate::methods::{self, Dual, Method};
use crate::samples::{Scenario, Series, Slice};
use crate::sys;

/// Between two looks at the counters.
const LOOK: Duration = Duration::from_micros(500);

/// How many looks until freeing is given up.
const LOOKS: usize = 20_000;

/// Measures all methods with `threads` executing threads.
pub fn scenario(threads: usize, rounds: usize) -> Result<Scenario> {
    sys::pin(0)?;
    let settled = Dual::settled()?;
    let mut methods = methods::all(rounds)?;
    let mut slices: Vec<Vec<Slice>> = methods.iter().map(|_| Vec::new()).collect();
    let executors = Executors::start(threads, settled);
    for round in 0..rounds {
        for turn in 0..methods.len() {
            let index = (turn + round) % methods.len();
            let slice = slice(methods[index].as_mut(), &executors, settled)?;
            slices[index].push(slice);
        }
    }
    executors.turn_to(settled);
    let series = methods.iter().zip(slices);
    let series = series.map(|(method, slices)| finish(method.as_ref(), slices));
    Ok(Scenario {
        threads,
        series: series.collect::<Result<_>>()?,
    })
}

fn finish(method: &dyn Method, slices: Vec<Slice>) -> Result<Series> {
    Ok(Series {
        method: method.name(),
        functions: method.functions(),
        slices,
        module: method.module()?,
    })
}

/// One turn.
fn slice(
    method: &mut dyn Method,
    executors: &Executors,
    settled: &'static Window,
) -> Result<Slice> {
    let mut slice = Slice {
        calls: Vec::with_capacity(method.calls()),
        ..Default::default()
    };
    executors.turn_to(settled);
    let before = Interrupts::now()?;
    let window = method.window().unwrap_or(settled);
    executors.turn_to(window);
    let (executed, start) = (executors.calls(), ticks());
    for _ in 0..method.calls() {
        method.prepare();
        if method.functions() > 0 {
            executors.catch_up(window);
        }
        let begin = ticks();
        method.call()?;
        slice.calls.push(ticks() - begin);
    }
    slice.lasted = ticks() - start;
    slice.executed = executors.calls() - executed;
    slice.drained = drain(method)?;
    slice.interrupts = Interrupts::now()? - before;
    Ok(slice)
}

/// Waits until all replaced pages are freed; how long that took, in ticks.
fn drain(method: &dyn Method) -> Result<Option<u64>> {
    let begin = ticks();
    for _ in 0..LOOKS {
        match method.module()? {
            None => return Ok(None),
            Some(module) if module.freed == module.retired => return Ok(Some(ticks() - begin)),
            Some(_) => thread::sleep(LOOK),
        }
    }
    Err(Error(format!("{}: pages are never freed", method.name())))
}
