// SPDX-License-Identifier: MIT OR Apache-2.0

//! One bit per byte of code. Allocated once per chunk, never grown.

/// A fixed number of bits. Access beyond the end reads as 0 and writes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bitmap {
    words: Vec<u64>,
}

const fn split(bit: usize) -> (usize, u64) {
    (bit / 64, 1 << (bit % 64))
}

impl Bitmap {
    /// All bits are zero. `None` if there is no memory for them.
    pub(crate) fn new(bits: usize) -> Option<Self> {
        let (mut words, len) = (Vec::new(), bits.div_ceil(64));
        words.try_reserve_exact(len).ok()?;
        words.resize(len, 0);
        Some(Self { words })
    }

    /// Sets the bits that are set in `other`, whose first bit is bit `base`
    /// here, a multiple of 64.
    pub(crate) fn merge(&mut self, base: usize, other: &Self) {
        let words = self.words.get_mut(base / 64..).unwrap_or_default();
        for (word, more) in words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    #[inline]
    pub(crate) fn set(&mut self, bit: usize) {
        let (word, mask) = split(bit);
        if let Some(word) = self.words.get_mut(word) {
            *word |= mask;
        }
    }

    #[inline]
    pub(crate) fn get(&self, bit: usize) -> bool {
        let (word, mask) = split(bit);
        self.words.get(word).is_some_and(|word| word & mask != 0)
    }

    /// The 64 bits from `bit` on.
    pub(crate) fn window(&self, bit: usize) -> u64 {
        let at = |index| self.words.get(index).copied().unwrap_or(0);
        let (index, shift) = (bit / 64, bit % 64);
        match shift {
            0 => at(index),
            _ => at(index) >> shift | at(index + 1) << (64 - shift),
        }
    }

    /// The bits that are set here and not in `other`, in ascending order.
    pub(crate) fn missing_in<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = usize> + 'a {
        let others = other.words.iter().copied().chain(std::iter::repeat(0));
        self.words
            .iter()
            .zip(others)
            .enumerate()
            .flat_map(|(index, (here, there))| Ones(here & !there).map(move |bit| index * 64 + bit))
    }

    /// The last bit that is set before `bit`, at most `reach` bits away.
    pub(crate) fn last_before(&self, bit: usize, reach: usize) -> Option<usize> {
        (bit.saturating_sub(reach)..bit)
            .rev()
            .find(|&at| self.get(at))
    }
}

/// The numbers of the one bits of a word, ascending.
pub(crate) struct Ones(pub(crate) u64);

impl Iterator for Ones {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_kept_apart_and_the_end_is_safe() {
        let mut map = Bitmap::new(65).unwrap();
        map.set(0);
        map.set(64);
        map.set(1 << 40);
        assert!(map.get(0) && map.get(64));
        assert!(!map.get(1) && !map.get(63) && !map.get(1 << 40));
    }

    #[test]
    fn more_bits_than_there_is_memory_for_are_none() {
        assert_eq!(Bitmap::new(usize::MAX), None);
    }

    #[test]
    fn merged_bits_keep_their_places() {
        let (mut map, mut part) = (Bitmap::new(300).unwrap(), Bitmap::new(100).unwrap());
        map.set(130);
        [0, 2, 99].into_iter().for_each(|bit| part.set(bit));
        map.merge(128, &part);
        map.merge(1 << 20, &part);
        let all = Vec::from_iter((0..400).filter(|&bit| map.get(bit)));
        assert_eq!(all, [128, 130, 227]);
    }

    #[test]
    fn missing_lists_the_difference() {
        let (mut a, mut b) = (Bitmap::new(200).unwrap(), Bitmap::new(70).unwrap());
        (60..70).for_each(|bit| a.set(bit));
        a.set(199);
        (61..69).for_each(|bit| b.set(bit));
        assert_eq!(a.missing_in(&b).collect::<Vec<_>>(), [60, 69, 199]);
    }

    #[test]
    fn a_window_is_64_bits_from_anywhere() {
        let mut map = Bitmap::new(200).unwrap();
        [0, 63, 64, 130].into_iter().for_each(|bit| map.set(bit));
        for from in 0..260 {
            let bits = (0..64).filter(|&bit| map.get(from + bit));
            assert_eq!(
                map.window(from),
                bits.fold(0, |word, bit| word | 1 << bit),
                "{from}"
            );
        }
    }

    #[test]
    fn last_before_has_a_reach() {
        let mut map = Bitmap::new(64).unwrap();
        map.set(3);
        assert_eq!(map.last_before(4, 15), Some(3));
        assert_eq!(map.last_before(3, 15), None);
        assert_eq!(map.last_before(19, 15), None);
        assert_eq!(map.last_before(18, 15), Some(3));
    }
}
