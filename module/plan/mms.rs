// SPDX-License-Identifier: GPL-2.0

//! Which address spaces a flush is about (rule R6): a CPU that runs another one
//! is left alone, since it flushes before it comes back.

/// Words of [`Mms`].
pub const MM_WORDS: usize = 4;

/// Some address spaces, by a hash: it may hold others too, whose CPUs then flush
/// for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mms([u64; MM_WORDS]);

impl Mms {
    /// None.
    pub const fn none() -> Self {
        Mms([0; MM_WORDS])
    }

    /// The words, for [`Mms::from_words`].
    pub const fn words(self) -> [u64; MM_WORDS] {
        self.0
    }

    /// Those of `words`, as another of these had them.
    pub const fn from_words(words: [u64; MM_WORDS]) -> Self {
        Mms(words)
    }

    /// The word and the bit of an address space.
    const fn place(mm: usize) -> (usize, u64) {
        // Address spaces are objects of some kilobytes; the top bits of the
        // product depend on all of the address.
        let hash = (mm >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        (hash / 64 % MM_WORDS, 1 << (hash % 64))
    }

    /// Adds `mm`.
    pub fn add(&mut self, mm: usize) {
        let (word, bit) = Mms::place(mm);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    /// Adds all of `other`.
    pub fn union(&mut self, other: &Mms) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }

    /// Whether `mm` may be one of them. Never false for one that was added.
    pub fn may_hold(&self, mm: usize) -> bool {
        let (word, bit) = Mms::place(mm);
        self.0.get(word).is_none_or(|word| word & bit != 0)
    }
}
