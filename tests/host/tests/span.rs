// SPDX-License-Identifier: GPL-2.0

//! Spans, their pieces and their pages, against byte-by-byte models.

use std::collections::{BTreeMap, BTreeSet};

use jitfd_plan::{
    abi::PAGE_SIZE,
    refusal::Refusal,
    span::{Descending, Span, Touched, check_ascending, place, split_hole},
};
use proptest::prelude::*;

const PAGE: u64 = PAGE_SIZE as u64;

/// A length or a gap: often near a page, or none at all.
fn distance(at_least: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        at_least..at_least + 3,
        at_least..600u64,
        PAGE - 2..PAGE + 3,
        at_least..2 * PAGE + 2,
    ]
}

/// Sorted spans that do not overlap, as a publication has them.
fn sorted_spans() -> impl Strategy<Value = Vec<Span>> {
    prop::collection::vec((distance(0), distance(1)), 1..8).prop_map(|parts| {
        let mut at = 0;
        let place = |(gap, len): (u64, u64)| {
            let start = at + gap;
            at = start + len;
            Span { start, len }
        };
        parts.into_iter().map(place).collect()
    })
}

/// Every byte that publishing `spans` page by page would write: its offset, and
/// from which byte of which span it comes.
fn written(spans: &[Span]) -> Vec<(u64, (usize, u64))> {
    let mut written = Vec::new();
    for touched in Descending::new(spans) {
        for (index, span) in spans.iter().enumerate().take(touched.to).skip(touched.from) {
            let Some(piece) = span.piece(touched.page) else {
                continue;
            };
            for byte in 0..piece.len {
                let offset = touched.page * PAGE + (piece.in_page + byte) as u64;
                written.push((offset, (index, (piece.in_span + byte) as u64)));
            }
        }
    }
    written
}

fn pages_of(spans: &[Span]) -> BTreeSet<u64> {
    let bytes = spans.iter().flat_map(|span| span.start..span.end());
    bytes.map(|byte| byte / PAGE).collect()
}

proptest! {
    /// Joined spans cover the same bytes, and go on to the next page only where
    /// one of them did.
    #[test]
    fn joined_spans_are_the_same_bytes(
        start in 0..3 * PAGE,
        len in distance(1),
        gap in 0..2u64,
        more in distance(1),
    ) {
        let one = Span { start, len };
        let next = Span { start: one.end() + gap, len: more };
        let at_page = next.start % PAGE == 0;
        prop_assert_eq!(one.join(next).is_some(), gap == 0 && !at_page);
        let Some(both) = one.join(next) else {
            return Ok(());
        };
        prop_assert_eq!((both.start, both.end()), (one.start, next.end()));
        prop_assert_eq!(both.is_on_one_page(), pages_of(&[both]).len() == 1);
        for page in pages_of(&[both]) {
            let crosses = one.crosses_after(page) || next.crosses_after(page);
            prop_assert_eq!(both.crosses_after(page), crosses);
        }
    }
}

proptest! {
    // The models go byte by byte.
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn each_byte_is_written_once_from_the_right_place(spans in sorted_spans()) {
        let mut expected = BTreeMap::new();
        for (index, span) in spans.iter().enumerate() {
            expected.extend((0..span.len).map(|byte| (span.start + byte, (index, byte))));
        }
        let written = written(&spans);
        prop_assert_eq!(written.len(), expected.len());
        prop_assert_eq!(written.into_iter().collect::<BTreeMap<_, _>>(), expected);
    }

    /// Rule R3.
    #[test]
    fn pages_descend_and_none_is_left_out(spans in sorted_spans()) {
        let pages: Vec<u64> = Descending::new(&spans).map(|touched| touched.page).collect();
        prop_assert!(pages.windows(2).all(|pair| pair[0] > pair[1]));
        prop_assert_eq!(pages.into_iter().collect::<BTreeSet<_>>(), pages_of(&spans));
    }

    #[test]
    fn a_touched_page_names_just_the_spans_on_it(spans in sorted_spans()) {
        for Touched { page, from, to } in Descending::new(&spans) {
            let on_it: Vec<usize> = (0..spans.len())
                .filter(|&index| pages_of(&spans[index..=index]).contains(&page))
                .collect();
            prop_assert_eq!(on_it, (from..to).collect::<Vec<_>>());
        }
    }

    /// The module asks only the last span of a page whether it goes on.
    #[test]
    fn only_the_last_span_of_a_page_crosses(spans in sorted_spans()) {
        for touched in Descending::new(&spans) {
            let crosses = |index: usize| {
                let bytes = spans[index].start..spans[index].end();
                let next = (touched.page + 1) * PAGE;
                bytes.contains(&(next - 1)) && bytes.contains(&next)
            };
            let any = (touched.from..touched.to).any(crosses);
            prop_assert_eq!(spans[touched.to - 1].crosses_after(touched.page), any);
        }
    }

    #[test]
    fn a_place_is_the_first_that_fits(
        cursor in 0..4 * PAGE,
        capacity in 0..6 * PAGE,
        len in distance(0),
        align_log2 in 0u32..14,
    ) {
        let first = (cursor..).find(|at| at % (1 << align_log2) == 0).unwrap();
        let expected = match (len, first + len) {
            (0, _) => Err(Refusal::Invalid),
            (_, end) if end > capacity => Err(Refusal::Full),
            _ => Ok(Span { start: first, len }),
        };
        prop_assert_eq!(place(cursor, capacity, len, align_log2), expected);
    }

    #[test]
    fn nothing_panics_on_extremes(numbers in prop::array::uniform4(extreme()), log2: u32) {
        let [a, b, c, d] = numbers;
        let _ = place(a, b, c, log2);
        let (one, two) = (Span { start: a, len: b }, Span { start: c, len: d });
        let _ = (one.piece(c), one.crosses_after(c), one.first_page(), one.last_page());
        let _ = (split_hole(one, two), check_ascending(&[one, two]));
        let _ = Descending::new(&[one]).take(3).count();
    }

    #[test]
    fn ascending_means_sorted_and_apart(parts in prop::collection::vec((0u64..40, 1u64..8), 0..5)) {
        let spans: Vec<Span> = parts.iter().map(|&(start, len)| Span { start, len }).collect();
        let bytes: Vec<u64> = spans.iter().flat_map(|span| span.start..span.end()).collect();
        let expected = bytes.windows(2).all(|pair| pair[0] < pair[1]);
        prop_assert_eq!(check_ascending(&spans).is_ok(), expected);
    }

    #[test]
    fn a_hole_loses_just_what_is_filled(
        hole in (0u64..50, 1u64..50),
        fill in (0u64..100, 0u64..50),
    ) {
        let hole = Span { start: hole.0, len: hole.1 };
        let fill = Span { start: fill.0, len: fill.1 };
        let bytes = |span: Span| (span.start..span.end()).collect::<BTreeSet<_>>();
        let inside = fill.len > 0 && bytes(fill).is_subset(&bytes(hole));
        let split = split_hole(hole, fill);
        prop_assert_eq!(split.is_some(), inside);
        if let Some((before, after)) = split {
            let left: Vec<Span> = [before, after].into_iter().flatten().collect();
            prop_assert!(left.iter().all(|part| part.len > 0));
            let rest: BTreeSet<u64> = left.into_iter().flat_map(bytes).collect();
            prop_assert_eq!(rest, &bytes(hole) - &bytes(fill));
        }
    }
}

fn extreme() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(PAGE),
        Just(u64::MAX),
        Just(u64::MAX - 1),
        any::<u64>()
    ]
}

#[test]
fn no_spans_touch_no_page() {
    assert_eq!(Descending::new(&[]).next(), None);
}
