// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a code space is asked for and what it gives.

use super::window::Window;
use crate::layout::Align;
use crate::region::Reservation;

/// Room for one function, before its code is there.
///
/// ```
/// use jitfd::Align;
/// use jitfd::space::Request;
///
/// let request = Request::new(200).align(Align::FUNCTION).name("fibonacci");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub(super) len: usize,
    pub(super) align: Align,
    pub(super) name: &'a str,
    pub(super) window: Option<Window>,
}

impl<'a> Request<'a> {
    /// `len` bytes, aligned to 16, without a name, in any region.
    #[must_use]
    pub const fn new(len: usize) -> Self {
        Self {
            len,
            align: Align::FUNCTION,
            name: "",
            window: None,
        }
    }

    pub(super) const fn len(mut self, len: usize) -> Self {
        self.len = len;
        self
    }

    /// Sets the alignment.
    #[must_use]
    pub const fn align(mut self, align: Align) -> Self {
        self.align = align;
        self
    }

    /// Sets the name under which the code is found by its address.
    #[must_use]
    pub const fn name(mut self, name: &'a str) -> Self {
        self.name = name;
        self
    }

    /// Sets where the code must lie. If no region is there, one is added.
    #[must_use]
    pub const fn window(mut self, window: Window) -> Self {
        self.window = Some(window);
        self
    }
}

/// Room in a code space whose address is known and whose code is still to come.
/// Until then executing it traps.
#[derive(Debug, PartialEq, Eq)]
pub struct Slot {
    pub(super) range: Reservation,
    pub(super) area: usize,
    /// The first of the entries of the index that it has.
    pub(super) entry: usize,
}

impl Slot {
    /// The address of the first byte.
    #[must_use]
    pub const fn address(&self) -> usize {
        self.range.address
    }

    /// The number of bytes.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.range.len
    }
}

/// A published function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Function {
    /// The address of its first byte.
    pub address: usize,
    /// The number of bytes.
    pub len: usize,
}

/// A published function, found by an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Symbol<'a> {
    /// The name that it was published with.
    pub name: &'a str,
    /// The address of its first byte.
    pub address: usize,
    /// The number of bytes.
    pub len: usize,
}
