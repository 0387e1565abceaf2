// SPDX-License-Identifier: MIT OR Apache-2.0

//! A table that only grows and whose entries never move, so that it is read
//! without a lock: also from a signal handler that has interrupted a writer.
//!
//! Locks: writers take turns by a mutex of the table's own; readers take none.

use crate::os::fallible::room;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Entries of the first block; each further block has twice as many.
const FIRST: usize = 16;
/// Enough for 2^32 entries.
const BLOCKS: usize = 28;

type Block<T> = OnceLock<Box<[OnceLock<T>]>>;

/// # Invariants
/// The entries before `len` are set, and so are their blocks; they never change.
pub(crate) struct Table<T> {
    blocks: [Block<T>; BLOCKS],
    len: AtomicUsize,
    writer: Mutex<()>,
}

/// The block of an entry, and its place in there.
const fn place(index: usize) -> (usize, usize) {
    let at = index + FIRST;
    let block = at.ilog2() - FIRST.ilog2();
    (block as usize, at - (FIRST << block))
}

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self {
            blocks: [const { OnceLock::new() }; BLOCKS],
            len: AtomicUsize::new(0),
            writer: Mutex::new(()),
        }
    }

    /// The number of entries. Those before it can be read.
    pub(crate) fn len(&self) -> usize {
        // Pairs with `push`: who sees the length sees the entries.
        self.len.load(Ordering::Acquire)
    }

    /// The entry at `index`, if there is one.
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        if index >= self.len() {
            return None;
        }
        let (block, at) = place(index);
        self.blocks.get(block)?.get()?.get(at)?.get()
    }

    /// All entries there are now, the first one first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Gets the memory for `more` entries, so that adding those does not fail for lack
    /// of it if nobody else adds any meanwhile; returns whether there was enough.
    pub(crate) fn make_room(&self, more: usize) -> bool {
        let _turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let len = self.len();
        let last = len.saturating_add(more).saturating_sub(1);
        more == 0 || (place(len).0..=place(last).0).all(|block| self.has_block(block))
    }

    /// Makes a block if it is not there; `false` without memory for it. Those that no
    /// table has are missed by `push`.
    fn has_block(&self, number: usize) -> bool {
        let Some(block) = self.blocks.get(number) else {
            return true;
        };
        if block.get().is_none() {
            let new = room(FIRST << number).map(|mut entries: Vec<OnceLock<T>>| {
                entries.resize_with(FIRST << number, OnceLock::new);
                entries.into_boxed_slice()
            });
            // Nobody else sets it: this is the writer's turn.
            let _ = new.map(|new| block.set(new));
        }
        block.get().is_some()
    }

    /// Adds an entry behind the others; returns its index, or gives the value
    /// back if the table is full, or there is no memory for more.
    pub(crate) fn push(&self, value: T) -> Result<usize, T> {
        // A panic can't leave the table half changed: the length comes last.
        let _turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let index = self.len();
        let (block, at) = place(index);
        if !self.has_block(block) {
            return Err(value);
        }
        let entries = self.blocks.get(block).and_then(OnceLock::get);
        match entries.and_then(|entries| entries.get(at)) {
            Some(cell) => cell.set(value)?,
            None => return Err(value),
        }
        self.len.store(index + 1, Ordering::Release);
        Ok(index)
    }

    /// The last entry for which `holds` is true, if it is true for all entries
    /// up to one and for none after.
    pub(crate) fn last_where(&self, holds: impl Fn(&T) -> bool) -> Option<&T> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.get(middle).is_some_and(&holds) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.get(low.checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_dense() {
        let mut expected = (0, 0);
        for index in 0..10_000 {
            assert_eq!(place(index), expected);
            expected.1 += 1;
            if expected.1 == FIRST << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
    }

    #[test]
    fn what_was_pushed_is_found() {
        let table = Table::new();
        assert_eq!((table.len(), table.get(0)), (0, None));
        for value in 0..1000 {
            assert_eq!(table.push(value * 3), Ok(value));
        }
        assert!(table.iter().copied().eq((0..1000).map(|value| value * 3)));
        assert_eq!((table.get(999), table.get(1000)), (Some(&2997), None));
        for wanted in 0..3000 {
            let found = table.last_where(|&value| value <= wanted);
            assert_eq!(found, Some(&(wanted / 3 * 3)));
        }
        assert_eq!(table.last_where(|_| false), None);
    }

    #[test]
    fn room_is_made_beforehand() {
        let table = Table::new();
        let blocks = || {
            table
                .blocks
                .iter()
                .filter(|block| block.get().is_some())
                .count()
        };
        for (more, count) in [(0, 0), (16, 1), (17, 2), (48, 2), (49, 3)] {
            assert!(table.make_room(more));
            assert_eq!(blocks(), count, "{more}");
        }
        for value in 0..49 {
            assert_eq!(table.push(value), Ok(value));
        }
        assert_eq!(blocks(), 3);
    }

    #[test]
    fn readers_see_whole_entries_while_others_write() {
        let table = Table::<(usize, String)>::new();
        std::thread::scope(|scope| {
            for writer in 0..3 {
                let table = &table;
                scope.spawn(move || {
                    for number in 0..2000 {
                        table.push((number, number.to_string())).unwrap();
                    }
                    writer
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    while table.len() < 6000 {
                        for (number, text) in table.iter() {
                            assert_eq!(number.to_string(), *text);
                        }
                    }
                });
            }
        });
        assert_eq!(table.iter().count(), 6000);
    }
}
