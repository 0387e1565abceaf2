// SPDX-License-Identifier: GPL-2.0

//! The usual way: make the page writable, write, make it executable again. On
//! pages that nobody executes, for a thread that did would be killed; the other
//! threads of the process execute elsewhere.

use crate::error::{Error, Result};
use crate::function::{self, LEN};
use crate::methods::{FLIP, Method};
use crate::sys::{Access, Area};

const CALLS: usize = 128;

/// A code space that is flipped.
pub struct Flip {
    area: Area,
    number: usize,
    code: [u8; LEN],
}

impl Flip {
    /// With room for `rounds` turns.
    pub fn new(rounds: usize) -> Result<Self> {
        Ok(Flip {
            area: Area::map(None, rounds * CALLS * LEN, Access::Execute)?,
            number: 0,
            code: [0; LEN],
        })
    }
}

impl Method for Flip {
    fn name(&self) -> &'static str {
        FLIP
    }

    fn functions(&self) -> usize {
        1
    }

    fn calls(&self) -> usize {
        CALLS
    }

    fn prepare(&mut self) {
        self.code = function::code(self.number as u32);
    }

    fn call(&mut self) -> Result<()> {
        let offset = self.number * LEN;
        self.area.protect(offset, Access::Write)?;
        if !self.area.write(offset, &self.code) {
            return Err(Error("the flipped area is full".into()));
        }
        self.area.protect(offset, Access::Execute)?;
        self.number += 1;
        Ok(())
    }
}
