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
/// let request = Request { align: Align::FUNCTION, name: "fibonacci", ..Request::new(200) };
/// ```
///
/// In a window:
/// ```
/// use jitfd::Window;
/// use jitfd::space::{Request, SpaceOptions};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
/// # let space = jit.space(SpaceOptions::default())?;
/// fn helper() {}
/// // This function calls `helper` directly; others need not.
/// let near = Window::reaching(helper as *const () as usize);
/// let request = Request { name: "caller", window: Some(near), ..Request::new(64) };
/// let slot = space.reserve(&request)?;
/// assert!(near.contains(slot.address, slot.len));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The number of bytes.
    pub len: usize,
    /// The alignment.
    pub align: Align,
    /// The name under which the code is found by its address.
    pub name: &'a str,
    /// Where the code must lie. If no region is there, one is added.
    pub window: Option<Window>,
}

impl Request<'_> {
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
}
