// SPDX-License-Identifier: MIT OR Apache-2.0

//! Slots that a thread has taken in advance, and those it has given back and may
//! want again: what makes binding cheap.
//!
//! Each thread has a few lines of them, each of one table; a table looks first for the
//! line that its number says. A line is filled, and emptied, by halves. Only its thread
//! ever sees it, so nothing is locked; what a thread keeps goes back to its table when it
//! ends.
//!
//! Not for signal handlers: one could come in the middle of a change.

use crate::copy::Stub;
use crate::pool::Pool;
use jitfd::Error;
use std::cell::{Cell, OnceCell, RefCell};
use std::sync::{Arc, Weak};

/// The slots that a thread keeps of a table.
pub(crate) const ROOM: usize = 64;
/// How many are moved at a time.
const HALF: usize = ROOM / 2;
/// How many tables a thread can use alternately and find its slots.
const LINES: usize = 8;

thread_local! {
    static CACHE: Cache = const {
        Cache {
            lines: [const { OnceCell::new() }; LINES],
            oldest: Cell::new(0),
        }
    };
}

struct Cache {
    lines: [OnceCell<Box<Line>>; LINES],
    /// Which line its table loses next, when all have one.
    oldest: Cell<usize>,
}

/// # Invariants
/// The first `len` of `stubs` are there, are taken from the pool with the number
/// `table`, and are nobody else's.
struct Line {
    table: Cell<u64>,
    len: Cell<usize>,
    stubs: [Cell<Option<Stub>>; ROOM],
    pool: RefCell<Weak<Pool>>,
}

impl Cache {
    #[inline]
    fn line(&self, table: u64) -> &OnceCell<Box<Line>> {
        // The remainder is below the number of lines.
        &self.lines[jitfd_code::internal::num::to_usize(table) % LINES]
    }

    /// The line that this table has.
    #[inline]
    fn own_line(&self, table: u64) -> Option<&Line> {
        match self.line(table).get() {
            Some(line) if line.table.get() == table => Some(line),
            _ => self.search(table),
        }
    }

    fn search(&self, table: u64) -> Option<&Line> {
        let mut lines = self.lines.iter().filter_map(OnceCell::get);
        lines
            .find(|line| line.table.get() == table)
            .map(|line| &**line)
    }

    /// The same; if it has none, one that nobody has, or else that of another.
    fn claim(&self, pool: &Arc<Pool>) -> &Line {
        if let Some(line) = self.own_line(pool.id()) {
            return line;
        }
        let line = self.vacant(pool.id());
        let line = line.get_or_init(|| Box::new(Line::new()));
        line.spill(ROOM);
        line.table.set(pool.id());
        line.pool.replace(Arc::downgrade(pool));
        line
    }

    fn vacant(&self, table: u64) -> &OnceCell<Box<Line>> {
        let first = std::iter::once(self.line(table));
        let unused = |line: &&OnceCell<_>| line.get().is_none();
        if let Some(line) = first.chain(&self.lines).find(unused) {
            return line;
        }
        let oldest = self.oldest.get() % LINES;
        self.oldest.set(oldest + 1);
        // The remainder is below the number of lines.
        &self.lines[oldest]
    }
}

impl Line {
    const fn new() -> Self {
        Self {
            table: Cell::new(0),
            len: Cell::new(0),
            stubs: [const { Cell::new(None) }; ROOM],
            pool: RefCell::new(Weak::new()),
        }
    }

    #[inline]
    fn pop(&self) -> Option<Stub> {
        let last = self.len.get().checked_sub(1)?;
        let stub = self.stubs.get(last)?.get();
        self.len.set(last);
        stub
    }

    /// Whether there was room for it.
    #[inline]
    fn push(&self, stub: Stub) -> bool {
        let len = self.len.get();
        let Some(place) = self.stubs.get(len) else {
            return false;
        };
        place.set(Some(stub));
        self.len.set(len + 1);
        true
    }

    /// Gives up to `most` back.
    fn spill(&self, most: usize) {
        let stubs = std::iter::from_fn(|| self.pop()).take(most);
        match self.pool.borrow().upgrade() {
            Some(pool) => pool.give(stubs),
            // The table is gone, with all its slots.
            None => stubs.for_each(drop),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.spill(ROOM);
    }
}

/// A free slot of the table.
#[inline]
pub(crate) fn take(pool: &Arc<Pool>) -> Result<Stub, Error> {
    let cached = CACHE.try_with(|cache| cache.own_line(pool.id())?.pop());
    match cached {
        Ok(Some(stub)) => Ok(stub),
        _ => take_more(pool),
    }
}

#[cold]
fn take_more(pool: &Arc<Pool>) -> Result<Stub, Error> {
    let filled = CACHE.try_with(|cache| {
        let line = cache.claim(pool);
        // There is room: it is empty.
        pool.take(HALF, |stub| _ = line.push(stub))?;
        Ok(line.pop())
    });
    match filled {
        Ok(Ok(Some(stub))) => Ok(stub),
        Ok(Err(error)) => Err(error),
        // The thread is about to end.
        Ok(Ok(None)) | Err(_) => {
            let mut taken = None;
            pool.take(1, |stub| taken = Some(stub))?;
            taken.ok_or(NO_SLOT)
        }
    }
}

const NO_SLOT: Error = Error::Argument("a copy of a table has no slots");

/// Gives a slot back that was taken from `pool`, and is cleared.
#[inline]
pub(crate) fn give(pool: &Arc<Pool>, stub: Stub) {
    let cached = CACHE.try_with(|cache| {
        let line = cache.own_line(pool.id());
        line.is_some_and(|line| line.push(stub))
    });
    if !matches!(cached, Ok(true)) {
        give_more(pool, stub);
    }
}

#[cold]
fn give_more(pool: &Arc<Pool>, stub: Stub) {
    let cached = CACHE.try_with(|cache| {
        let line = cache.claim(pool);
        if line.push(stub) {
            return true;
        }
        line.spill(HALF);
        line.push(stub)
    });
    if !matches!(cached, Ok(true)) {
        pool.give(std::iter::once(stub));
    }
}

/// Gives back what the thread keeps of `pool`.
pub(crate) fn trim(pool: &Arc<Pool>) {
    // A thread that is about to end has given all back.
    let _ = CACHE.try_with(|cache| cache.own_line(pool.id()).map(|line| line.spill(ROOM)));
}
