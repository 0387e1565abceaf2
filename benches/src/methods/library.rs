// SPDX-License-Identifier: GPL-2.0

//! jitfd as an engine uses it: the library checks the code, then publishes it.

use jitfd::{Fallback, Jit, Region, Rules, validate};

use crate::error::{Error, Result};
use crate::executors::Window;
use crate::function::{self, LEN};
use crate::methods::{LIBRARY, Method};
use crate::module::Module;

const CALLS: usize = 64;

/// A region of the library.
pub struct Library {
    jitfd: Region,
    window: &'static Window,
    number: usize,
    code: [u8; LEN],
}

impl Library {
    /// With room for `rounds` turns.
    pub fn new(rounds: usize) -> Result<Self> {
        let len = ((rounds * CALLS + 1) * LEN).next_multiple_of(4096);
        let jitfd = Jit::open(Fallback::Never)?.region(len)?;
        let mut library = Library {
            window: Window::new(jitfd.mapping().address(), 0),
            jitfd,
            number: 0,
            code: [0; LEN],
        };
        library.prepare();
        library.call()?;
        Ok(library)
    }
}

impl Method for Library {
    fn name(&self) -> &'static str {
        LIBRARY
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
        let chunk = validate(&self.code, &Rules::new()).map_err(jitfd::Error::from)?;
        let published = self.jitfd.publish(&chunk)?;
        if published.offset != self.number * LEN {
            return Err(Error(format!("the library put it at {}", published.offset)));
        }
        self.number += 1;
        self.window.grow(self.number);
        Ok(())
    }

    fn window(&self) -> Option<&'static Window> {
        Some(self.window)
    }

    fn module(&self) -> Result<Option<Module>> {
        let stats = self.jitfd.stats()?;
        Ok(Some(Module {
            swaps: stats.swaps,
            in_place: stats.in_place,
            fixups: stats.fixups,
            flushes: stats.flushes,
            ipis: stats.ipis,
            retired: stats.retired,
            freed: stats.freed,
        }))
    }
}
