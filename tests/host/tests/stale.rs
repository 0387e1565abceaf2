// SPDX-License-Identifier: GPL-2.0

//! What a #BP means, for every pair of bytes there is.

use jitfd_plan::stale::{Bytes, Source, Verdict, looks_like_int_3, verdict};
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

/// Rule R5.
#[test]
fn only_code_that_is_no_int3_is_resumed() {
    for bytes in every_pair() {
        let resumes = bytes.last.is_some() && bytes.last != Some(0xcc) && bytes != INT_3;
        let verdict = verdict(Source::Authoritative(bytes));
        assert_eq!(verdict == Verdict::Resume, resumes, "{bytes:?}");
    }
}

/// Whatever else it is, running it again is harmless.
#[test]
fn while_the_address_space_changes_only_int_3_is_delivered() {
    for bytes in every_pair() {
        let verdict = verdict(Source::Contended(bytes));
        assert_eq!(verdict == Verdict::Deliver, bytes == INT_3, "{bytes:?}");
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
    ) {
        let mut all: Vec<Option<u8>> = vec![before];
        all.extend(new.iter().copied().map(Some));
        all.push(after);
        let expected = all.windows(2).any(|pair| pair == [Some(0xcd), Some(0x03)]);
        prop_assert_eq!(looks_like_int_3(before, &new, after), expected);
    }
}
