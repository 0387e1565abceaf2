// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a code space is asked for, and what it returns.

use crate::os::window::Window;
use jitfd_code::Align;

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

    #[cfg(feature = "move-code")]
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
    ///
    /// ```
    /// use jitfd::space::Request;
    /// use jitfd::{Rules, Window, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let space = jit.space(jitfd::space::SpaceOptions::default())?;
    /// fn helper() {}
    /// // This function calls `helper` directly; others need not.
    /// let near = Window::reaching(helper as *const () as usize);
    /// let request = Request::new(64).name("caller").window(near);
    /// let slot = space.reserve(&request)?;
    /// assert!(near.contains(slot.address, slot.len));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn window(mut self, window: Window) -> Self {
        self.window = Some(window);
        self
    }
}
