// SPDX-License-Identifier: MIT OR Apache-2.0

//! How the bytes of a code space are used.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How the bytes of a [`CodeSpace`](super::CodeSpace) are used; all but
/// `regions` and `functions` are in bytes.
///
/// `published + reserved + wasted + free = capacity`, unless another thread is
/// at work meanwhile.
///
/// ```
/// use jitfd::space::{Request, SpaceStats};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
/// # let space = jit.space(jitfd::space::SpaceOptions::default())?;
/// space.reserve(&Request::new(100))?;
/// let SpaceStats { regions, capacity, published, reserved, wasted, free, .. } = space.stats();
/// assert_eq!((regions, published, reserved), (1, 0, 100));
/// assert_eq!(wasted, 16); // the trap bytes before the first function
/// assert_eq!(free, capacity - 116);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpaceStats {
    /// Regions there are.
    pub regions: usize,
    /// Functions published.
    pub functions: usize,
    /// The capacity of all regions.
    pub capacity: usize,
    /// Code and data that was published.
    pub published: usize,
    /// Reserved and not published (yet).
    pub reserved: usize,
    /// Skipped for alignment or by shorter code than was reserved, and the trap
    /// bytes at the start of each region.
    pub wasted: usize,
    /// Behind the last function of each region.
    pub free: usize,
}

impl SpaceStats {
    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            regions: self.regions + other.regions,
            functions: self.functions + other.functions,
            capacity: self.capacity + other.capacity,
            published: self.published + other.published,
            reserved: self.reserved + other.reserved,
            wasted: self.wasted + other.wasted,
            free: self.free + other.free,
        }
    }
}

/// The counts of one region, in bytes but for `functions`.
#[derive(Debug, Default)]
pub(super) struct Counts {
    functions: AtomicUsize,
    published: AtomicUsize,
    reserved: AtomicUsize,
    /// The end of what is in use, from the start of the region.
    end: AtomicUsize,
}

impl Counts {
    /// Bytes before this offset are in use. Offsets come in ascending order.
    pub(super) fn used_up_to(&self, end: usize) {
        self.end.fetch_max(end, Relaxed);
    }

    pub(super) fn end(&self) -> usize {
        self.end.load(Relaxed)
    }

    pub(super) fn reserved(&self, len: usize) {
        self.reserved.fetch_add(len, Relaxed);
    }

    pub(super) fn published(&self, functions: usize, len: usize) {
        self.functions.fetch_add(functions, Relaxed);
        self.published.fetch_add(len, Relaxed);
    }

    /// A reserved range is used or given up.
    pub(super) fn settled(&self, len: usize) {
        self.reserved.fetch_sub(len, Relaxed);
    }

    pub(super) fn read(&self, capacity: usize) -> SpaceStats {
        let (published, reserved) = (self.published.load(Relaxed), self.reserved.load(Relaxed));
        let end = self.end();
        SpaceStats {
            regions: 1,
            functions: self.functions.load(Relaxed),
            capacity,
            published,
            reserved,
            wasted: end.saturating_sub(published + reserved),
            free: capacity.saturating_sub(end),
        }
    }
}
