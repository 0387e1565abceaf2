// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where instructions start in a region, so that branches between its chunks
//! can be checked. Pure; the region guards it with its lock.
//!
//! Two bits per byte, in blocks that are allocated when first needed:
//!
//! | covered | mark | the byte |
//! |---|---|---|
//! | 0 | 0 | is not published |
//! | 0 | 1 | is not published, and a published branch goes there |
//! | 1 | 1 | is an entry: the first of an instruction, and declared if any is |
//! | 1 | 0 | is something else |
//!
//! A publication is checked as a whole before it happens and noted as a whole
//! after it has succeeded.

use crate::bitmap::Ones;
use crate::chunk::Chunk;
use crate::error::{CodeError, Reason};
use std::fmt;

/// A chunk and the offset in the region that it gets.
#[derive(Clone, Copy)]
pub struct Placed<'a> {
    /// In bytes from the start of the region.
    pub offset: usize,
    /// The chunk.
    pub chunk: &'a Chunk,
}

impl Placed<'_> {
    const fn holds(&self, at: usize, len: usize) -> bool {
        at >= self.offset && at - self.offset < len
    }

    /// The error, with the number of the chunk if there are several.
    #[must_use]
    pub fn named(batch: &[Self], number: usize, error: CodeError) -> CodeError {
        if batch.len() < 2 {
            return error;
        }
        let offset = error.offset;
        error.in_item(number, "", offset)
    }

    /// Branches that leave the chunk: where they lie and where they go, if that
    /// is at a positive offset.
    fn branches(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.chunk.outside().iter().filter_map(|branch| {
            let target = self
                .offset
                .checked_add_signed(isize::try_from(branch.target).ok()?)?;
            Some((self.offset.checked_add(branch.at)?, target))
        })
    }
}

/// Words of 64 bits in one plane of a block, which covers 64 KiB of code.
const WORDS: usize = 1024;

#[derive(Clone, Copy)]
struct Word {
    covered: u64,
    mark: u64,
}

type Block = Box<[Word; WORDS]>;

/// The map of one region.
pub struct BranchMap {
    capacity: usize,
    blocks: Vec<Option<Block>>,
}

impl fmt::Debug for BranchMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.blocks.iter().flatten().count();
        f.debug_struct("BranchMap")
            .field("blocks", &used)
            .finish_non_exhaustive()
    }
}

impl BranchMap {
    /// The map of an empty region of `capacity` bytes.
    pub const fn new(capacity: usize) -> Self {
        Self {
            capacity,
            blocks: Vec::new(),
        }
    }

    /// Whether `batch` may be published as it is placed.
    ///
    /// # Errors
    /// [`Reason::NotAnEntry`] or [`Reason::EntryExpected`] if not.
    pub fn check(&self, batch: &[Placed<'_>]) -> Result<(), CodeError> {
        batch.iter().enumerate().try_for_each(|(number, placed)| {
            let checked = self.check_expected(placed);
            let checked = checked.and_then(|()| self.check_branches(batch, placed));
            checked.map_err(|error| Placed::named(batch, number, error))
        })
    }

    /// Gets the memory that [`note`](Self::note) needs for `batch`, so that this can't
    /// fail any more; returns whether there was enough.
    pub fn make_room(&mut self, batch: &[Placed<'_>]) -> bool {
        let capacity = self.capacity;
        let ends = batch
            .iter()
            .map(|placed| placed.offset + placed.chunk.len());
        let targets = batch.iter().flat_map(Placed::branches);
        let targets = targets.filter_map(|(_, target)| (target < capacity).then_some(target + 1));
        let last = ends.chain(targets).max().unwrap_or(0).div_ceil(64 * WORDS);
        let more = last.saturating_sub(self.blocks.len());
        if self.blocks.try_reserve(more).is_err() {
            return false;
        }
        let covered = batch.iter().all(|placed| {
            let end = placed.offset + placed.chunk.len();
            (placed.offset / (64 * WORDS)..end.div_ceil(64 * WORDS)).all(|n| self.has_block(n))
        });
        let mut targets = batch.iter().flat_map(Placed::branches);
        covered && targets.all(|(_, to)| to >= capacity || self.has_block(to / (64 * WORDS)))
    }

    /// Makes block `number` if it is not there; `false` without memory for it.
    fn has_block(&mut self, number: usize) -> bool {
        if number >= self.blocks.len() {
            self.blocks.resize_with(number + 1, || None);
        }
        if self.blocks[number].is_none() {
            self.blocks[number] = empty_block();
        }
        self.blocks[number].is_some()
    }

    /// Notes that `batch`, which was checked and for which there is room, is
    /// published.
    pub fn note(&mut self, batch: &[Placed<'_>]) {
        for placed in batch {
            self.cover(placed);
        }
        for (_, target) in batch.iter().flat_map(Placed::branches) {
            if target < self.capacity && !self.bits(target).0 {
                self.word(target / 64).mark |= 1 << (target % 64);
            }
        }
    }

    /// Published branches into the new code go to instructions.
    fn check_expected(&self, placed: &Placed<'_>) -> Result<(), CodeError> {
        let end = placed.offset + placed.chunk.len();
        for index in placed.offset / 64..end.div_ceil(64) {
            let word = self.peek(index);
            for bit in Ones(word.mark & !word.covered) {
                let target = index * 64 + bit;
                let inside = placed.holds(target, placed.chunk.len());
                if inside && !placed.chunk.is_entry(target - placed.offset) {
                    let error = CodeError::whole(Reason::EntryExpected { target });
                    let offset = target - placed.offset;
                    return Err(CodeError { offset, ..error });
                }
            }
        }
        Ok(())
    }

    /// Branches out of the new code go to instructions of the rest of `batch`,
    /// to published instructions, or to what is not published yet.
    fn check_branches(&self, batch: &[Placed<'_>], placed: &Placed<'_>) -> Result<(), CodeError> {
        for (branch, target) in placed.branches() {
            if target < self.capacity && !self.may_branch_to(batch, target) {
                let (bytes, offset) = (placed.chunk.bytes(), branch - placed.offset);
                let reason = Reason::NotAnEntry { branch, target };
                return Err(CodeError::placed(bytes, offset, branch, reason));
            }
        }
        Ok(())
    }

    fn may_branch_to(&self, batch: &[Placed<'_>], target: usize) -> bool {
        let after = batch.partition_point(|placed| placed.offset <= target);
        let mate = after.checked_sub(1).and_then(|before| batch.get(before));
        if let Some(mate) = mate.filter(|mate| mate.holds(target, mate.chunk.len())) {
            return mate.chunk.is_entry(target - mate.offset);
        }
        let (covered, mark) = self.bits(target);
        mark || !covered
    }

    fn cover(&mut self, placed: &Placed<'_>) {
        let (from, end) = (placed.offset, placed.offset + placed.chunk.len());
        for index in from / 64..end.div_ceil(64) {
            let mask = range_mask(index, from, end);
            let entries = entries_word(placed, index) & mask;
            let word = self.word(index);
            word.covered |= mask;
            word.mark = (word.mark & !mask) | entries;
        }
    }

    fn bits(&self, at: usize) -> (bool, bool) {
        let word = self.peek(at / 64);
        let bit = at % 64;
        (word.covered >> bit & 1 != 0, word.mark >> bit & 1 != 0)
    }

    fn peek(&self, index: usize) -> Word {
        let block = self.blocks.get(index / WORDS).and_then(Option::as_ref);
        block.map_or(EMPTY, |block| block[index % WORDS])
    }

    fn word(&mut self, index: usize) -> &mut Word {
        let block = index / WORDS;
        if block >= self.blocks.len() {
            self.blocks.resize_with(block + 1, || None);
        }
        let block = self.blocks[block].get_or_insert_with(|| Box::new([EMPTY; WORDS]));
        &mut block[index % WORDS]
    }
}

fn empty_block() -> Option<Block> {
    let mut words = Vec::new();
    words.try_reserve_exact(WORDS).ok()?;
    words.resize(WORDS, EMPTY);
    words.into_boxed_slice().try_into().ok()
}

const EMPTY: Word = Word {
    covered: 0,
    mark: 0,
};

/// The bits of word `index` that are in `from..end`, which touches the word.
fn range_mask(index: usize, from: usize, end: usize) -> u64 {
    let base = index * 64;
    let low = from.saturating_sub(base);
    let high = (end - base).min(64);
    (u64::MAX << low) & (u64::MAX >> (64 - high))
}

/// The entries in word `index` of the region.
fn entries_word(placed: &Placed<'_>, index: usize) -> u64 {
    let base = index * 64;
    match base.checked_sub(placed.offset) {
        Some(inner) => placed.chunk.entries_at(inner),
        None => placed.chunk.entries_at(0) << (placed.offset - base),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rules, validate};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const CAPACITY: usize = 1 << 20;

    fn chunk(code: &[u8]) -> Chunk {
        validate(code, &Rules::new()).unwrap()
    }

    /// A jump that goes `distance` bytes from its end, then a five-byte move.
    fn jump(distance: i32) -> Chunk {
        let mut code = vec![0xe9];
        code.extend(distance.to_le_bytes());
        code.extend([0xb8, 1, 2, 3, 4]);
        chunk(&code)
    }

    fn publish(map: &mut BranchMap, batch: &[(usize, &Chunk)]) -> Result<(), Reason> {
        let batch: Vec<_> = batch
            .iter()
            .map(|&(offset, chunk)| Placed { offset, chunk })
            .collect();
        map.check(&batch).map_err(|error| error.reason)?;
        assert!(map.make_room(&batch));
        let blocks = |map: &BranchMap| map.blocks.iter().flatten().count();
        let before = (blocks(map), map.blocks.len());
        map.note(&batch);
        assert_eq!(
            (blocks(map), map.blocks.len()),
            before,
            "note gets no memory"
        );
        Ok(())
    }

    #[test]
    fn backward_branches_go_to_instructions() {
        let mut map = BranchMap::new(CAPACITY);
        publish(&mut map, &[(64, &jump(1 << 20))]).unwrap();
        for (target, good) in [(64, true), (65, false), (69, true), (73, false)] {
            let result = publish(&mut map, &[(100, &jump(target - 105))]);
            let target = usize::try_from(target).unwrap();
            let expected = Err(Reason::NotAnEntry {
                branch: 100,
                target,
            });
            assert_eq!(result, if good { Ok(()) } else { expected });
        }
    }

    #[test]
    fn forward_branches_are_checked_when_their_target_comes() {
        let mut map = BranchMap::new(CAPACITY);
        publish(&mut map, &[(0, &jump(200 - 5))]).unwrap();
        let wrong = publish(&mut map, &[(198, &jump(1 << 20))]);
        assert_eq!(wrong, Err(Reason::EntryExpected { target: 200 }));
        assert_eq!(publish(&mut map, &[(195, &jump(1 << 20))]), Ok(()));
    }

    #[test]
    fn chunks_of_one_batch_know_each_other() {
        let (first, last) = (jump(64 - 5), jump(-69));
        let mut map = BranchMap::new(CAPACITY);
        publish(&mut map, &[(0, &first), (64, &last)]).unwrap();
        let into = jump(66 - 5);
        let mut map = BranchMap::new(CAPACITY);
        let result = publish(&mut map, &[(0, &into), (64, &last)]);
        assert_eq!(
            result,
            Err(Reason::NotAnEntry {
                branch: 0,
                target: 66
            })
        );
    }

    #[test]
    fn declared_entries_are_the_only_ones() {
        let options = Rules::new().entry(0);
        let callee = validate(&[0x90, 0x90, 0xc3], &options).unwrap();
        let mut map = BranchMap::new(CAPACITY);
        publish(&mut map, &[(64, &callee)]).unwrap();
        for (target, good) in [(64, true), (65, false), (66, false)] {
            let result = publish(&mut map, &[(100, &jump(target - 105))]);
            assert_eq!(result.is_ok(), good, "{target}");
        }
        let (first, last) = (jump(64 - 5), jump(65 - 5));
        for (jump, good) in [(&first, true), (&last, false)] {
            let mut map = BranchMap::new(CAPACITY);
            let batch = [(0, jump), (64, &callee)];
            assert_eq!(publish(&mut map, &batch).is_ok(), good);
            let mut map = BranchMap::new(CAPACITY);
            publish(&mut map, &batch[..1]).unwrap();
            assert_eq!(publish(&mut map, &batch[1..]).is_ok(), good);
        }
    }

    #[test]
    fn a_refused_batch_leaves_no_trace() {
        let mut map = BranchMap::new(CAPACITY);
        publish(&mut map, &[(64, &jump(1 << 20))]).unwrap();
        let (pending, wrong) = (jump(5000), jump(65 - 205));
        assert!(publish(&mut map, &[(100, &pending), (200, &wrong)]).is_err());
        assert_eq!(map.bits(105 + 5000), (false, false));
        assert_eq!(map.bits(100), (false, false));
    }

    #[test]
    fn branches_out_of_the_region_are_not_its_business() {
        let mut map = BranchMap::new(CAPACITY);
        publish(&mut map, &[(0, &jump(-1000)), (64, &jump(i32::MAX))]).unwrap();
    }

    #[test]
    fn errors_say_where() {
        let mut map = BranchMap::new(CAPACITY);
        let (first, into) = (jump(1 << 20), jump(65 - 105));
        publish(&mut map, &[(64, &first)]).unwrap();
        let placed = |offset, chunk| Placed { offset, chunk };
        let error = map.check(&[placed(100, &into)]).unwrap_err();
        assert_eq!((error.item.as_ref(), error.offset), (None, 0));
        assert_eq!(error.bytes, [0xe9, 0xd8, 0xff, 0xff, 0xff]);
        let text = error.to_string();
        assert!(text.contains("0x64") && text.contains("0x41"), "{text}");
        let error = map.check(&[placed(80, &first), placed(100, &into)]);
        assert_eq!(error.unwrap_err().item, Some((1, String::new())));
        publish(&mut map, &[(200, &jump(300 - 205))]).unwrap();
        let error = map.check(&[placed(298, &first)]).unwrap_err();
        assert_eq!(error.offset, 2);
        assert!(error.to_string().contains("0x12c"), "{error}");
    }

    /// The same rules with sets.
    #[derive(Default)]
    struct Shadow {
        covered: BTreeMap<usize, bool>,
        pending: BTreeSet<usize>,
    }

    impl Shadow {
        fn publish(&mut self, offset: usize, code: &Chunk) -> bool {
            let new = |at: usize| (offset..offset + code.len()).contains(&at);
            let branch = code.outside().first().map(|out| offset as i64 + out.target);
            let target = branch
                .and_then(|to| usize::try_from(to).ok())
                .filter(|&to| to < CAPACITY);
            let meets = self
                .pending
                .iter()
                .all(|&at| !new(at) || code.is_boundary(at - offset));
            let lands = target.is_none_or(|to| self.covered.get(&to) != Some(&false));
            if !meets || !lands {
                return false;
            }
            for at in 0..code.len() {
                self.covered.insert(offset + at, code.is_boundary(at));
            }
            self.pending
                .extend(target.filter(|to| !self.covered.contains_key(to)));
            true
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn the_map_is_its_shadow(
            steps in prop::collection::vec((0_usize..6, -400_i32..400), 1..60),
        ) {
            let (mut map, mut shadow) = (BranchMap::new(CAPACITY), Shadow::default());
            // Across the border of two blocks.
            let mut offset = 65_536 - 300;
            for (gap, distance) in steps {
                // Nearer ones stay in the chunk.
                let code = jump(if distance.abs() > 9 { distance } else { 9 });
                let good = publish(&mut map, &[(offset, &code)]).is_ok();
                prop_assert_eq!(good, shadow.publish(offset, &code));
                offset += gap + if good { code.len() } else { 1 };
            }
        }
    }
}
