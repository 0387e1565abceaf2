// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pins the ABI: numbers, sizes and offsets as literals, so that a change of
//! `abi.rs` that would break existing programs fails here.

use crate::abi::*;
use std::mem::{align_of, offset_of};

#[test]
fn ioctl_numbers() {
    assert_eq!(JIT_CREATE_CODE, 0xc030_4a20);
    assert_eq!(JIT_CREATE, 0x4020_4a21);
    assert_eq!(JIT_APPEND, 0x4028_4a22);
    assert_eq!(JIT_RESERVE, 0x4020_4a23);
    assert_eq!(JIT_FILL, 0x4028_4a24);
    assert_eq!(JIT_SEAL, 0x0000_4a25);
    assert_eq!(JIT_STATS, 0x80c0_4a26);
    assert_eq!(JIT_CLONE, 0x4020_4a27);
}

#[test]
fn sizes() {
    assert_eq!((size_of::<CreateCode>(), align_of::<CreateCode>()), (48, 8));
    assert_eq!((size_of::<Create>(), align_of::<Create>()), (32, 8));
    assert_eq!((size_of::<CloneFrom>(), align_of::<CloneFrom>()), (32, 4));
    assert_eq!((size_of::<Publish>(), align_of::<Publish>()), (40, 8));
    assert_eq!((size_of::<Segment>(), align_of::<Segment>()), (32, 8));
    assert_eq!((size_of::<Reserve>(), align_of::<Reserve>()), (32, 8));
    assert_eq!((size_of::<Stats>(), align_of::<Stats>()), (192, 8));
}

#[test]
fn offsets() {
    assert_eq!(offset_of!(CreateCode, source), 0);
    assert_eq!(offset_of!(CreateCode, len), 8);
    assert_eq!(offset_of!(CreateCode, addr), 16);
    assert_eq!(offset_of!(CreateCode, flags), 24);
    assert_eq!(offset_of!(CreateCode, reserved), 28);
    assert_eq!(
        (offset_of!(Create, size), offset_of!(Create, flags)),
        (0, 8)
    );
    assert_eq!(offset_of!(Publish, segments), 0);
    assert_eq!(offset_of!(Publish, count), 8);
    assert_eq!(offset_of!(Publish, flags), 12);
    assert_eq!(offset_of!(Publish, expect), 16);
    assert_eq!(offset_of!(Segment, offset), 16);
    assert_eq!(offset_of!(Segment, align_log2), 24);
    assert_eq!(
        (offset_of!(Reserve, len), offset_of!(Reserve, align_log2)),
        (0, 8)
    );
    assert_eq!(
        (offset_of!(Stats, cursor), offset_of!(Stats, sealed)),
        (8, 104)
    );
}

#[test]
fn constants() {
    assert_eq!((PAGE_SIZE, FILL, ANY_OFFSET), (4096, 0xcc, u64::MAX));
    assert_eq!((MAX_REGION, MAX_CODE), (1 << 30, 1 << 30));
    assert_eq!((MAX_SEGMENTS, MAX_ALIGN_LOG2), (1024, 12));
    assert_eq!(
        (
            CREATE_CODE_FIXED,
            CREATE_ANY_MM,
            PUBLISH_SYNC,
            PUBLISH_FRESH
        ),
        (1, 1, 1, 2)
    );
}
