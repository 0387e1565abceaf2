// SPDX-License-Identifier: GPL-2.0

//! Which rules the modelled module keeps. All of them by default; a mutation
//! drops one, and the explorer must then find what it was there for.

/// A rule, or a part of one, that is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Drop {
    /// R1: a version that is mapped is written.
    ReplaceMapped,
    /// R1: whether a page was seen is not looked at again under the slot lock.
    RecheckSeen,
    /// R2: a page without code is mapped executable, full of 0xCC.
    AbsentNotMapped,
    /// R3: pages go from first to last.
    Descending,
    /// R4: entries first, then the slot.
    SlotFirst,
    /// R5: every #BP is delivered.
    Resume,
    /// R5: every #BP is resumed.
    Deliver,
    /// R5: `CD 03` is taken for a stale 0xCC.
    TellInt3,
    /// R5: the handler steps back without a flush.
    FlushBeforeRetry,
    /// R5: code that looks like `CD 03` is published without a flush.
    AmbiguousFlush,
    /// R5: the same where the `03` was there before.
    AmbiguousBefore,
    /// R6: a replaced page is freed when its entries are swapped.
    WaitForCpus,
    /// R6: at its tick each CPU is taken for one that runs something else: it
    /// counts, and flushes nothing.
    FlushAtTick,
    /// R6: the same at an interrupt.
    FlushAtInterrupt,
    /// R6: only the last address space is noted, so CPUs that run another one
    /// of those concerned are spared.
    AllMms,
    /// R6: a CPU is taken out of the CPU mask while it has the address space loaded.
    LeaveUnloaded,
    /// R6: the generation is not bumped, so a switch does not flush.
    Bump,
    /// R6: the CPU mask is read before the generation is bumped.
    BumpBeforeMask,
    /// R6: an acknowledgement of an earlier epoch counts for this one.
    Epoch,
    /// An entry that is not there is taken for one that was flushed, also
    /// while the kernel has yet to flush it.
    PendingFlush,
    /// An entry that a fault has pointed to the newest version already is
    /// written again, which clears its Accessed bit.
    KeepAccessed,
    /// Fill: nothing is flushed before an instruction crosses into a live page.
    StraddleFlush,
    /// R11: only the version just replaced is thought of, not those before it.
    Outdated,
    /// R12: the epoch is drawn before the entries are swapped.
    EpochAfterSwap,
    /// R12: a timer reads the epoch that it notes after it has flushed.
    EpochFirst,
    /// R12: an epoch counts as over when it starts.
    DoneAtEnd,
    /// R13: every page is outdated as long as some page of the region waits.
    PerPage,
    /// R13: a page's ticket is forgotten when a version is replaced that nobody
    /// has used.
    KeepTicket,
    /// R13: a page is marked with the ticket of the publication before.
    OwnTicket,
    /// A flush of the region's own is only for what the publication under way
    /// has replaced.
    FlushEarlier,
    /// It forgets CPUs of pages that wait when the next page begins to wait.
    KeepBefore,
    /// It also ends the wait of what that publication has yet to replace.
    EndEarlierOnly,
    /// `PUBLISH_SYNC` ends without a flush.
    SyncFlush,
}

/// The rules of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    dropped: Option<Drop>,
}

impl Drop {
    /// All of them.
    pub const ALL: [Drop; 33] = [
        Drop::ReplaceMapped,
        Drop::RecheckSeen,
        Drop::AbsentNotMapped,
        Drop::Descending,
        Drop::SlotFirst,
        Drop::Resume,
        Drop::Deliver,
        Drop::TellInt3,
        Drop::FlushBeforeRetry,
        Drop::AmbiguousFlush,
        Drop::AmbiguousBefore,
        Drop::WaitForCpus,
        Drop::FlushAtTick,
        Drop::FlushAtInterrupt,
        Drop::AllMms,
        Drop::LeaveUnloaded,
        Drop::Bump,
        Drop::BumpBeforeMask,
        Drop::Epoch,
        Drop::PendingFlush,
        Drop::KeepAccessed,
        Drop::StraddleFlush,
        Drop::Outdated,
        Drop::EpochAfterSwap,
        Drop::EpochFirst,
        Drop::DoneAtEnd,
        Drop::PerPage,
        Drop::KeepTicket,
        Drop::OwnTicket,
        Drop::FlushEarlier,
        Drop::KeepBefore,
        Drop::EndEarlierOnly,
        Drop::SyncFlush,
    ];
}

impl Rules {
    /// All but one.
    pub fn without(rule: Drop) -> Self {
        Rules {
            dropped: Some(rule),
        }
    }

    /// Whether `rule` is kept.
    pub fn keep(self, rule: Drop) -> bool {
        self.dropped != Some(rule)
    }
}
