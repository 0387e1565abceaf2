// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the compiler and the executors share. No locks: each word below has one
//! writer at a time, and a reader that sees a place sees code that was
//! published before (release and acquire).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The functions and who waits for which.
pub struct Table {
    /// By function: its offset in the region plus 1, or 0.
    places: Vec<AtomicUsize>,
    /// In the order of publication: the functions.
    order: Vec<AtomicUsize>,
    /// How many of `order` are set.
    published: AtomicUsize,
    /// By executor: the function it waits for, plus 1, or 0.
    wanted: Vec<AtomicUsize>,
    /// How many executors are done.
    finished: AtomicUsize,
    /// The compiler has failed.
    abandoned: AtomicBool,
}

impl Table {
    pub fn new(functions: usize, executors: usize) -> Self {
        let zeros = |count: usize| (0..count).map(|_| AtomicUsize::new(0)).collect();
        Self {
            places: zeros(functions),
            order: zeros(functions),
            published: AtomicUsize::new(0),
            wanted: zeros(executors),
            finished: AtomicUsize::new(0),
            abandoned: AtomicBool::new(false),
        }
    }

    pub fn functions(&self) -> usize {
        self.places.len()
    }

    /// The offset of a function in the region, once it is published.
    pub fn offset(&self, id: usize) -> Option<usize> {
        self.places[id].load(Ordering::Acquire).checked_sub(1)
    }

    /// Called by the compiler, right after it published the function.
    pub fn publish(&self, id: usize, offset: usize) {
        self.places[id].store(offset + 1, Ordering::Release);
        let number = self.published.load(Ordering::Relaxed);
        self.order[number].store(id, Ordering::Relaxed);
        self.published.store(number + 1, Ordering::Release);
    }

    /// The functions that were published last, `count` at most, oldest first.
    pub fn newest(&self, count: usize) -> impl Iterator<Item = usize> + '_ {
        let published = self.published.load(Ordering::Acquire);
        let last = &self.order[published.saturating_sub(count)..published];
        last.iter().map(|id| id.load(Ordering::Relaxed))
    }

    /// An executor asks for a function.
    pub fn want(&self, executor: usize, id: usize) {
        self.wanted[executor].store(id + 1, Ordering::Release);
    }

    /// What the executors ask for now; each request is returned once.
    pub fn requests(&self) -> impl Iterator<Item = usize> + '_ {
        self.wanted.iter().filter_map(|slot| {
            // Most slots are empty most of the time, and looking is cheaper.
            let set = slot.load(Ordering::Relaxed) != 0;
            let wanted = if set {
                slot.swap(0, Ordering::Acquire)
            } else {
                0
            };
            wanted.checked_sub(1)
        })
    }

    /// An executor is done.
    pub fn finish(&self) {
        self.finished.fetch_add(1, Ordering::Release);
    }

    /// Whether all executors are done.
    pub fn all_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire) == self.wanted.len()
    }

    /// No function will be published any more.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn the_newest_functions_are_known_in_order() {
        let table = Table::new(5, 1);
        for id in [3, 0, 4] {
            table.publish(id, 16 * id);
        }
        assert_eq!(table.newest(2).collect::<Vec<_>>(), [0, 4]);
        assert_eq!(table.newest(9).collect::<Vec<_>>(), [3, 0, 4]);
        assert_eq!((table.offset(4), table.offset(1)), (Some(64), None));
    }

    #[test]
    fn a_request_is_returned_once() {
        let table = Table::new(5, 2);
        table.want(1, 0);
        assert_eq!(table.requests().collect::<Vec<_>>(), [0]);
        assert_eq!(table.requests().count(), 0);
    }
}
