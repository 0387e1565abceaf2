// SPDX-License-Identifier: GPL-2.0

//! What a #BP means, for every pair of bytes there is.

use jitfd_plan::stale::{
    Bytes, PATIENCE, Retries, Source, Verdict, looks_like_int_3, verdict, verdict_now,
};
use proptest::prelude::*;

fn every_byte() -> impl Iterator<Item = Option<u8>> {
    (0..=u8::MAX).map(Some).chain([None])
}

fn every_pair() -> impl Iterator<Item = Bytes> {
    every_byte().flat_map(|before_last| every_byte().map(move |last| Bytes { before_last, last }))
}

const INT_3: Bytes = Bytes {
    before_last: Some(0xcd),
    last: Some(0x03),
};

/// Rule R5. In foreign memory: where the int3 is gone, its place is run again.
#[test]
fn only_code_that_is_no_int3_is_resumed() {
    for bytes in every_pair() {
        let resumes = bytes.last.is_some() && bytes.last != Some(0xcc) && bytes != INT_3;
        let wanted = if resumes {
            Verdict::Resume
        } else {
            Verdict::Deliver
        };
        assert_eq!(verdict(Source::Authoritative(bytes)), wanted, "{bytes:?}");
        assert_eq!(verdict(Source::Foreign(bytes)), wanted, "{bytes:?}");
    }
}

#[test]
fn foreign_memory_that_nobody_looked_at_is_not_resumed() {
    assert_eq!(verdict(Source::Foreign(Bytes::UNKNOWN)), Verdict::Deliver);
}

#[test]
fn while_the_address_space_changes_nothing_is_decided() {
    assert_eq!(verdict(Source::Contended), Verdict::Later);
}

/// Whatever else it is, running it again is harmless.
#[test]
fn if_it_must_be_decided_now_only_int_3_is_delivered() {
    for bytes in every_pair() {
        let verdict = verdict_now(bytes);
        assert_ne!(verdict, Verdict::Later);
        assert_eq!(verdict == Verdict::Deliver, bytes == INT_3, "{bytes:?}");
    }
}

/// A naive counter: where the thread was sent back to last, and how often.
#[derive(Default)]
struct Counter {
    trap: Option<u64>,
    count: u64,
}

impl Counter {
    fn and_one(&mut self, trap: u64) {
        if self.trap != Some(trap) {
            *self = Counter {
                trap: Some(trap),
                count: 0,
            };
        }
        self.count += 1;
    }

    fn are_enough(&self, trap: u64) -> bool {
        self.trap == Some(trap) && self.count >= PATIENCE
    }
}

/// User addresses, some of them neighbours.
fn trap() -> impl Strategy<Value = u64> {
    const TOP: u64 = (1 << 56) - 1;
    prop_oneof![1u64..3, Just(TOP), Just(TOP - 1), 1..TOP]
}

proptest! {
    #[test]
    fn retries_are_counted_at_one_place(
        runs in prop::collection::vec((trap(), 1..2 * PATIENCE), 1..20),
    ) {
        let mut retries = Retries::NONE;
        let mut counter = Counter::default();
        for (trap, times) in runs {
            for _ in 0..times {
                retries = Retries::from_word(retries.and_one(trap).word());
                counter.and_one(trap);
                prop_assert_eq!(retries.are_enough(trap), counter.are_enough(trap));
                prop_assert!(!retries.are_enough(trap ^ 1));
            }
        }
    }
}

/// Bytes of which some matter.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0xcd), Just(0x03), any::<u8>()]
}

proptest! {
    #[test]
    fn int_3_is_found_wherever_it_arises(
        before in prop::option::of(byte()),
        new in prop_oneof![
            prop::collection::vec(byte(), 1..6),
            // 32 bytes are looked at together.
            prop::collection::vec(prop_oneof![9 => Just(0x90), 1 => byte()], 1..140),
        ],
        after in prop::option::of(byte()),
        cut in any::<prop::sample::Index>(),
    ) {
        let (first, second) = new.split_at(cut.index(new.len() + 1));
        let mut all: Vec<Option<u8>> = vec![before];
        all.extend(new.iter().copied().map(Some));
        all.push(after);
        let expected = all.windows(2).any(|pair| pair == [Some(0xcd), Some(0x03)]);
        prop_assert_eq!(looks_like_int_3(before, [first, second], after), expected);
    }
}
