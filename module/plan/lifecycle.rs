// SPDX-License-Identifier: GPL-2.0

//! What is done to one page of a region: by a publication, and by a fault.
//!
//! ```text
//!            publish             fault or swap installs a PTE
//!   Absent ───────────▶ Unseen ───────────────────────────────▶ Live
//!      ▲                 │  ▲                                  │  ▲
//!      │                 └──┘ publish: in place                └──┘ publish:
//!   never mapped,       no PTE has ever pointed here      a new version, PTEs
//!   any access: SIGBUS                                    swapped, old one retired
//! ```
//!
//! Rule R1 is the right-hand loop: a version that was ever mapped is replaced,
//! never written. Rule R2 is the left end: a page without published code has no
//! page-table entry at all, and x86 never caches a not-present entry.

/// What the world can have seen of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageState {
    /// Nothing was published on it.
    Absent,
    /// It has a version, and no page-table entry has ever pointed to it.
    Unseen,
    /// A page-table entry points, or has pointed, to its version.
    Live,
}

/// How a publication changes a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Give it a first version.
    Create,
    /// Write into its version.
    InPlace,
    /// Build the next version and swap the page-table entries to it.
    Replace,
}

/// Rule R1.
pub const fn change(state: PageState) -> Change {
    match state {
        PageState::Absent => Change::Create,
        PageState::Unseen => Change::InPlace,
        PageState::Live => Change::Replace,
    }
}

/// What a page fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultAction {
    /// Map the newest version.
    Install,
    /// There is no code: SIGBUS, as past the end of a mapped file.
    Refuse,
}

/// Rule R2, and rule R8 for writes.
pub const fn on_fault(state: PageState, is_write: bool) -> FaultAction {
    match state {
        PageState::Absent => FaultAction::Refuse,
        PageState::Unseen | PageState::Live if is_write => FaultAction::Refuse,
        PageState::Unseen | PageState::Live => FaultAction::Install,
    }
}

/// What the swap of one page found in the page-table entries it replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Swapped {
    /// Entries that were present and now point to the new version.
    pub entries: u32,
    /// Some of them had been used by a CPU, so a TLB may still hold them. An
    /// entry whose Accessed bit was never set was never cached.
    pub accessed: bool,
    /// A TLB may still hold an even older version of the page: one that was
    /// retired and is not known to be flushed ([`is_outdated`](super::ledger::is_outdated)).
    pub outdated: bool,
}

impl Swapped {
    /// Whether a TLB may hold any version of the page but the newest.
    pub const fn may_be_stale(self) -> bool {
        self.accessed || self.outdated
    }
}

/// The cross-page hazard of a fill (rule R3 does not cover it): the page after
/// this one was executable before this publication, a TLB may hold its old
/// version with a 0xCC tail, and an instruction reaches from this page into it.
/// Then all TLBs are flushed before this page is published.
pub const fn must_flush_before(crosses_after: bool, next_page: Swapped) -> bool {
    crosses_after && next_page.may_be_stale()
}

/// Whether a publication ends with a flush: the caller asked that no CPU can
/// see old bytes, and some CPU may.
pub const fn must_flush_after(sync_asked: bool, may_be_stale: bool) -> bool {
    sync_asked && may_be_stale
}
