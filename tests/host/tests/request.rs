// SPDX-License-Identifier: GPL-2.0

//! Every field of every request: the values that are taken, and that all
//! others are refused.

use jitfd_plan::{
    abi::*,
    refusal::Refusal,
    request::{self, Kind, page_round},
};
use proptest::prelude::*;

const PAGE: u64 = PAGE_SIZE as u64;
const INVALID: Result<(), Refusal> = Err(Refusal::Invalid);

fn code() -> CreateCode {
    CreateCode {
        source: 0x1000,
        len: 64,
        ..Default::default()
    }
}

fn create() -> Create {
    Create {
        size: PAGE,
        ..Default::default()
    }
}

fn publish() -> Publish {
    Publish {
        segments: 0x1000,
        count: 1,
        expect: ANY_OFFSET,
        ..Default::default()
    }
}

fn segment() -> Segment {
    Segment {
        source: 0x1000,
        len: 16,
        ..Default::default()
    }
}

fn reserve() -> Reserve {
    Reserve {
        len: 16,
        ..Default::default()
    }
}

fn create_code(arg: &CreateCode) -> Result<(), Refusal> {
    request::create_code(arg).map(|_| ())
}

#[test]
fn the_plain_requests_are_taken() {
    assert_eq!(request::create_code(&code()), Ok(PAGE));
    assert_eq!(request::create(&create()), Ok(()));
    assert_eq!(request::clone_from(&CloneFrom::default()), Ok(()));
    assert_eq!(request::reserve(&reserve()), Ok(()));
    for kind in [Kind::Append, Kind::Fill] {
        assert_eq!(request::publish(&publish(), kind), Ok(()));
        assert_eq!(request::segment(&segment(), kind), Ok(()));
    }
}

/// Calls `check` with each single bit of each of `N` reserved words.
fn each_reserved_bit<const N: usize>(mut check: impl FnMut([u32; N])) {
    for word in 0..N {
        for bit in 0..32 {
            let mut reserved = [0; N];
            reserved[word] = 1 << bit;
            check(reserved);
        }
    }
}

#[test]
fn every_reserved_bit_is_refused() {
    each_reserved_bit(|reserved| {
        assert_eq!(create_code(&CreateCode { reserved, ..code() }), INVALID);
    });
    each_reserved_bit(|reserved| {
        assert_eq!(
            request::create(&Create {
                reserved,
                ..create()
            }),
            INVALID
        );
    });
    each_reserved_bit(|reserved| {
        let arg = CloneFrom {
            reserved,
            ..Default::default()
        };
        assert_eq!(request::clone_from(&arg), INVALID);
    });
    each_reserved_bit(|reserved| {
        let arg = Reserve {
            reserved,
            ..reserve()
        };
        assert_eq!(request::reserve(&arg), INVALID);
    });
}

#[test]
fn every_reserved_bit_of_a_publication_is_refused() {
    for kind in [Kind::Append, Kind::Fill] {
        each_reserved_bit(|reserved| {
            let arg = Publish {
                reserved,
                ..publish()
            };
            assert_eq!(request::publish(&arg, kind), INVALID);
        });
        each_reserved_bit(|[reserved]: [u32; 1]| {
            let arg = Segment {
                reserved,
                ..segment()
            };
            assert_eq!(request::segment(&arg, kind), INVALID);
        });
    }
}

#[test]
fn just_the_known_flags_are_taken() {
    for bit in 0..32 {
        let flags = 1u32 << bit;
        let addr = if flags == CREATE_CODE_FIXED { PAGE } else { 0 };
        let taken = create_code(&CreateCode {
            flags,
            addr,
            ..code()
        });
        assert_eq!(taken.is_ok(), flags == CREATE_CODE_FIXED);
        let taken = request::create(&Create { flags, ..create() });
        assert_eq!(taken.is_ok(), flags == CREATE_ANY_MM);
        let taken = request::clone_from(&CloneFrom {
            flags,
            ..Default::default()
        });
        assert_eq!(taken.is_ok(), flags == CREATE_ANY_MM);
        let arg = Publish { flags, ..publish() };
        let (append, fill) = (Kind::Append, Kind::Fill);
        let known = flags == PUBLISH_SYNC || flags == PUBLISH_FRESH;
        assert_eq!(request::publish(&arg, append).is_ok(), known);
        assert_eq!(request::publish(&arg, fill).is_ok(), flags == PUBLISH_SYNC);
    }
}

#[test]
fn a_fill_says_where_by_its_segments_and_an_append_by_none() {
    let here = Publish {
        expect: 64,
        ..publish()
    };
    assert_eq!(request::publish(&here, Kind::Append), Ok(()));
    assert_eq!(request::publish(&here, Kind::Fill), INVALID);
    let placed = Segment {
        offset: 64,
        ..segment()
    };
    assert_eq!(request::segment(&placed, Kind::Append), INVALID);
    assert_eq!(request::segment(&placed, Kind::Fill), Ok(()));
    let aligned = Segment {
        align_log2: 4,
        ..segment()
    };
    assert_eq!(request::segment(&aligned, Kind::Append), Ok(()));
    assert_eq!(request::segment(&aligned, Kind::Fill), INVALID);
}

/// Values around the bounds that there are, and any others.
fn number() -> impl Strategy<Value = u64> {
    let near = |bound: u64| (0u64..3).prop_map(move |by| bound.wrapping_add(by).wrapping_sub(1));
    prop_oneof![
        near(0),
        near(PAGE),
        near(MAX_REGION),
        near(u64::MAX),
        (0u64..1 << 19).prop_map(|page| page * PAGE),
        any::<u64>(),
    ]
}

proptest! {
    #[test]
    fn the_bounds_of_a_created_code(source in number(), len in number(), addr in number()) {
        let arg = CreateCode { source, len, addr, ..code() };
        let fits = (1..=MAX_CODE).contains(&len) && source.checked_add(len).is_some();
        prop_assert_eq!(request::create_code(&arg).is_ok(), fits && addr == 0);
        let fixed = CreateCode { flags: CREATE_CODE_FIXED, ..arg };
        let end = u128::from(addr) + u128::from(len).div_ceil(4096) * 4096;
        let there = addr != 0 && addr % PAGE == 0 && end <= u128::from(u64::MAX);
        let expected = if fits && there { Ok(len.div_ceil(PAGE) * PAGE) } else { Err(Refusal::Invalid) };
        prop_assert_eq!(request::create_code(&fixed), expected);
    }

    #[test]
    fn the_bounds_of_a_region(size in number()) {
        let fits = (PAGE..=MAX_REGION).contains(&size) && size % PAGE == 0;
        prop_assert_eq!(request::create(&Create { size, ..create() }).is_ok(), fits);
    }

    #[test]
    fn the_bounds_of_a_reservation(len in number(), align_log2 in 0u32..40) {
        let fits = (1..=MAX_REGION).contains(&len) && align_log2 <= MAX_ALIGN_LOG2;
        let arg = Reserve { len, align_log2, ..reserve() };
        prop_assert_eq!(request::reserve(&arg).is_ok(), fits);
    }

    #[test]
    fn the_bounds_of_a_publication(count in prop_oneof![0u32..3, 1022u32..1027, any::<u32>()]) {
        for kind in [Kind::Append, Kind::Fill] {
            let taken = request::publish(&Publish { count, ..publish() }, kind).is_ok();
            prop_assert_eq!(taken, (1..=1024).contains(&count));
        }
    }

    #[test]
    fn the_bounds_of_a_segment(source in number(), len in number(), offset in number(), align_log2 in 0u32..40) {
        let fits = (1..=MAX_REGION).contains(&len) && source.checked_add(len).is_some();
        let append = Segment { source, len, align_log2, ..segment() };
        prop_assert_eq!(request::segment(&append, Kind::Append).is_ok(), fits && align_log2 <= 12);
        let fill = Segment { source, len, offset, ..segment() };
        prop_assert_eq!(request::segment(&fill, Kind::Fill).is_ok(), fits && offset < MAX_REGION);
    }

    /// What is checked before it is rounded does not overflow.
    #[test]
    fn rounding_what_was_checked(len in 0..=MAX_CODE) {
        prop_assert_eq!(page_round(len), len.div_ceil(PAGE) * PAGE);
    }
}

#[test]
fn who_may_publish() {
    for bits in 0u8..8 {
        let (sealed, any_mm, is_owner) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
        let expected = match (any_mm || is_owner, sealed) {
            (false, _) => Err(Refusal::NotOwner),
            (true, true) => Err(Refusal::Sealed),
            (true, false) => Ok(()),
        };
        assert_eq!(request::may_publish(sealed, any_mm, is_owner), expected);
    }
}
