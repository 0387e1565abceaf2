// SPDX-License-Identifier: MIT OR Apache-2.0

//! The counters of a region, as the kernel keeps them.

use crate::abi;
use crate::num::to_usize;

/// The counters of one region since it was created.
///
/// ```
/// # fn main() -> Result<(), jitfd::Error> {
/// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
/// # let region = jit.region(1 << 20)?;
/// let stats = region.stats()?;
/// println!("{} of {} bytes used", stats.cursor, stats.capacity);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Capacity in bytes.
    pub capacity: usize,
    /// Bytes up to the cursor: published, reserved, or skipped for alignment.
    pub cursor: usize,
    /// Publications that succeeded: appends and fills.
    pub publications: u64,
    /// Chunks they published.
    pub segments: u64,
    /// Bytes they published.
    pub bytes: u64,
    /// Page-table entries that were swapped to a newer version of a page.
    pub swaps: u64,
    /// Pages written in place, because no CPU could see them.
    pub in_place: u64,
    /// Traps on old versions of pages that were resumed.
    pub fixups: u64,
    /// Page versions that were replaced.
    pub retired: u64,
    /// Replaced page versions whose memory was given back or used again.
    pub freed: u64,
    /// Batched flushes of translations.
    pub flushes: u64,
    /// Inter-processor interrupts that those flushes sent.
    pub ipis: u64,
    /// Chunks published across two pages in use, which cost a flush each (these
    /// are among `flushes`).
    pub straddles: u64,
    /// Whether the region is sealed.
    pub sealed: bool,
    /// Blank pages that are kept for the next publications. Given back when
    /// memory is short, or after a second or two without use.
    pub pooled: u64,
}

impl From<abi::Stats> for Stats {
    fn from(raw: abi::Stats) -> Self {
        Self {
            capacity: to_usize(raw.capacity),
            cursor: to_usize(raw.cursor),
            publications: raw.publications,
            segments: raw.segments,
            bytes: raw.bytes,
            swaps: raw.swaps,
            in_place: raw.in_place,
            fixups: raw.fixups,
            retired: raw.retired,
            freed: raw.freed,
            flushes: raw.flushes,
            ipis: raw.ipis,
            straddles: raw.straddles,
            sealed: raw.sealed != 0,
            pooled: raw.pooled,
        }
    }
}
