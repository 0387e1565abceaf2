// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which function is where in one region. Reading takes no lock and allocates
//! nothing.

use super::table::Table;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

const RESERVED: u8 = 0;
const PUBLISHED: u8 = 1;
const GIVEN_UP: u8 = 2;

/// One function, or a place for one. Offsets are from the start of the region.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) offset: usize,
    pub(crate) name: Box<str>,
    /// In bytes: what is reserved, then what is published.
    len: AtomicUsize,
    state: AtomicU8,
}

impl Entry {
    pub(crate) fn reserved(offset: usize, len: usize, name: Box<str>) -> Self {
        Self {
            offset,
            name,
            len: len.into(),
            state: RESERVED.into(),
        }
    }

    pub(crate) fn published(offset: usize, len: usize, name: Box<str>) -> Self {
        Self {
            state: PUBLISHED.into(),
            ..Self::reserved(offset, len, name)
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.state.load(Ordering::Acquire) == GIVEN_UP
    }

    pub(crate) fn is_published(&self) -> bool {
        self.state.load(Ordering::Acquire) == PUBLISHED
    }

    /// `len` bytes of code are there.
    pub(crate) fn publish(&self, len: usize) {
        self.len.store(len, Ordering::Relaxed);
        self.state.store(PUBLISHED, Ordering::Release);
    }

    /// No code comes here any more; says whether it was still to come.
    pub(crate) fn abandon(&self) -> bool {
        let (from, to) = (RESERVED, GIVEN_UP);
        let order = Ordering::AcqRel;
        self.state
            .compare_exchange(from, to, order, Ordering::Acquire)
            .is_ok()
    }
}

/// The functions of one region, by ascending offset.
pub(crate) struct Index(Table<Entry>);

impl Index {
    pub(crate) const fn new() -> Self {
        Self(Table::new())
    }

    /// Gets the memory for `more` entries; returns whether there was enough. The
    /// caller's lock keeps others from taking it.
    pub(crate) fn make_room(&self, more: usize) -> bool {
        self.0.make_room(more)
    }

    /// Adds an entry. The caller's lock makes sure that each lies behind the
    /// one before: the cursor of a region only grows.
    pub(crate) fn add(&self, entry: Entry) -> Option<usize> {
        self.0.push(entry).ok()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Entry> {
        self.0.get(index)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.0.iter()
    }

    /// Whether a function begins at `offset`, published or still to come.
    pub(crate) fn begins_at(&self, offset: usize) -> bool {
        let entry = self.0.last_where(|entry| entry.offset <= offset);
        entry.is_some_and(|entry| entry.offset == offset && !entry.is_given_up())
    }

    /// The published function that has a byte at `offset`.
    pub(crate) fn at(&self, offset: usize) -> Option<&Entry> {
        let entry = self.0.last_where(|entry| entry.offset <= offset)?;
        (entry.is_published() && offset - entry.offset < entry.len()).then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_published_functions_are_found() {
        let index = Index::new();
        index.add(Entry::published(16, 10, "first".into())).unwrap();
        let second = index.add(Entry::reserved(32, 8, "second".into())).unwrap();
        let third = index.add(Entry::reserved(48, 8, "third".into())).unwrap();
        let name = |at| index.at(at).map(|entry| &*entry.name);
        assert_eq!([name(15), name(26), name(35)], [None; 3]);
        assert_eq!([name(16), name(25)], [Some("first"); 2]);
        index.get(second).unwrap().publish(7);
        assert_eq!([name(32), name(38)], [Some("second"); 2]);
        assert_eq!([name(31), name(39)], [None; 2]);
        assert!(index.begins_at(32) && index.begins_at(48) && !index.begins_at(33));
        assert!(!index.get(second).unwrap().abandon());
        assert!(index.get(third).unwrap().abandon());
        assert!(!index.get(third).unwrap().abandon());
        assert_eq!((name(48), index.begins_at(48)), (None, false));
    }
}
