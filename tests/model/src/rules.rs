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
    /// R6: a replaced page is freed when its entries are swapped.
    WaitForCpus,
    /// R6: a tick counts though it flushes nothing, as an RCU grace period.
    FlushAtTick,
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
    /// Only the version just replaced is thought of, not those before it.
    Outdated,
    /// `PUBLISH_SYNC` ends without a flush.
    SyncFlush,
}

/// The rules of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    dropped: Option<Drop>,
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
