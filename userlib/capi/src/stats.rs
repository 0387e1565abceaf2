// SPDX-License-Identifier: MIT OR Apache-2.0

//! The counters of a region.

use crate::guard::Failure;
use crate::pointer;
use crate::versioned::{self, Versioned};
use rust::Stats;

/// The counters of a region since it was made.
#[repr(C)]
pub struct jitfd_stats {
    /// In: sizeof(struct jitfd_stats).
    pub size: usize,
    /// Bytes that the region has room for.
    pub capacity: u64,
    /// Bytes published, reserved or skipped.
    pub cursor: u64,
    /// Calls that published.
    pub publications: u64,
    /// Chunks they published.
    pub segments: u64,
    /// Bytes they published.
    pub bytes: u64,
    /// Page-table entries pointed to a newer version of a page.
    pub swaps: u64,
    /// Pages written without a new version, since no CPU could see them.
    pub in_place: u64,
    /// Stale traps that were resumed.
    pub fixups: u64,
    /// Versions of pages that were replaced.
    pub retired: u64,
    /// Of these, those that were freed.
    pub freed: u64,
    /// Batched flushes of other CPUs.
    pub flushes: u64,
    /// Interrupts that these sent.
    pub ipis: u64,
    /// Flushes for a fill across two live pages; part of flushes.
    pub straddles: u64,
    /// 1 if the region is sealed, else 0.
    pub sealed: u64,
    /// Blank pages that are kept for the next publications.
    pub pooled: u64,
}

// SAFETY: `repr(C)`, words; zero is a value of all.
unsafe impl Versioned for jitfd_stats {
    const FIRST: usize = 120;
}

impl jitfd_stats {
    /// Gets counters and fills the caller's struct with them.
    ///
    /// # Safety
    /// `stats` is null or points to such a struct of the size it says.
    pub(crate) unsafe fn store(
        stats: *mut Self,
        get: impl FnOnce() -> Result<Stats, Failure>,
    ) -> Result<(), Failure> {
        pointer::wanted(stats)?;
        // SAFETY: as promised by the caller.
        unsafe {
            versioned::check(stats)?;
            versioned::write(stats, &Self::from(get()?))
        }
    }
}

fn word(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

impl From<Stats> for jitfd_stats {
    fn from(stats: Stats) -> Self {
        Self {
            size: size_of::<Self>(),
            capacity: word(stats.capacity),
            cursor: word(stats.cursor),
            publications: stats.publications,
            segments: stats.segments,
            bytes: stats.bytes,
            swaps: stats.swaps,
            in_place: stats.in_place,
            fixups: stats.fixups,
            retired: stats.retired,
            freed: stats.freed,
            flushes: stats.flushes,
            ipis: stats.ipis,
            straddles: stats.straddles,
            sealed: stats.sealed.into(),
            pooled: stats.pooled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_ends_before_pooled() {
        let first = std::mem::offset_of!(jitfd_stats, pooled);
        assert_eq!(first, jitfd_stats::FIRST);
    }
}
