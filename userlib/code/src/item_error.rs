// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why an item can't be part of an image, whatever the others are.

use std::fmt;
use std::ops::Range;

/// An item that can't be part of an image.
///
/// ```
/// use jitfd::Error;
/// use jitfd::space::{Image, Item, ItemError, ItemReason};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// # let region = jitfd::RegionOptions::new().fallback(jitfd::Fallback::Any);
/// # let space = jitfd::space::SpaceOptions::new().region(region).create()?;
/// let mut image = Image::new();
/// // A constant of 8 bytes, of which one is missing.
/// image.add(Item::new("constant", vec![0; 7]).data(0..8));
/// match space.link(&image) {
///     Err(Error::Item(error)) => {
///         let ItemError { item, number, reason, .. } = *error;
///         assert_eq!((item.as_str(), number), ("constant", 0));
///         assert_eq!(reason, ItemReason::DataRange { range: 0..8, len: 7 });
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok(())
/// # }
/// ```
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
///
/// See the example of [`ItemError`].
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

impl ItemError {
    /// What is wrong with the item of this name and number.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(item: String, number: usize, reason: ItemReason) -> Self {
        Self {
            item,
            number,
            reason,
        }
    }
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
