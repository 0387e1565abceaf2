// SPDX-License-Identifier: GPL-2.0
//! Every number and name that the module promises and these tests compare with.

use std::time::Duration;

/// The user that attacks.
pub const ATTACKER: u32 = 1000;
/// The user that must not notice.
pub const VICTIM: u32 = 1001;

pub const MIB: u64 = 1 << 20;

/// The parameter that bounds the pages of a user, and that of its regions.
pub const USER_PAGES: &str = "user_pages";
pub const USER_REGIONS: &str = "user_regions";
/// The parameters that bound what all users together have.
pub const TOTAL_REGIONS: &str = "total_regions";
pub const TOTAL_MAPPINGS: &str = "total_mappings";
/// The parameter that bounds the mappings of a region that is not sealed: by one
/// address space of its own user, or by another user; and its default.
pub const HOLDER_MAPPINGS: &str = "holder_mappings";
pub const DEFAULT_MAPPINGS: usize = 256;
/// The parameter that bounds the replaced pages of a region, and the least that it
/// takes: two for each segment of a publication.
pub const RETIRED_REGION: &str = "retired_region=2048";

/// One user may have this part of the machine's memory, if no parameter says
/// otherwise; and is not refused before this part.
pub const LARGEST_SHARE: u64 = 8;
pub const SMALLEST_SHARE: u64 = 64;

/// What a publication may take beside pages on the user's account: a few blank
/// pages for each call under way, what describes pages, and what the kernel keeps
/// for each CPU.
pub const BESIDE_QUOTA: u64 = 2 * MIB;
/// What a region that has published nothing may take, in bytes.
pub const A_REGION: u64 = 20 << 10;
/// What a region may take beside the pages that it has paid for: its files, and its
/// mapping.
pub const BESIDE_REGION: u64 = 8 << 10;
/// What a publication may take beside the code that it publishes.
pub const BESIDE_CODE: u64 = 2 * MIB;

/// A counter of memory that is shown may be off by so much: the kernel collects
/// changes on each CPU before it adds them.
pub const BLUR: u64 = MIB / 2;

/// How much slower a victim's publications may be on average while others do their
/// worst on the same two CPUs.
pub const SLOWER: u32 = 50;
/// How much slower an owner's publications may be while another holds mappings of
/// other pages of the region.
pub const SLOWER_BY_OTHER_PAGES: u32 = 5;
/// The same for mappings of the very page.
pub const SLOWER_BY_SAME_PAGE: u32 = 60;

/// So long nothing may move: somebody waits for what can't happen.
pub const STALL: Duration = Duration::from_secs(2);

/// Words of `JIT_STATS`: flushes of the region's own, and interrupts that the module
/// sent for it.
pub const FLUSHES: usize = 10;
pub const IPIS: usize = 11;

/// Words of `JIT_STATS`: user-TLB flushes that were done at a tick for pages of
/// this region, and ticks or interrupts that found another address space loaded and
/// so did nothing.
pub const TICKS: usize = 15;
pub const SPARED: usize = 16;
