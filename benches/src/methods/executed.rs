// SPDX-License-Identifier: GPL-2.0

//! The floor for replacing a page that is in use: an empty system call, and a
//! copy of what is on the page into memory that was executed before, as the
//! memory of an older version was. An emulator keeps the code of such a page
//! translated and pays for every store to it; a processor hardly does.

use std::os::fd::AsFd;

use crate::error::Result;
use crate::function::{self, LEN, PER_PAGE};
use crate::methods::{FLOOR_CODE, Method};
use crate::sys::{self, Access, Area};

/// A page with a writable alias.
pub struct Executed {
    alias: Area,
    code: Area,
    bytes: Vec<u8>,
    number: usize,
}

impl Executed {
    /// A page full of functions.
    pub fn new() -> Result<Self> {
        let file = sys::memory_file(4096)?;
        let alias = Area::map(Some(file.as_fd()), 4096, Access::Write)?;
        let code = Area::map(Some(file.as_fd()), 4096, Access::Execute)?;
        let bytes = function::codes(0, PER_PAGE);
        alias.write(0, &bytes);
        Ok(Executed {
            alias,
            code,
            bytes,
            number: 0,
        })
    }

    fn execute(&self, number: usize) {
        // SAFETY: The page is full of functions, which never change.
        unsafe { sys::call(self.code.address() + number * LEN) };
    }
}

impl Method for Executed {
    fn name(&self) -> &'static str {
        FLOOR_CODE
    }

    fn calls(&self) -> usize {
        256
    }

    fn prepare(&mut self) {
        self.number = (self.number + 1) % PER_PAGE;
        self.execute(self.number);
        self.execute(self.number / 2);
    }

    fn call(&mut self) -> Result<()> {
        sys::empty_call();
        let end = (self.number + 1) * LEN;
        self.alias.write_words(&self.bytes[..end]);
        Ok(())
    }
}
