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
//! Pages that lie apart take a move each. If one is refused (the address space has
//! too many mappings), those before it are taken back by moves of their own; what is
//! refused even that is 0xCC again in the next version of its page. Nobody was told
//! of its address.
//!
//! A move needs no address space of its own, and so no limit on that (`RLIMIT_AS`)
//! refuses it halfway. A kernel that has no memory for its tables can: it has
//! unmapped the old version then, and the new one is copied to its place. If that
//! fails as well (`Staging::lost`), the code of these pages is gone; nothing is published
//! in the region any more, and its addresses are left to whoever has got them.
//!
//! `stage` is as long as `code`, and a page is prepared at its own offset: the
//! moved pages then merge into few mappings. The gap that a move leaves in it is
//! closed at once; if somebody else got the addresses, or if the limit is below what
//! is mapped, the next publication begins with a new stage.

use super::memory::{Effects, Memory, Write};
use super::sys::Staging;
use crate::abi;
use crate::backend_name::Backend;
use crate::error::{Call, Error, failed};
use crate::os::fallible::{no_memory, room};
use crate::os::near;
use crate::os::sys::Mapped;
use crate::os::window::Window;
use std::ops::Range;

/// The memory of one region.
#[derive(Debug)]
pub(crate) struct Mprotect {
    stage: Staging,
    /// What is there but was not published: each on one page, in bytes from the
    /// start of the region.
    stray: Vec<Range<usize>>,
}

impl Mprotect {
    pub(crate) fn new(capacity: usize, window: Option<Window>) -> Result<Self, Error> {
        let stage = near::map(window, capacity, Call::OwnMap, |at| {
            Staging::new(at, capacity)
        })?;
        let mut flips = Self {
            stage,
            stray: Vec::new(),
        };
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
        for stray in self.stray.iter().filter(|stray| is_on(run, stray)) {
            if let Some(place) = pages.get_mut(stray.start - start..stray.end - start) {
                place.fill(abi::FILL);
            }
        }
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

    fn place(&mut self, run: &Range<usize>) -> Result<(), Error> {
        #[cfg(test)]
        tests::moves()?;
        self.stage.place(run.clone()).map_err(failed(Call::Move))?;
        self.stray.retain(|stray| !is_on(run, stray));
        Ok(())
    }

    /// Takes back the writes on runs that were placed.
    fn take_back(&mut self, runs: &[Range<usize>], writes: &[Write<'_>]) {
        for run in runs {
            let here = writes.iter().filter(|write| is_on(run, &write.range()));
            self.stray.extend(here.flat_map(by_page));
            // Pages for which this fails are put right by their next version.
            if self.prepare(run, &[]).is_ok() {
                let _ = self.place(run);
            }
        }
    }
}

/// Whether the first byte of `bytes` is on one of the pages of `run`.
fn is_on(run: &Range<usize>, bytes: &Range<usize>) -> bool {
    run.contains(&(bytes.start / abi::PAGE_SIZE))
}

/// The bytes of a write, those of each page for themselves.
fn by_page(write: &Write<'_>) -> impl Iterator<Item = Range<usize>> {
    let bytes = write.range();
    write.pages().map(move |page| {
        let start = page * abi::PAGE_SIZE;
        bytes.start.max(start)..bytes.end.min(start + abi::PAGE_SIZE)
    })
}

/// The pages of `writes`, which ascend, as few runs as there can be; `None` without
/// memory for the list.
fn runs(writes: &[Write<'_>]) -> Option<Vec<Range<usize>>> {
    let mut runs: Vec<Range<usize>> = room(writes.len())?;
    for pages in writes.iter().map(Write::pages) {
        match runs.last_mut() {
            Some(last) if pages.start <= last.end => last.end = last.end.max(pages.end),
            _ => runs.push(pages),
        }
    }
    Some(runs)
}

impl Memory for Mprotect {
    fn extend(&mut self, _: Range<usize>) -> Result<(), Error> {
        Ok(())
    }

    fn publish(&mut self, writes: &[Write<'_>]) -> Result<Effects, Error> {
        let no_memory = no_memory(Call::Move);
        let runs = runs(writes).ok_or(no_memory.clone())?;
        if runs.len() > 1 {
            // What may have to be taken back.
            let pages = runs.iter().map(ExactSizeIterator::len).sum::<usize>();
            let most = pages.saturating_add(writes.len());
            self.stray.try_reserve(most).map_err(|_| no_memory)?;
        }
        for run in &runs {
            self.prepare(run, writes)?;
        }
        let mut effects = Effects::default();
        for (number, run) in runs.iter().enumerate() {
            let (pages, live) = (run.len(), self.stage.live_pages(run.clone()));
            if let Err(error) = self.place(run) {
                self.take_back(runs.get(..number).unwrap_or_default(), writes);
                return Err(error);
            }
            effects.swaps += crate::num::to_u64(live);
            effects.in_place += crate::num::to_u64(pages - live);
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
        Err(Error::Unsupported {
            backend: Backend::ProtectFlips,
            what,
        })
    }

    /// A forked child has its own copies of the pages already.
    fn adopt(&mut self, _: &Mapped, _: &[Range<usize>]) -> Result<(), Error> {
        self.stage.renew().map_err(failed(Call::OwnMap))
    }

    fn seal(&mut self) {
        self.stage.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::refused;
    use std::cell::Cell;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    thread_local! {
        /// After how many moves one is refused, and how many are.
        static REFUSED: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
    }

    /// As a process that has too many mappings would have it.
    pub(super) fn moves() -> Result<(), Error> {
        let (after, count) = REFUSED.get();
        if after > 0 || count == 0 {
            REFUSED.set((after.saturating_sub(1), count));
            return Ok(());
        }
        REFUSED.set((0, count - 1));
        Err(refused(Call::Move)(libc::ENOMEM))
    }

    fn write(offset: usize, bytes: &[u8]) -> Write<'_> {
        Write { offset, bytes }
    }

    fn bytes(flips: &Mprotect, offset: usize) -> [u8; 4] {
        let code = flips.map(None, 4 * abi::PAGE_SIZE).unwrap();
        let memory = File::open("/proc/self/mem").unwrap();
        let mut bytes = [0; 4];
        let at = code.as_ptr().addr() + offset;
        memory.read_exact_at(&mut bytes, at as u64).unwrap();
        bytes
    }

    #[test]
    fn a_refused_batch_leaves_nothing() {
        const APART: usize = 2 * abi::PAGE_SIZE;
        for refused in [1, 2] {
            let mut flips = Mprotect::new(4 * abi::PAGE_SIZE, None).unwrap();
            flips.publish(&[write(0, &[1])]).unwrap();
            // The second move is refused, and then the one that takes back the first.
            REFUSED.set((1, refused));
            let batch = [write(1, &[2, 3]), write(APART, &[4])];
            let error = flips.publish(&batch).unwrap_err();
            assert_eq!(error.kind(), Some(crate::Kind::NoMemory));
            assert_eq!(REFUSED.get().1, 0);
            let left = if refused == 1 { abi::FILL } else { 2 };
            assert_eq!(bytes(&flips, 0)[..2], [1, left]);
            assert_eq!(flips.stray.is_empty(), refused == 1);
            // A shorter one comes to lie where that was.
            flips.publish(&[write(1, &[5])]).unwrap();
            assert_eq!(bytes(&flips, 0), [1, 5, abi::FILL, abi::FILL]);
            assert!(flips.stray.is_empty());
            flips.publish(&[write(APART, &[6])]).unwrap();
            assert_eq!(bytes(&flips, APART)[..2], [6, abi::FILL]);
        }
    }
}
