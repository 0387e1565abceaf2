// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which slots of which copies are free. Pure.
//!
//! A bit is a slot. Slot 0 of each copy is its owner's and never taken. Slots are
//! taken from the first copy that has some, so that the later ones run empty. Of the copies of which everything is free one is kept, the
//! spare, and used last: a program that frees and binds at the edge of a copy does
//! not have it unmapped and mapped again each time.

/// Slots of one copy: bit `n` is slot `first + n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) copy: usize,
    pub(crate) first: usize,
    pub(crate) bits: u64,
}

impl Run {
    /// The numbers of the slots in their copy.
    pub(crate) fn slots(self) -> impl Iterator<Item = usize> {
        let set = move |bit: &usize| self.bits & (1 << bit) != 0;
        (0..BITS).filter(set).map(move |bit| self.first + bit)
    }
}

const BITS: usize = 64;

/// What became of the copy of a slot that was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// It stays.
    Kept,
    /// It is known no more: everything in it was free, and there is a spare.
    Emptied,
    /// The slot was not taken, or there is no such slot. Nothing was changed.
    NotTaken,
}

/// # Invariants
/// * `free` of a copy is the number of its bits that are set.
/// * No copy below `lowest` has a free slot.
/// * All numbers below `vacant` have a copy.
/// * If there is a spare, all its slots are free.
#[derive(Debug)]
pub(crate) struct Slots {
    /// The slots of a copy, a multiple of 64.
    capacity: usize,
    copies: Vec<Option<Copy>>,
    lowest: usize,
    vacant: usize,
    spare: Option<usize>,
    taken: usize,
}

#[derive(Debug)]
struct Copy {
    free: usize,
    /// No word below it has a bit set.
    lowest: usize,
    words: Box<[u64]>,
}

impl Copy {
    /// Up to `most` slots of one word: the first of it, and their bits.
    fn take(&mut self, most: usize) -> Option<(usize, u64)> {
        let words = self.words.get_mut(self.lowest..)?;
        let at = words.iter().position(|&word| word != 0)?;
        self.lowest += at;
        let word = words.get_mut(at)?;
        let mut left = *word;
        for _ in 0..most {
            left &= left.wrapping_sub(1);
        }
        let bits = *word & !left;
        *word = left;
        self.free = self.free.saturating_sub(count(bits));
        Some((self.lowest * BITS, bits))
    }

    /// How many are free then; `None` if the slot was not taken.
    fn give(&mut self, slot: usize) -> Option<usize> {
        let (at, bit) = (slot / BITS, 1 << (slot % BITS));
        match self.words.get_mut(at) {
            Some(word) if *word & bit == 0 && slot != 0 => *word |= bit,
            _ => return None,
        }
        self.free += 1;
        self.lowest = self.lowest.min(at);
        Some(self.free)
    }
}

const fn count(bits: u64) -> usize {
    bits.count_ones() as usize
}

impl Slots {
    /// For copies of `capacity` slots, a multiple of 64. There is none yet.
    pub(crate) const fn new(capacity: usize) -> Self {
        Self {
            capacity,
            copies: Vec::new(),
            lowest: 0,
            vacant: 0,
            spare: None,
            taken: 0,
        }
    }

    /// The slots of a copy that can be taken.
    const fn all(&self) -> usize {
        self.capacity.saturating_sub(1)
    }

    /// How many slots are taken.
    pub(crate) const fn taken(&self) -> usize {
        self.taken
    }

    /// The number that the next copy will have.
    pub(crate) fn next_copy(&self) -> usize {
        let mut further = self.copies.iter().skip(self.vacant);
        let vacant = further.position(Option::is_none);
        vacant.map_or(self.copies.len(), |distance| self.vacant + distance)
    }

    /// One more copy, with everything free. Returns its number, the lowest that no
    /// copy has; `None` if there is no memory for it.
    pub(crate) fn add(&mut self) -> Option<usize> {
        let number = self.next_copy();
        let mut words = Vec::new();
        words.try_reserve_exact(self.capacity / BITS).ok()?;
        words.resize(self.capacity / BITS, u64::MAX);
        self.copies.try_reserve(1).ok()?;
        if let Some(first) = words.first_mut() {
            *first &= !1;
        }
        let copy = Copy {
            free: self.all(),
            lowest: 0,
            words: words.into(),
        };
        match self.copies.get_mut(number) {
            Some(vacant) => *vacant = Some(copy),
            None => self.copies.push(Some(copy)),
        }
        self.vacant = number + 1;
        self.lowest = self.lowest.min(number);
        self.spare.get_or_insert(number);
        Some(number)
    }

    /// Takes between one and `most` free slots; `None` if there is none.
    pub(crate) fn take(&mut self, most: usize) -> Option<Run> {
        let most = most.min(BITS);
        if most == 0 {
            return None;
        }
        let copy = self.first_with_some()?;
        let (first, bits) = self.copies.get_mut(copy)?.as_mut()?.take(most)?;
        self.taken += count(bits);
        Some(Run { copy, first, bits })
    }

    /// The copy to take from; the spare, which is none then, if no other is left.
    fn first_with_some(&mut self) -> Option<usize> {
        let spare = self.spare;
        let has_some = |(number, copy): (usize, &Option<Copy>)| {
            let some = copy.as_ref().is_some_and(|copy| copy.free > 0);
            (some && Some(number) != spare).then_some(number)
        };
        let mut others = self.copies.iter().enumerate().skip(self.lowest);
        let found = others.find_map(has_some);
        match found {
            Some(number) => {
                // INVARIANT: the spare is not below it, or else stays above.
                self.lowest = spare.map_or(number, |spare| spare.min(number));
                Some(number)
            }
            None => self.spare.take(),
        }
    }

    /// Gives a slot back.
    pub(crate) fn give(&mut self, copy: usize, slot: usize) -> Given {
        let all = self.all();
        let Some(entry) = self.copies.get_mut(copy) else {
            return Given::NotTaken;
        };
        let Some(free) = entry.as_mut().and_then(|copy| copy.give(slot)) else {
            return Given::NotTaken;
        };
        self.taken -= 1;
        if free == all && self.spare.is_some() {
            *entry = None;
            self.vacant = self.vacant.min(copy);
            return Given::Emptied;
        }
        if free == all {
            self.spare = Some(copy);
        }
        self.lowest = self.lowest.min(copy);
        Given::Kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const CAPACITY: usize = 128;

    /// What is free, as sets.
    #[derive(Default)]
    struct Shadow {
        copies: BTreeMap<usize, BTreeSet<usize>>,
        taken: BTreeSet<(usize, usize)>,
    }

    impl Shadow {
        fn is_empty(&self, copy: usize) -> bool {
            self.copies[&copy].len() == CAPACITY - 1
        }

        fn empty(&self) -> usize {
            let copies = self.copies.keys();
            copies.filter(|&&copy| self.is_empty(copy)).count()
        }

        fn add(&mut self, copy: usize) {
            let vacant = (0..).find(|copy| !self.copies.contains_key(copy));
            assert_eq!(Some(copy), vacant);
            self.copies.insert(copy, (1..CAPACITY).collect());
        }

        fn take(&mut self, run: Run, most: usize) {
            let slots: Vec<usize> = run.slots().collect();
            assert!((1..=most).contains(&slots.len()));
            let used_up =
                |(&copy, free): (&usize, &BTreeSet<usize>)| free.is_empty() || self.is_empty(copy);
            let first = self.copies.iter().find(|&copy| !used_up(copy));
            if let Some((&first, _)) = first {
                assert_eq!(run.copy, first, "the spare is the last");
            }
            for slot in slots {
                assert!(self.copies.get_mut(&run.copy).unwrap().remove(&slot));
                assert!(self.taken.insert((run.copy, slot)));
            }
        }

        fn give(&mut self, (copy, slot): (usize, usize), given: Given) {
            assert!(self.taken.remove(&(copy, slot)));
            assert!(self.copies.get_mut(&copy).unwrap().insert(slot));
            let expected = if self.empty() == 2 {
                self.copies.remove(&copy);
                Given::Emptied
            } else {
                Given::Kept
            };
            assert_eq!(given, expected);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(usize),
        Give(prop::sample::Index),
        /// Many, so that copies run empty.
        GiveAllOf(prop::sample::Index),
        GiveFree(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0_usize..80).prop_map(Step::Take),
            8 => any::<prop::sample::Index>().prop_map(Step::Give),
            1 => any::<prop::sample::Index>().prop_map(Step::GiveAllOf),
            1 => (0_usize..8, 0_usize..2 * CAPACITY).prop_map(|(copy, slot)| Step::GiveFree(copy, slot)),
        ]
    }

    fn run(slots: &mut Slots, shadow: &mut Shadow, step: Step) {
        let give = |slots: &mut Slots, shadow: &mut Shadow, (copy, slot)| {
            let given = slots.give(copy, slot);
            shadow.give((copy, slot), given);
        };
        match step {
            Step::Take(0) => assert_eq!(slots.take(0), None),
            Step::Take(most) => match slots.take(most) {
                Some(run) => shadow.take(run, most.min(BITS)),
                None => {
                    assert!(shadow.copies.values().all(BTreeSet::is_empty));
                    let copy = slots.add().unwrap();
                    shadow.add(copy);
                }
            },
            Step::Give(index) if !shadow.taken.is_empty() => {
                let at = index.index(shadow.taken.len());
                let slot = *shadow.taken.iter().nth(at).unwrap();
                give(slots, shadow, slot);
            }
            Step::GiveAllOf(index) if !shadow.taken.is_empty() => {
                let at = index.index(shadow.taken.len());
                let (copy, _) = *shadow.taken.iter().nth(at).unwrap();
                let all = shadow.taken.range((copy, 0)..(copy + 1, 0));
                for slot in Vec::from_iter(all.copied()) {
                    give(slots, shadow, slot);
                }
            }
            Step::GiveFree(copy, slot) if !shadow.taken.contains(&(copy, slot)) => {
                assert_eq!(slots.give(copy, slot), Given::NotTaken);
            }
            _ => {}
        }
        assert_eq!(slots.taken(), shadow.taken.len());
    }

    proptest! {
        #[test]
        fn it_is_its_shadow(steps in prop::collection::vec(step(), 1..400)) {
            let (mut slots, mut shadow) = (Slots::new(CAPACITY), Shadow::default());
            for step in steps {
                run(&mut slots, &mut shadow, step);
            }
        }
    }

    #[test]
    fn at_the_edge_of_a_copy_nothing_comes_and_goes() {
        let mut slots = Slots::new(CAPACITY);
        slots.add().unwrap();
        while slots.take(BITS).is_some() {}
        assert_eq!(slots.add(), Some(1));
        for _ in 0..3 {
            let run = slots.take(1).unwrap();
            assert_eq!(run.copy, 1);
            assert_eq!(slots.give(1, run.first + 1), Given::Kept);
        }
    }
}
