// SPDX-License-Identifier: GPL-2.0
//! One call, with each failure that it can meet.

use std::fmt::Debug;
use std::fs;
use std::io;

use super::inject::{Injector, Mode};
use crate::suite::memory;
use crate::suite::outcome::{Checked, OrFail, Outcome, Stop, equal, failed, holds};
use crate::suite::region::{Region, Snapshot};

/// More failures than any call can meet.
const END: u32 = 5000;

/// What is done to one call.
pub struct Sweep<'a, C> {
    /// Makes what the call works on, anew for each failure.
    pub prepare: &'a dyn Fn() -> Checked<C>,
    /// The call.
    pub call: &'a dyn Fn(&mut C) -> io::Result<()>,
    /// Everything that a failed call must leave as it was.
    pub state: &'a dyn Fn(&C) -> Checked<State>,
    /// What holds after a success.
    pub verify: &'a dyn Fn(&C) -> Outcome,
    /// What a failure may be told as.
    pub errnos: &'a [i32],
}

/// What a call must say where memory is short or user memory can't be reached.
pub const USUAL: &[i32] = &[libc::ENOMEM, libc::EFAULT];

/// What a process can see that a call might change.
pub struct State {
    regions: Vec<Snapshot>,
    mappings: Vec<Area>,
    descriptors: usize,
}

impl State {
    /// Of the process and these regions. This touches the pages of the regions.
    pub fn of(regions: &[&Region]) -> Checked<Self> {
        Ok(State {
            mappings: areas()?,
            ..State::without_mappings(regions)?
        })
    }

    /// The same, whatever the mappings are.
    pub fn without_mappings(regions: &[&Region]) -> Checked<Self> {
        let snapshot = |region: &&Region| region.snapshot().map(Snapshot::without_mappings);
        Ok(State {
            regions: regions.iter().map(snapshot).collect::<Checked<_>>()?,
            mappings: Vec::new(),
            descriptors: fs::read_dir("/proc/self/fd")
                .or_fail("list descriptors")?
                .count(),
        })
    }

    fn same_as(&self, before: &State) -> Outcome {
        for (now, before) in self.regions.iter().zip(&before.regions) {
            now.same_as(before)?;
        }
        equal("the mappings", &self.mappings, &before.mappings)?;
        equal("open descriptors", self.descriptors, before.descriptors)
    }
}

/// How many failures a sweep has met.
#[derive(Debug, Default)]
pub struct Met {
    /// The call failed.
    pub failed: u32,
    /// It succeeded nevertheless.
    pub absorbed: u32,
}

/// A piece of the address space that is code.
#[derive(Debug, PartialEq, Eq)]
struct Area {
    start: usize,
    end: usize,
    offset: usize,
    access: String,
}

impl Area {
    /// Of a line of `/proc/self/maps`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let access = words.next()?.to_owned();
        let number = |text| usize::from_str_radix(text, 16).ok();
        Some(Area {
            start: number(start)?,
            end: number(end)?,
            offset: number(words.next()?)?,
            access,
        })
    }

    fn is_continued_by(&self, next: &Area) -> bool {
        let len = self.end - self.start;
        self.end == next.start && self.offset + len == next.offset && self.access == next.access
    }
}

/// Where code is mapped. A call that fails may leave a mapping cut in two, which
/// no program can tell from one.
fn areas() -> Checked<Vec<Area>> {
    let mut areas: Vec<Area> = Vec::new();
    for area in memory::jit_mappings()?
        .iter()
        .filter_map(|line| Area::parse(line))
    {
        match areas.last_mut() {
            Some(last) if last.is_continued_by(&area) => last.end = area.end,
            _ => areas.push(area),
        }
    }
    Ok(areas)
}

impl<C> Sweep<'_, C> {
    /// Makes the call until no failure is left, with each failure alone. Fails if
    /// one does harm.
    pub fn run(&self) -> Checked<Met> {
        self.run_in(Mode::One)
    }

    /// The same, then with each failure and all that follow.
    pub fn run_twice(&self) -> Checked<Met> {
        let met = self.run_in(Mode::One)?;
        self.run_in(Mode::AllFrom)?;
        Ok(met)
    }

    fn run_in(&self, mode: Mode) -> Checked<Met> {
        let injector = Injector::new(mode)?;
        let mut met = Met::default();
        for nth in 1..END {
            let name = |stop| self.name(stop, nth);
            match self.one(&injector, nth).or_else(name)? {
                Some(true) => met.failed += 1,
                Some(false) => met.absorbed += 1,
                None => {
                    println!(
                        "  {mode:?}: {} failed, {} did not",
                        met.failed, met.absorbed
                    );
                    return Ok(met);
                }
            }
        }
        failed("there is no end of failures")
    }

    fn name<T>(&self, stop: Stop, nth: u32) -> Checked<T> {
        match stop {
            Stop::Failed(why) => failed(format!("failure {nth}: {why}")),
            other => Err(other),
        }
    }

    /// With one failure: whether the call failed; `None` if it met none.
    fn one(&self, injector: &Injector, nth: u32) -> Checked<Option<bool>> {
        let mut context = (self.prepare)()?;
        let before = (self.state)(&context)?;
        let (result, injected) = injector.run(nth, || (self.call)(&mut context))?;
        if let Err(error) = &result {
            holds(injected, format!("it failed by itself: {error}"))?;
            let errno = error.raw_os_error().unwrap_or(0);
            let known = self.errnos.contains(&errno);
            holds(known, format!("an errno that is documented: {error}"))?;
            (self.state)(&context)?.same_as(&before)?;
            (self.call)(&mut context).or_fail("the same call, without a failure")?;
        }
        (self.verify)(&context)?;
        Ok(injected.then_some(result.is_err()))
    }
}

/// Fails unless the sweep met failures: else it has tested nothing.
pub fn some_failed(met: Met) -> Outcome {
    holds(met.failed > 0, format!("some failures were met: {met:?}"))
}

/// A call that needs no memory and copies nothing.
pub fn none_failed(met: Met) -> Outcome {
    equal("failures", met.failed, 0)
}

/// The state of a call that works on one region.
pub fn of_region(region: &Region) -> Checked<State> {
    State::of(&[region])
}

/// The state of the process alone, which touches no page of a region.
pub fn of_process<C>(_: &C) -> Checked<State> {
    State::of(&[])
}

/// Nothing more to check.
pub fn nothing<C: ?Sized>(_: &C) -> Outcome {
    Ok(())
}

/// Keeps a result that is only to be dropped.
pub fn done<T: Debug>(result: io::Result<T>) -> io::Result<()> {
    result.map(|_| ())
}
