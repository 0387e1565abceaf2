// SPDX-License-Identifier: GPL-2.0

//! What a #BP in user mode means: a stale 0xCC that has code by now, or a trap
//! that belongs to the program. Rule R5.

use super::abi::FILL;

/// The two bytes before the saved instruction pointer, as far as they can be
/// told. In the `int3` that a 0xCC is, `last` is the trapping byte itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// The byte at ip - 2.
    pub before_last: Option<u8>,
    /// The byte at ip - 1.
    pub last: Option<u8>,
}

impl Bytes {
    /// Nobody has looked.
    pub const UNKNOWN: Bytes = Bytes {
        before_last: None,
        last: None,
    };
}

/// Where the bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From the newest versions that the module holds.
    Authoritative(Bytes),
    /// From memory that is none of the module's.
    Foreign(Bytes),
    /// What is mapped there is being changed at this moment: nobody can tell.
    Contended,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Flush the address on this CPU, step back by one byte, run again.
    Resume,
    /// The program gets its SIGTRAP.
    Deliver,
    /// Ask again where one may sleep.
    Later,
}

/// The first byte of `CD 03`, the two-byte form of int 3.
pub const INT_IMM8: u8 = 0xcd;
/// The second.
const IMM_3: u8 = 0x03;

/// Whether the trap was, or must be taken to be, `CD 03`. It ends at the same
/// ip as a 0xCC at ip - 1 and is never stale: 0xCC is all that is ever stale.
/// Code that holds these two bytes next to each other is published with a
/// flush (see [`looks_like_int_3`]), so a stale trap can't be mistaken for it.
const fn is_int_3(bytes: Bytes) -> bool {
    matches!(
        (bytes.before_last, bytes.last),
        (Some(INT_IMM8), Some(IMM_3))
    )
}

/// Rule R5, for a DIE_INT3 from user mode in an address space that maps a
/// region.
pub const fn verdict(source: Source) -> Verdict {
    match source {
        Source::Authoritative(bytes) | Source::Foreign(bytes) => match bytes.last {
            Some(FILL) | None => Verdict::Deliver,
            Some(_) if is_int_3(bytes) => Verdict::Deliver,
            // Foreign: the int3 is gone. Running what has taken its place is as
            // if the thread had come a moment later.
            Some(_) => Verdict::Resume,
        },
        Source::Contended => Verdict::Later,
    }
}

/// What to do if asking again later is impossible, by the program's own view of
/// the bytes. Running a 0xCC once more is harmless: it traps again.
pub const fn verdict_now(bytes: Bytes) -> Verdict {
    if is_int_3(bytes) {
        Verdict::Deliver
    } else {
        Verdict::Resume
    }
}

/// How often a thread was sent back to the place of its last trap. Threads may
/// share one number, so it may be another thread's: nothing right depends on it,
/// only how soon an end is reached. User addresses have 56 bits at most; the lower
/// 8 of the word count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries(u64);

/// Retries after which a thread sleeps before the next one: then it is likely
/// that it keeps the very publisher from running that it waits for.
pub const PATIENCE: u64 = 32;

impl Retries {
    /// None, anywhere.
    pub const NONE: Retries = Retries(0);

    /// What [`Retries::word`] returned.
    pub const fn from_word(word: u64) -> Retries {
        Retries(word)
    }

    /// As a word.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// After one more at `trap`.
    pub const fn and_one(self, trap: u64) -> Retries {
        let here = trap << 8;
        match self.0 ^ here {
            // Less than that only if it was there.
            retries if retries < PATIENCE => Retries(self.0 + 1),
            PATIENCE => self,
            _ => Retries(here | 1),
        }
    }

    /// Whether the thread must sleep before the next one at `trap`.
    pub const fn are_enough(self, trap: u64) -> bool {
        self.0 == trap << 8 | PATIENCE
    }
}

/// Whether publishing a span between the bytes `before` and `after` puts the
/// bytes `CD 03` next to each other. A trap there could not be told from
/// `int 3`, so such a publication leaves no stale entry behind: it is followed
/// by a flush. `pieces` are the span's bytes, in order.
pub fn looks_like_int_3<'a>(
    before: Option<u8>,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    after: Option<u8>,
) -> bool {
    let mut last = before;
    for piece in pieces {
        if last == Some(INT_IMM8) && wants_before(piece) || holds_int_3(piece) {
            return true;
        }
        last = piece.last().copied().or(last);
    }
    last == Some(INT_IMM8) && after == Some(IMM_3)
}

/// Whether [`looks_like_int_3`] depends on the byte before bytes that begin
/// with `piece`.
pub fn wants_before(piece: &[u8]) -> bool {
    piece.first() == Some(&IMM_3)
}

/// Whether [`looks_like_int_3`] depends on the byte after bytes that end with
/// `piece`.
pub fn wants_after(piece: &[u8]) -> bool {
    piece.last() == Some(&INT_IMM8)
}

/// Bytes that [`may_hold_cd`] looks at together.
const STEP: usize = 32;

/// Whether `bytes` hold `CD 03`. Looks closely only where a few bytes hold a
/// 0xCD, which is rare in code.
fn holds_int_3(bytes: &[u8]) -> bool {
    let is_pair = |pair: &[u8]| pair == [INT_IMM8, IMM_3];
    bytes.chunks(STEP).enumerate().any(|(index, few)| {
        let from = index.saturating_mul(STEP);
        // The pair may begin with the last of them.
        let near = || {
            bytes
                .get(from..)
                .map(|rest| &rest[..rest.len().min(STEP + 1)])
        };
        may_hold_cd(few) && near().is_some_and(|near| near.windows(2).any(is_pair))
    })
}

/// Whether one of [`STEP`] bytes is 0xCD; of fewer, whether one may be.
fn may_hold_cd(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    const CD: u64 = u64::from_le_bytes([INT_IMM8; 8]);
    let Ok(bytes) = <&[u8; STEP]>::try_from(bytes) else {
        return bytes.contains(&INT_IMM8);
    };
    let found = bytes.chunks_exact(8).fold(0, |found, word| {
        let word = word.try_into().map_or(CD, u64::from_le_bytes) ^ CD;
        // A byte that is zero borrows into its highest bit.
        found | (word.wrapping_sub(ONES) & !word & HIGH)
    });
    found != 0
}
