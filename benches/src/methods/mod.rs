// SPDX-License-Identifier: GPL-2.0

//! The ways to publish, and what they are compared with.

mod dual;
mod executed;
mod flip;
mod floor;
mod jitfd_calls;
mod library;

use crate::error::Result;
use crate::executors::Window;
use crate::module::Module;

pub use dual::Dual;
pub use jitfd_calls::Jitfd;

/// Names under which results are compared.
pub const ALONE: &str = "alone";
pub const CLOCK: &str = "clock";
pub const FLOOR: &str = "floor";
pub const FLOOR_PAGE: &str = "floor+page";
pub const FLOOR_CODE: &str = "floor+code";
pub const FLIP: &str = "mprotect";
pub const DUAL: &str = "dual";
pub const DUAL_BATCH: &str = "dual/64";
pub const JITFD: &str = "jitfd";
pub const JITFD_RUN: &str = "jitfd+run";
pub const JITFD_BATCH: &str = "jitfd/64";
pub const LIBRARY: &str = "jitfd+lib";

/// Functions in a batch.
pub const BATCH: usize = 64;

/// Something that is timed, call by call.
pub trait Method {
    /// Its name in the table.
    fn name(&self) -> &'static str;

    /// Functions that a call publishes; 0 if it publishes none.
    fn functions(&self) -> usize {
        0
    }

    /// Calls in one turn.
    fn calls(&self) -> usize;

    /// Makes what the next call needs. Not timed.
    fn prepare(&mut self) {}

    /// The call that is timed.
    fn call(&mut self) -> Result<()>;

    /// What executing threads call meanwhile, if not just any code.
    fn window(&self) -> Option<&'static Window> {
        None
    }

    /// The module's counters.
    fn module(&self) -> Result<Option<Module>> {
        Ok(None)
    }
}

/// All of them, each with room for `rounds` turns.
pub fn all(rounds: usize) -> Result<Vec<Box<dyn Method>>> {
    Ok(vec![
        Box::new(floor::Alone),
        Box::new(floor::Clock),
        Box::new(floor::Syscall),
        Box::new(floor::Floor::new(false)?),
        Box::new(floor::Floor::new(true)?),
        Box::new(executed::Executed::new()?),
        Box::new(floor::Refused::new()?),
        Box::new(flip::Flip::new(rounds)?),
        Box::new(Dual::new(1, rounds)?),
        Box::new(Dual::new(BATCH, rounds)?),
        Box::new(Jitfd::new(1, rounds)?),
        Box::new(Jitfd::run_by_publisher(rounds)?),
        Box::new(Jitfd::new(BATCH, rounds)?),
        Box::new(library::Library::new(rounds)?),
    ])
}
