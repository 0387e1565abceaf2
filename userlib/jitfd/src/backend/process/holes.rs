// SPDX-License-Identifier: MIT OR Apache-2.0

//! The ranges of a region that are reserved and not filled yet. Memory is got before
//! something is published, as noting a fill can't fail. Pure.

use std::ops::Range;

/// # Invariants
/// The ranges do not overlap. They ascend; some of them are empty, `empty` of them.
#[derive(Debug, Default)]
pub(crate) struct Holes {
    ranges: Vec<Range<usize>>,
    empty: usize,
}

impl Holes {
    /// Gets the memory to note `more` reservations, or fills; whether there was enough.
    pub(crate) fn make_room(&mut self, more: usize) -> bool {
        self.ranges.try_reserve(more).is_ok()
    }

    /// Adds a range behind all others, for which there is room.
    pub(crate) fn add(&mut self, range: Range<usize>) {
        self.ranges.push(range);
    }

    /// Where the range is that has all of `wanted`.
    fn find(&self, wanted: &Range<usize>) -> Option<usize> {
        let number = self.ranges.partition_point(|hole| hole.end <= wanted.start);
        let hole = self.ranges.get(number)?;
        (hole.start <= wanted.start && wanted.end <= hole.end).then_some(number)
    }

    pub(crate) fn has(&self, wanted: &Range<usize>) -> bool {
        self.find(wanted).is_some()
    }

    /// Takes `part` out of the range that has it. For one in the middle there is room.
    pub(crate) fn take(&mut self, part: &Range<usize>) {
        let Some(number) = self.find(part) else {
            return;
        };
        let Some(hole) = self.ranges.get_mut(number) else {
            return;
        };
        let before = hole.start..part.start;
        hole.start = part.end;
        let all = hole.start >= hole.end;
        // An end is cut off where it is; what follows is moved only for one in the
        // middle.
        if before.is_empty() {
            self.empty += usize::from(all);
        } else if all {
            *hole = before;
        } else {
            self.ranges.insert(number, before);
        }
        if self.empty > self.ranges.len() / 2 {
            self.ranges.retain(|hole| !hole.is_empty());
            self.empty = 0;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.ranges.iter().filter(|hole| !hole.is_empty()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Against a set of bytes. A range that was not reserved as one may be open as a
        /// whole all the same, so only ranges of one are filled.
        #[test]
        fn they_are_their_shadow(
            lens in prop::collection::vec(1_usize..12, 1..20),
            fills in prop::collection::vec((0_usize..20, 0_usize..12, 1_usize..12), 0..60),
        ) {
            let (mut holes, mut open) = (Holes::default(), BTreeSet::new());
            let mut ranges = Vec::new();
            let mut end = 0;
            for len in lens {
                let range = end + 1..end + 1 + len;
                end = range.end;
                prop_assert!(holes.make_room(1));
                holes.add(range.clone());
                open.extend(range.clone());
                ranges.push(range);
            }
            for (number, skip, len) in fills {
                let whole = &ranges[number % ranges.len()];
                let start = (whole.start + skip).min(whole.end - 1);
                let part = start..(start + len).min(whole.end);
                let free = part.clone().all(|byte| open.contains(&byte));
                prop_assert_eq!(holes.has(&part), free);
                if free {
                    prop_assert!(holes.make_room(1));
                    let room = holes.ranges.capacity();
                    holes.take(&part);
                    prop_assert_eq!(holes.ranges.capacity(), room);
                    open.retain(|byte| !part.contains(byte));
                }
                let left = holes.iter().flatten();
                prop_assert!(left.eq(open.iter().copied()));
                prop_assert!(!holes.has(&(end..end + 1)));
            }
        }
    }
}
