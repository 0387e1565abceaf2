// SPDX-License-Identifier: MIT OR Apache-2.0

//! What both fallbacks, dual mapping and mprotect flips, have in common.

use crate::abi;
use crate::error::Error;
use crate::os::sys::Mapped;
use crate::os::window::Window;
use std::fmt::Debug;
use std::ops::Range;

/// Bytes and where they go, in bytes from the start of the region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write<'a> {
    pub(crate) offset: usize,
    pub(crate) bytes: &'a [u8],
}

impl Write<'_> {
    /// Where the bytes go.
    pub(crate) const fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.bytes.len()
    }

    /// The pages that the bytes are on.
    pub(crate) fn pages(&self) -> Range<usize> {
        let Range { start, end } = self.range();
        start / abi::PAGE_SIZE..end.div_ceil(abi::PAGE_SIZE)
    }
}

/// What a publication has cost, in the kernel's terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Pages with code that were replaced by a newer version.
    pub(crate) swaps: u64,
    /// Pages that were written where they are, or had no code.
    pub(crate) in_place: u64,
    /// How often all CPUs had to be interrupted.
    pub(crate) flushes: u64,
}

/// The memory of one region. Its owner makes one call at a time, with offsets
/// inside the capacity, and publishes each byte once.
pub(crate) trait Memory: Debug + Send {
    /// Gets memory for the bytes of `range`, which follows what there was before.
    fn extend(&mut self, range: Range<usize>) -> Result<(), Error>;

    /// Publishes all of `writes`, which ascend and do not overlap, or nothing. What is
    /// not published does not stay, but may be there for a moment.
    fn publish(&mut self, writes: &[Write<'_>]) -> Result<Effects, Error>;

    /// Maps the first `len` bytes, readable and executable, inside of `window`.
    fn map(&self, window: Option<Window>, len: usize) -> Result<Mapped, Error>;

    /// Becomes memory of this process alone, with the same content: after a
    /// fork. `mapped` is the region's mapping; `free` is what was not published
    /// at the fork, whatever the parent has done since.
    fn adopt(&mut self, mapped: &Mapped, free: &[Range<usize>]) -> Result<(), Error>;

    /// Gives up what is needed to publish.
    fn seal(&mut self);
}
