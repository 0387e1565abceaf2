// SPDX-License-Identifier: MIT OR Apache-2.0

//! How a code space is made.

use super::listener::Listener;
use crate::os::window::Window;
use crate::region::options::RegionOptions;
use jitfd_code::Rules;
use std::fmt;
use std::sync::Arc;

/// How a [`CodeSpace`](super::CodeSpace) is made and how it grows.
///
/// ```
/// use jitfd::space::SpaceOptions;
/// use jitfd::tools::GdbJit;
/// use jitfd::{Class, Fallback, Rules, RegionOptions, Window};
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), jitfd::Error> {
/// fn helper() {}
/// let space = SpaceOptions::new()
///     // Regions of 4 MiB, 256 MiB at most; also where there is no /dev/jit.
///     .region(RegionOptions::new().fallback(Fallback::Any))
///     .region_capacity(4 << 20)
///     .max_capacity(256 << 20)
///     // All code can call `helper` and all other code directly.
///     .together(true)
///     .window(Window::reaching(helper as *const () as usize))
///     // The runtime reads a word of its own before each function.
///     .lead(64)
///     // Linked code makes no system calls, and gdb knows its names.
///     .validation(Rules::new().forbid(Class::SystemCalls))
///     .listener(Arc::new(GdbJit::new()))
///     .create()?;
/// assert_eq!(space.stats().capacity, 4 << 20);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SpaceOptions {
    pub(crate) region: RegionOptions,
    pub(super) region_capacity: usize,
    pub(super) max_capacity: usize,
    pub(super) lead: usize,
    pub(super) together: bool,
    pub(super) window: Option<Window>,
    pub(super) validation: Rules,
    pub(super) listeners: Vec<Arc<dyn Listener>>,
}

impl Default for SpaceOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl SpaceOptions {
    /// Regions of 16 MiB, as many as there is need for, anywhere, each with 16
    /// trap bytes before its first function.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            region: RegionOptions::new(),
            region_capacity: 16 << 20,
            max_capacity: usize::MAX,
            lead: 16,
            together: false,
            window: None,
            validation: Rules::new(),
            listeners: Vec::new(),
        }
    }

    /// How each region is created: who may publish, whether branches between
    /// chunks are checked. A window set there holds only as long as none is asked for
    /// in another way ([`window`](Self::window), [`together`](Self::together),
    /// [`Request::window`](super::Request::window)): set it by [`window`](Self::window).
    #[must_use]
    pub const fn region(mut self, options: RegionOptions) -> Self {
        self.region = options;
        self
    }

    /// The capacity of each region in bytes, at most 1 GiB. Code that is larger
    /// gets a region of its own size. Where there is no gap of that capacity at the
    /// addresses asked for, a region gets the largest gap there is; where the process
    /// may not have so many addresses, half as many, or half of that. Memory is used
    /// only for what is published.
    #[must_use]
    pub const fn region_capacity(mut self, bytes: usize) -> Self {
        self.region_capacity = bytes;
        self
    }

    /// The capacity of all regions together, in bytes; rounded down to whole pages.
    #[must_use]
    pub const fn max_capacity(mut self, bytes: usize) -> Self {
        self.max_capacity = bytes;
        self
    }

    /// Bytes at the start of each region that are never code: `int3`. So the
    /// byte before a function can be read, and never is another function's.
    #[must_use]
    pub const fn lead(mut self, bytes: usize) -> Self {
        self.lead = bytes;
        self
    }

    /// Whether all code is to be within reach of all other code by a 32-bit
    /// displacement. Then 2 GiB are the most that can be used.
    #[must_use]
    pub const fn together(mut self, together: bool) -> Self {
        self.together = together;
        self
    }

    /// Where in the address space every region must lie.
    #[must_use]
    pub const fn window(mut self, window: Window) -> Self {
        self.window = Some(window);
        self
    }

    /// By which rules [`CodeSpace::link`](super::CodeSpace::link) and
    /// [`CodeSpace::publish_moved`](super::CodeSpace::publish_moved) validate;
    /// data ranges and entries are added by them.
    #[must_use]
    pub fn validation(mut self, options: Rules) -> Self {
        self.validation = options;
        self
    }

    /// Adds a listener, which is told of all code that is published, such as a
    /// [`PerfMap`](crate::tools::PerfMap).
    #[must_use]
    pub fn listener(mut self, listener: Arc<dyn Listener>) -> Self {
        self.listeners.push(listener);
        self
    }
}

impl fmt::Debug for SpaceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpaceOptions")
            .field("region_capacity", &self.region_capacity)
            .field("max_capacity", &self.max_capacity)
            .field("together", &self.together)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}
