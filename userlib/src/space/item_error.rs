// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why an item can't be part of an image, whatever the others are.

use std::fmt;
use std::ops::Range;

/// An item that can't be part of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ItemError {
    /// Its name.
    pub item: String,
    /// Its number, counted from 0.
    pub number: usize,
    /// Why it can't.
    pub reason: ItemReason,
}

/// Why an item can't be part of an image. Offsets are in bytes from the start of
/// the item.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ItemReason {
    /// A declared data range is empty or reaches beyond the item.
    DataRange {
        /// The range.
        range: Range<usize>,
        /// The length of the item.
        len: usize,
    },
    /// The last instruction of the item would go on with bytes behind it.
    Truncated,
}

impl fmt::Display for ItemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "item {} {:?}: ", self.number, self.item)?;
        match &self.reason {
            ItemReason::DataRange { range, len } => write!(
                f,
                "the data range {range:#x?} is empty or not inside of the item's {len:#x} bytes"
            ),
            ItemReason::Truncated => write!(f, "it ends inside an instruction"),
        }
    }
}

impl std::error::Error for ItemError {}
