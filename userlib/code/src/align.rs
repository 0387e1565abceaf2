// SPDX-License-Identifier: MIT OR Apache-2.0

//! Alignments, and the two lengths that code is laid out by.

use crate::error::{CodeError, Reason};

/// The page size, in bytes.
pub const PAGE_SIZE: usize = 4096;

/// The bytes that a CPU fetches by one translation: a cache line.
pub const LINE: usize = 64;

/// An alignment: a power of two from 1 byte to a page.
///
/// ```
/// use jitfd::Align;
///
/// assert_eq!(Align::new(32).unwrap().bytes(), 32);
/// assert!(Align::new(48).is_err());
/// let named = [Align::NONE, Align::FUNCTION, Align::LINE, Align::PAGE];
/// assert_eq!(named.map(Align::bytes), [1, 16, 64, 4096]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Align(u32);

impl Align {
    /// No alignment.
    pub const NONE: Self = Self(0);
    /// 16 bytes: what compilers give functions.
    pub const FUNCTION: Self = Self(4);
    /// 64 bytes: a cache line.
    pub const LINE: Self = Self(LINE.trailing_zeros());
    /// 4096 bytes.
    pub const PAGE: Self = Self(PAGE_SIZE.trailing_zeros());

    /// An alignment of `bytes`.
    ///
    /// # Errors
    /// [`Reason::BadAlign`] if that is not a power of two from 1 to 4096.
    pub const fn new(bytes: usize) -> Result<Self, CodeError> {
        if bytes.is_power_of_two() && bytes.trailing_zeros() <= PAGE_SIZE.trailing_zeros() {
            Ok(Self(bytes.trailing_zeros()))
        } else {
            Err(CodeError::whole(Reason::BadAlign { bytes }))
        }
    }

    /// The alignment in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        1 << self.0
    }

    /// The largest alignment that `offset` has.
    #[doc(hidden)]
    #[must_use]
    pub const fn of(offset: usize) -> Self {
        let log2 = offset.trailing_zeros();
        Self(if log2 < Self::PAGE.0 {
            log2
        } else {
            Self::PAGE.0
        })
    }

    /// The alignment as the ABI has it.
    #[doc(hidden)]
    #[must_use]
    pub const fn log2(self) -> u32 {
        self.0
    }

    /// The first multiple that is not below `offset`; `None` on overflow.
    #[doc(hidden)]
    #[must_use]
    pub const fn up(self, offset: usize) -> Option<usize> {
        offset.checked_next_multiple_of(self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignments_are_powers_of_two_up_to_a_page() {
        for bytes in [0, 3, 48, 8192, usize::MAX] {
            assert!(Align::new(bytes).is_err(), "{bytes}");
        }
        for log2 in 0..=12 {
            let align = Align::new(1 << log2).unwrap();
            assert_eq!((align.log2(), align.bytes()), (log2, 1 << log2));
        }
        assert_eq!(Align::PAGE.up(usize::MAX), None);
    }
}
