// SPDX-License-Identifier: GPL-2.0

//! A memory file mapped twice: a writable alias of the executable code. No
//! system call at all, and no protection either. The cursor is checked against
//! the capacity, and published to the executing threads.

use std::os::fd::AsFd;

use crate::error::{Error, Result};
use crate::executors::Window;
use crate::function::{self, LEN};
use crate::methods::{BATCH, DUAL, DUAL_BATCH, Method};
use crate::sys::{self, Access, Area};

/// A code space with a writable alias.
pub struct Dual {
    alias: Area,
    window: &'static Window,
    number: usize,
    functions: usize,
    codes: Vec<u8>,
}

impl Dual {
    /// Publishes `functions` in one call; has room for `rounds` turns.
    pub fn new(functions: usize, rounds: usize) -> Result<Self> {
        let len = (rounds * calls(functions) * functions * LEN).next_multiple_of(4096);
        let file = sys::memory_file(len)?;
        let alias = Area::map(Some(file.as_fd()), len, Access::Write)?;
        let code = Area::map(Some(file.as_fd()), len, Access::Execute)?;
        Ok(Dual {
            alias,
            window: Window::new(code.address(), 0),
            number: 0,
            functions,
            codes: Vec::new(),
        })
    }

    /// A window of [`BATCH`] functions that never changes.
    pub fn settled() -> Result<&'static Window> {
        let mut dual = Dual::new(BATCH, 1)?;
        dual.prepare();
        dual.call()?;
        Ok(dual.window)
    }
}

fn calls(functions: usize) -> usize {
    if functions == 1 { 256 } else { 32 }
}

impl Method for Dual {
    fn name(&self) -> &'static str {
        if self.functions == 1 {
            DUAL
        } else {
            DUAL_BATCH
        }
    }

    fn functions(&self) -> usize {
        self.functions
    }

    fn calls(&self) -> usize {
        calls(self.functions)
    }

    fn prepare(&mut self) {
        self.codes = function::codes(self.number as u32, self.functions);
    }

    fn call(&mut self) -> Result<()> {
        for code in self.codes.chunks_exact(LEN) {
            if !self.alias.write(self.number * LEN, code) {
                return Err(Error("the dual mapping is full".into()));
            }
            self.number += 1;
        }
        self.window.grow(self.number);
        Ok(())
    }

    fn window(&self) -> Option<&'static Window> {
        Some(self.window)
    }
}
