// SPDX-License-Identifier: GPL-2.0

//! The interface that userspace is compiled against, as literals: whoever
//! changes one of them breaks programs that exist.

use core::mem::{align_of, offset_of};

use jitfd_plan::abi::*;

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
fn sizes_and_alignments() {
    assert_eq!((size_of::<CreateCode>(), align_of::<CreateCode>()), (48, 8));
    assert_eq!((size_of::<Create>(), align_of::<Create>()), (32, 8));
    assert_eq!((size_of::<CloneFrom>(), align_of::<CloneFrom>()), (32, 4));
    assert_eq!((size_of::<Publish>(), align_of::<Publish>()), (40, 8));
    assert_eq!((size_of::<Segment>(), align_of::<Segment>()), (32, 8));
    assert_eq!((size_of::<Reserve>(), align_of::<Reserve>()), (32, 8));
    assert_eq!((size_of::<Stats>(), align_of::<Stats>()), (192, 8));
}

#[test]
fn the_structs_have_no_hidden_padding() {
    assert_eq!(offset_of!(CreateCode, reserved) + 5 * 4, 48);
    assert_eq!(offset_of!(Create, reserved) + 5 * 4, 32);
    assert_eq!(offset_of!(CloneFrom, reserved) + 6 * 4, 32);
    assert_eq!(offset_of!(Publish, reserved) + 4 * 4, 40);
    assert_eq!(offset_of!(Segment, reserved) + 4, 32);
    assert_eq!(offset_of!(Reserve, reserved) + 5 * 4, 32);
    assert_eq!(offset_of!(Stats, reserved) + 7 * 8, 192);
}

#[test]
fn flags_and_bounds() {
    assert_eq!((CREATE_CODE_FIXED, CREATE_ANY_MM), (1, 1));
    assert_eq!((PUBLISH_SYNC, PUBLISH_FRESH), (1, 2));
    assert_eq!((MAX_REGION, MAX_CODE), (1 << 30, 1 << 30));
    assert_eq!((MAX_SEGMENTS, MAX_ALIGN_LOG2), (1024, 12));
    assert_eq!((ANY_OFFSET, FILL, PAGE_SIZE), (u64::MAX, 0xcc, 4096));
}

/// Offsets are returned as the value of an ioctl, a C `int`.
#[test]
fn every_offset_is_a_positive_int() {
    assert!(i32::try_from(MAX_REGION).is_ok());
}
