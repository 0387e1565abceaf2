// SPDX-License-Identifier: GPL-2.0

//! What nothing can be cheaper than: the clock, a system call, a copy.

use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::function::{self, LEN, PER_PAGE};
use crate::methods::{ALONE, CLOCK, FLOOR, FLOOR_PAGE, Method};
use crate::sys::{self, Access, Area};

/// Nothing but sleep: how fast the executing threads are when left alone.
pub struct Alone;

impl Method for Alone {
    fn name(&self) -> &'static str {
        ALONE
    }

    fn calls(&self) -> usize {
        1
    }

    fn call(&mut self) -> Result<()> {
        thread::sleep(Duration::from_millis(10));
        Ok(())
    }
}

/// Nothing: what taking the time costs.
pub struct Clock;

impl Method for Clock {
    fn name(&self) -> &'static str {
        CLOCK
    }

    fn calls(&self) -> usize {
        1024
    }

    fn call(&mut self) -> Result<()> {
        Ok(())
    }
}

/// An empty system call.
pub struct Syscall;

impl Method for Syscall {
    fn name(&self) -> &'static str {
        "syscall"
    }

    fn calls(&self) -> usize {
        1024
    }

    fn call(&mut self) -> Result<()> {
        sys::empty_call();
        Ok(())
    }
}

/// An empty system call and a copy of the bytes needed: of the function, or also
/// of what is on its page already, which a swap can't do without.
pub struct Floor {
    whole_page: bool,
    area: Area,
    page: Box<[u8; 4096]>,
    number: usize,
}

impl Floor {
    /// With or without the page.
    pub fn new(whole_page: bool) -> Result<Self> {
        let area = Area::map(None, 8192, Access::Write)?;
        area.write(0, &[0; 8192]);
        Ok(Floor {
            whole_page,
            area,
            page: Box::new([0x90; 4096]),
            number: 0,
        })
    }
}

impl Method for Floor {
    fn name(&self) -> &'static str {
        if self.whole_page { FLOOR_PAGE } else { FLOOR }
    }

    fn calls(&self) -> usize {
        1024
    }

    fn prepare(&mut self) {
        self.number = (self.number + 1) % PER_PAGE;
        let code = function::code(self.number as u32);
        let from = self.number * LEN;
        self.page[from..from + LEN].copy_from_slice(&code);
    }

    fn call(&mut self) -> Result<()> {
        sys::empty_call();
        let (from, end) = (self.number * LEN, self.number * LEN + LEN);
        let start = if self.whole_page { 0 } else { from };
        self.area.write(start, &self.page[start..end]);
        Ok(())
    }
}

/// A call of the module that it refuses at once.
pub struct Refused(OwnedFd);

/// A request that no `/dev/jit` knows: `_IO('J', 0x7f)`.
const UNKNOWN: u32 = (b'J' as u32) << 8 | 0x7f;

impl Refused {
    /// Opens the device.
    pub fn new() -> Result<Self> {
        Ok(Refused(sys::open(c"/dev/jit")?))
    }
}

impl Method for Refused {
    fn name(&self) -> &'static str {
        "ioctl"
    }

    fn calls(&self) -> usize {
        1024
    }

    fn call(&mut self) -> Result<()> {
        match sys::ioctl(self.0.as_fd(), UNKNOWN, &mut ()) {
            -1 => Ok(()),
            _ => Err(Error("an unknown ioctl was not refused".into())),
        }
    }
}
