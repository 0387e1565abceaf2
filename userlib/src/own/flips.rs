// SPDX-License-Identifier: MIT OR Apache-2.0

//! Mprotect flips, of pages that nobody executes.
//!
//! ```text
//!   stage:  | ...... | new version: written, then R+X | ....... |
//!                              |  mremap: takes the place of
//!                              v  the old version in one step
//!   code:   | page   | old version                    | no access |
//! ```
//!
//! A plain flip would take the page away from threads that execute it. Here a
//! version of a page is immutable once it can be executed, as with the kernel's
//! regions: the next one is prepared at another address, turned executable
//! there, and moved. The kernel does the exchange under the address space's
//! lock and flushes all CPUs; a thread that comes by meanwhile waits in its page
//! fault. So no CPU ever sees half of a publication.
//!
//! `stage` is as long as `code`, and a page is prepared at its own offset: the
//! moved pages then merge into few mappings.

use super::failed;
use super::memory::{Effects, Memory, Write};
use super::sys::Stage;
use crate::abi;
use crate::backend::Backend;
use crate::error::{Call, Error, Unsupported};
use crate::space::{Window, near};
use crate::sys::Mapped;
use std::ops::Range;

/// The memory of one region.
#[derive(Debug)]
pub(crate) struct Flips {
    stage: Stage,
}

impl Flips {
    pub(crate) fn new(capacity: usize, window: Option<Window>) -> Result<Self, Error> {
        let stage = near::map(window, capacity, Call::OwnMap, |at| {
            Stage::new(at, capacity)
        })?;
        let mut flips = Self { stage };
        flips.try_out()?;
        Ok(flips)
    }

    /// Finds out now, and not at the first publication, whether pages may become
    /// executable.
    fn try_out(&mut self) -> Result<(), Error> {
        self.stage.prepare(0..1).map_err(failed(Call::Protect))?;
        self.stage.turn(0..1).map_err(failed(Call::Protect))
    }

    /// Prepares a run of pages with the writes on it.
    fn prepare(&mut self, run: &Range<usize>, writes: &[Write<'_>]) -> Result<(), Error> {
        let pages = self.stage.prepare(run.clone());
        let pages = pages.map_err(failed(Call::Protect))?;
        let start = run.start * abi::PAGE_SIZE;
        for write in writes
            .iter()
            .filter(|write| run.contains(&write.pages().start))
        {
            let at = write.offset - start;
            if let Some(place) = pages.get_mut(at..at + write.bytes.len()) {
                place.copy_from_slice(write.bytes);
            }
        }
        self.stage.turn(run.clone()).map_err(failed(Call::Protect))
    }
}

/// The pages of `writes`, which ascend, as few runs as there can be.
fn runs(writes: &[Write<'_>]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for pages in writes.iter().map(Write::pages) {
        match runs.last_mut() {
            Some(last) if pages.start <= last.end => last.end = last.end.max(pages.end),
            _ => runs.push(pages),
        }
    }
    runs
}

impl Memory for Flips {
    fn extend(&mut self, _: Range<usize>) -> Result<(), Error> {
        Ok(())
    }

    fn publish(&mut self, writes: &[Write<'_>]) -> Result<Effects, Error> {
        let runs = runs(writes);
        for run in &runs {
            self.prepare(run, writes)?;
        }
        let mut effects = Effects::default();
        for run in runs {
            let (pages, live) = (run.len(), self.stage.live_pages(run.clone()));
            self.stage.place(run).map_err(failed(Call::Move))?;
            effects.swaps += crate::cast::to_u64(live);
            effects.in_place += crate::cast::to_u64(pages - live);
            effects.flushes += u64::from(live > 0);
        }
        Ok(effects)
    }

    fn map(&self, window: Option<Window>, len: usize) -> Result<Mapped, Error> {
        let code = self.stage.code(len);
        if window.is_none_or(|window| window.contains(code.as_ptr().addr(), len)) {
            return Ok(code);
        }
        let what = "mappings of one region at several addresses";
        Err(Unsupported::new(Backend::ProtectFlips, what).into())
    }

    /// A forked child has its own copies of the pages already.
    fn adopt(&mut self, _: &Mapped, _: &[Range<usize>]) -> Result<(), Error> {
        self.stage.renew().map_err(failed(Call::OwnMap))
    }

    fn seal(&mut self) {
        self.stage.give_up();
    }
}
