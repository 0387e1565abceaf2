// SPDX-License-Identifier: GPL-2.0

//! What the module counts.

/// The module's counters that matter here, of one region.
#[derive(Clone, Copy, Debug, Default)]
pub struct Module {
    /// Page-table entries swapped.
    pub swaps: u64,
    /// Pages written in place.
    pub in_place: u64,
    /// Stale #BP traps resumed.
    pub fixups: u64,
    /// Batched flushes.
    pub flushes: u64,
    /// Interrupts that these sent.
    pub ipis: u64,
    /// Pages replaced.
    pub retired: u64,
    /// Pages given back.
    pub freed: u64,
}
