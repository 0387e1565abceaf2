// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where chunks are placed, and how they must be published. Pure.

use crate::align::{Align, PAGE_SIZE};
use crate::chunk::Chunk;

/// How a publication is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Code only: no flush; a CPU that sees the old bytes traps and goes on.
    Lazy,
    /// With data: no CPU sees the old bytes once the call returns.
    Sync,
    /// With data: on pages that nothing was ever published on.
    Fresh,
}

/// From here on fresh pages are used for data: they cost at most a page on
/// either side, but no flush.
pub const FRESH_FROM: usize = 16 * PAGE_SIZE;

impl Mode {
    /// The mode in which `chunks` are appended.
    pub fn for_append(chunks: &[&Chunk]) -> Self {
        Self::for_cursor(chunks.iter().copied())
    }

    /// The same.
    pub fn for_cursor<'a>(chunks: impl Iterator<Item = &'a Chunk> + Clone) -> Self {
        if !chunks.clone().any(Chunk::holds_data) {
            return Self::Lazy;
        }
        let total = chunks.fold(0_usize, |sum, chunk| sum.saturating_add(chunk.len()));
        if total >= FRESH_FROM {
            Self::Fresh
        } else {
            Self::Sync
        }
    }

    /// The mode in which chunks are put at given places, where they cannot have
    /// pages of their own.
    pub fn for_places<'a>(mut chunks: impl Iterator<Item = &'a Chunk>) -> Self {
        if chunks.any(Chunk::holds_data) {
            Self::Sync
        } else {
            Self::Lazy
        }
    }
}

/// The alignments at which `chunks` are appended, the first of them at `first` if
/// that is given.
///
/// The place may have been asked for with another alignment than the chunk's.
/// The largest one that it has ([`Align::of`]) gets the cursor there in any
/// case.
pub fn aligns(chunks: &[&Chunk], first: Option<Align>) -> impl Iterator<Item = Align> {
    let mut first = first;
    chunks
        .iter()
        .map(move |chunk| first.take().unwrap_or_else(|| chunk.align()))
}

/// Tells `put` the offsets that `chunks` get, in order, if they are appended at
/// `cursor`, at these [`aligns`]. Returns the cursor after that; `None` if they do not
/// fit `capacity`. No memory is got here.
pub fn place(
    cursor: usize,
    capacity: usize,
    chunks: &[&Chunk],
    first: Option<Align>,
    mode: Mode,
    mut put: impl FnMut(usize),
) -> Option<usize> {
    let mut at = edge(cursor, mode)?;
    for (chunk, align) in chunks.iter().zip(aligns(chunks, first)) {
        at = align.up(at)?;
        put(at);
        at = at.checked_add(chunk.len())?;
    }
    let end = edge(at, mode)?;
    (end <= capacity).then_some(end)
}

/// The cursor after `chunks` are appended at `cursor`, each at its alignment; `None`
/// on overflow.
pub fn end<'a>(
    cursor: usize,
    mut chunks: impl Iterator<Item = &'a Chunk>,
    mode: Mode,
) -> Option<usize> {
    let next = |at, chunk: &Chunk| chunk.align().up(at)?.checked_add(chunk.len());
    edge(chunks.try_fold(edge(cursor, mode)?, next)?, mode)
}

const fn edge(at: usize, mode: Mode) -> Option<usize> {
    match mode {
        Mode::Fresh => Align::PAGE.up(at),
        Mode::Lazy | Mode::Sync => Some(at),
    }
}

#[cfg(test)]
mod tests {
    use super::end as end_of;
    use super::*;
    use crate::{Rules, validate};
    use proptest::prelude::*;

    fn place(
        cursor: usize,
        capacity: usize,
        chunks: &[&Chunk],
        first: Option<Align>,
        mode: Mode,
    ) -> Option<(Vec<usize>, usize)> {
        let mut offsets = Vec::new();
        let put = |offset| offsets.push(offset);
        let end = super::place(cursor, capacity, chunks, first, mode, put)?;
        Some((offsets, end))
    }

    fn chunk(len: usize, align: usize, data: bool) -> Chunk {
        let options = if data {
            Rules::new().data(0..1)
        } else {
            Rules::new()
        };
        validate(&vec![0x90; len], &options)
            .unwrap()
            .aligned(Align::new(align).unwrap())
    }

    #[test]
    fn data_decides_the_mode() {
        let (code, data) = (chunk(8, 1, false), chunk(8, 1, true));
        let large = chunk(FRESH_FROM, 1, true);
        assert_eq!(Mode::for_append(&[&code, &code]), Mode::Lazy);
        assert_eq!(Mode::for_append(&[&code, &data]), Mode::Sync);
        assert_eq!(Mode::for_append(&[&code, &large]), Mode::Fresh);
        assert_eq!(Mode::for_append(&[&data, &code]), Mode::Sync);
        assert_eq!(Mode::for_append(&[&large, &code]), Mode::Fresh);
        assert_eq!(Mode::for_places([&code, &code].into_iter()), Mode::Lazy);
        assert_eq!(Mode::for_places([&code, &large].into_iter()), Mode::Sync);
    }

    #[test]
    fn a_full_region_is_found_out_before_the_call() {
        let one = chunk(16, 16, false);
        assert_eq!(
            place(4080, 4096, &[&one], None, Mode::Lazy),
            Some((vec![4080], 4096))
        );
        assert_eq!(place(4081, 4096, &[&one], None, Mode::Lazy), None);
        assert_eq!(
            place(usize::MAX, usize::MAX, &[&one], None, Mode::Lazy),
            None
        );
        assert_eq!(
            place(4081, 8192, &[&one], None, Mode::Fresh),
            Some((vec![4096], 8192))
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn chunks_are_aligned_in_order_and_apart(
            cursor in 0_usize..10_000,
            chunks in prop::collection::vec((1_usize..300, 0_u32..=12), 1..8),
            fresh: bool,
        ) {
            let chunks: Vec<_> = chunks.iter().map(|&(len, log2)| chunk(len, 1 << log2, false)).collect();
            let refs: Vec<_> = chunks.iter().collect();
            let mode = if fresh { Mode::Fresh } else { Mode::Lazy };
            let (offsets, end) = place(cursor, usize::MAX, &refs, None, mode).unwrap();
            prop_assert_eq!(end_of(cursor, refs.iter().copied(), mode), Some(end));
            let mut free = if fresh { cursor.next_multiple_of(4096) } else { cursor };
            for (&offset, chunk) in offsets.iter().zip(&chunks) {
                prop_assert!(offset >= free && offset - free < chunk.align().bytes());
                prop_assert_eq!(offset % chunk.align().bytes(), 0);
                free = offset + chunk.len();
            }
            prop_assert_eq!(end, if fresh { free.next_multiple_of(4096) } else { free });
        }

        #[test]
        fn a_chunk_gets_the_place_that_was_asked_for(
            cursor in 0_usize..10_000,
            asked in 0_u32..=12,
            own in 0_u32..=12,
        ) {
            let place_of = Align::new(1 << asked).unwrap().up(cursor).unwrap();
            let own = own.min(Align::of(place_of).log2());
            let one = chunk(5, 1 << own, false);
            let first = Some(Align::of(place_of));
            let placed = place(cursor, usize::MAX, &[&one], first, Mode::Lazy);
            prop_assert_eq!(placed, Some((vec![place_of], place_of + 5)));
        }
    }
}
