// SPDX-License-Identifier: GPL-2.0

//! Which functions exist: one word each, in memory that all processes of a
//! round share. Zero until published; then the offset in the region, plus one.

use crate::sys;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What all processes of a round share.
#[repr(C)]
pub struct Shared {
    /// Set when everybody is to end.
    pub stop: AtomicUsize,
    /// Calls made, of all processes.
    pub calls: AtomicU64,
    /// The next function to be published.
    pub next: AtomicUsize,
    /// Forks made.
    pub forks: AtomicU64,
    /// Mappings made and unmade.
    pub remaps: AtomicU64,
    /// Signals sent.
    pub signals: AtomicU64,
    /// CPUs taken off line.
    pub offlined: AtomicU64,
}

/// The functions of a round.
pub struct Board {
    shared: &'static Shared,
    words: &'static [AtomicU64],
}

impl Board {
    /// An empty board. It is never unmapped: a process runs few rounds.
    pub fn new(functions: usize) -> Self {
        let (shared, words) = sys::shared_board(functions);
        Board { shared, words }
    }

    /// The rest of what is shared.
    pub fn shared(&self) -> &'static Shared {
        self.shared
    }

    /// How many functions there will be.
    pub fn capacity(&self) -> usize {
        self.words.len()
    }

    /// Function `id` is at `offset` now.
    pub fn announce(&self, id: usize, offset: usize) {
        self.words[id].store(offset as u64 + 1, Ordering::Release);
    }

    /// Where function `id` is, if it is anywhere.
    pub fn find(&self, id: usize) -> Option<usize> {
        let word = self.words[id].load(Ordering::Acquire);
        word.checked_sub(1).map(|offset| offset as usize)
    }

    /// Takes numbers for `count` functions.
    pub fn take(&self, count: usize) -> Option<usize> {
        let first = self.shared.next.fetch_add(count, Ordering::Relaxed);
        (first + count <= self.capacity()).then_some(first)
    }

    /// Whether everybody is to end.
    pub fn is_over(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed) != 0
    }
}
