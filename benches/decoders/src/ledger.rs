// SPDX-License-Identifier: GPL-2.0

//! What a check notes about a chunk, and the verdict.

use crate::Sample;

/// Where instructions start and branches go: two bits for each byte.
pub struct Ledger {
    len: usize,
    starts: Vec<u64>,
    targets: Vec<u64>,
}

/// What a decoder says about the instruction at some place.
pub struct Decoded {
    pub len: usize,
    /// Of a direct branch, from its end.
    pub displacement: Option<i64>,
}

impl Ledger {
    fn new(len: usize) -> Self {
        let words = len.div_ceil(64);
        Self {
            len,
            starts: vec![0; words],
            targets: vec![0; words],
        }
    }

    #[inline]
    fn note(&mut self, at: usize, decoded: &Decoded) {
        self.starts[at / 64] |= 1 << (at % 64);
        if let Some(displacement) = decoded.displacement {
            let target = (at + decoded.len) as i64 + displacement;
            if (0..self.len as i64).contains(&target) {
                self.targets[target as usize / 64] |= 1 << (target % 64);
            }
        }
    }

    /// The number of instructions, if no branch goes wrong.
    fn judge(&self, code: &[u8]) -> Option<usize> {
        for (index, (targets, starts)) in self.targets.iter().zip(&self.starts).enumerate() {
            let mut wrong = targets & !starts;
            while wrong != 0 {
                let target = index * 64 + wrong.trailing_zeros() as usize;
                let before = target.checked_sub(1)?;
                let started = self.starts[before / 64] >> (before % 64) & 1 != 0;
                if !started || code[before] != 0xf0 {
                    return None;
                }
                wrong &= wrong - 1;
            }
        }
        Some(
            self.starts
                .iter()
                .map(|word| word.count_ones() as usize)
                .sum(),
        )
    }

    /// Runs `decode` over all code of the sample. It is given the bytes from an
    /// offset to the end of the run of code.
    #[inline]
    pub fn check<'a>(
        sample: &'a Sample,
        mut decode: impl FnMut(&'a [u8]) -> Option<Decoded>,
    ) -> Option<usize> {
        let code = &sample.bytes[..];
        let mut ledger = Self::new(code.len());
        for run in sample.runs() {
            let mut at = run.start;
            while at < run.end {
                let decoded = decode(&code[at..run.end])?;
                ledger.note(at, &decoded);
                at += decoded.len;
            }
        }
        ledger.judge(code)
    }
}
