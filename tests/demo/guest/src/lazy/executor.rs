// SPDX-License-Identifier: MIT OR Apache-2.0

//! An executor thread: wants every function, each executor in another order,
//! and while it waits for one it goes on executing the newest ones. So its CPU
//! always holds a translation of the page that the compiler appends to.

use super::Shared;
use jitfd::Error;
use std::{hint, thread};

/// How many of the newest functions are executed while waiting.
const NEWEST: usize = 3;

/// After so many rounds of that the CPU is offered to the compiler, which has
/// none of its own if there is only one.
const PATIENCE: u32 = 256;

/// What an executor has done.
#[derive(Default)]
pub struct Tally {
    pub calls: u64,
    pub wrong: u64,
}

impl Tally {
    pub fn with(&self, other: &Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            wrong: self.wrong + other.wrong,
        }
    }
}

pub struct Executor<'a> {
    shared: Shared<'a>,
    index: usize,
    tally: Tally,
}

impl<'a> Executor<'a> {
    pub fn new(shared: Shared<'a>, index: usize) -> Self {
        Self {
            shared,
            index,
            tally: Tally::default(),
        }
    }

    /// Executes every function at least once.
    pub fn run(mut self) -> Result<Tally, Error> {
        let functions = self.shared.table.functions();
        for turn in 0..functions {
            let id = (turn + self.index * functions / 7) % functions;
            let Some(offset) = self.wait_for(id)? else {
                break;
            };
            self.execute(id, offset)?;
        }
        Ok(self.tally)
    }

    /// The offset of a function, compiled if this is its first use. None if
    /// the compiler has failed.
    fn wait_for(&mut self, id: usize) -> Result<Option<usize>, Error> {
        let table = self.shared.table;
        if table.offset(id).is_none() {
            table.want(self.index, id);
        }
        for round in 1_u32.. {
            if table.offset(id).is_some() || table.is_abandoned() {
                break;
            }
            self.execute_newest()?;
            if round.is_multiple_of(PATIENCE) {
                thread::yield_now();
            }
        }
        Ok(table.offset(id))
    }

    fn execute_newest(&mut self) -> Result<(), Error> {
        let table = self.shared.table;
        for id in table.newest(NEWEST) {
            if let Some(offset) = table.offset(id) {
                self.execute(id, offset)?;
            }
        }
        hint::spin_loop();
        Ok(())
    }

    fn execute(&mut self, id: usize, offset: usize) -> Result<(), Error> {
        // Another argument for each call: a result can't be right by being old.
        let argument = self.tally.calls.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let result = self.call(offset, argument)?;
        self.tally.calls += 1;
        let expected = self.shared.book.result(id, argument);
        if result != expected {
            self.tally.wrong += 1;
            println!("WRONG: function {id}({argument:#x}) = {result:#x}, not {expected:#x}");
        }
        Ok(())
    }

    fn call(&self, offset: usize, argument: u64) -> Result<u64, Error> {
        type Function = extern "C" fn(u64) -> u64;
        // SAFETY: the table holds only offsets at which the compiler published
        // such a function, and the region outlives all threads. The function
        // touches its argument and its own stack, no more.
        let function = unsafe { self.shared.region.mapping().entry::<Function>(offset)? };
        Ok(function(argument))
    }
}
