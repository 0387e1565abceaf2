// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lossless conversions between `usize` and `u64`, in one place. Both have
//! 64 bits on the one architecture that the crate supports.

const _: () = assert!(usize::BITS == u64::BITS);

/// A size or address as the ABI wants it.
pub const fn to_u64(value: usize) -> u64 {
    value as u64
}

/// A size or address from the ABI.
#[expect(
    clippy::cast_possible_truncation,
    reason = "both have 64 bits, asserted above"
)]
pub const fn to_usize(value: u64) -> usize {
    value as usize
}

/// A wrapped difference of offsets as the signed number that it stands for.
#[expect(clippy::cast_possible_wrap, reason = "this is what it is for")]
pub const fn to_i64(value: u64) -> i64 {
    value as i64
}
