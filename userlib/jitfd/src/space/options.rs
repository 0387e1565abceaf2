// SPDX-License-Identifier: MIT OR Apache-2.0

//! How a code space is made.

use super::listener::Listener;
use crate::os::window::Window;
use crate::region::options::RegionOptions;
use jitfd_code::Rules;
use std::fmt;
use std::sync::Arc;

/// How [`Jit::space`](crate::Jit::space) makes a code space, and how that grows.
///
/// ```
/// use jitfd::space::SpaceOptions;
/// use jitfd::tools::GdbJit;
/// use jitfd::{Class, Fallback, Jit, RegionOptions, Rules, Window};
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), jitfd::Error> {
/// fn helper() {}
/// let near = Window::reaching(helper as *const () as usize);
/// let space = Jit::open(Fallback::Any)?.space(SpaceOptions {
///     // Regions of 4 MiB, 256 MiB at most, from where `helper` can be called directly.
///     region: RegionOptions { capacity: 4 << 20, window: Some(near), ..Default::default() },
///     max_capacity: 256 << 20,
///     // All code can call all other code directly.
///     together: true,
///     // The runtime reads a word of its own before each function.
///     lead: 64,
///     // Linked code makes no system calls, and gdb knows its names.
///     rules: Rules::new().forbid(Class::SystemCalls),
///     listeners: vec![Arc::new(GdbJit::new())],
/// })?;
/// assert_eq!(space.stats().capacity, 4 << 20);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SpaceOptions {
    /// How each region is made.
    ///
    /// Its capacity is 16 MiB unless set. Code that is larger gets a region of its own
    /// size. Where there is no gap of that capacity at the addresses asked for, a
    /// region gets the largest gap there is; where the process may not have so many
    /// addresses, half as many, or half of that.
    pub region: RegionOptions,
    /// The capacity of all regions together, in bytes; rounded down to whole pages.
    /// As much as there is need for unless set.
    pub max_capacity: usize,
    /// Bytes at the start of each region that are never code: `int3`; 16 unless set. So
    /// the byte before a function can be read, and never is another function's.
    pub lead: usize,
    /// Whether all code is to be within reach of all other code by a 32-bit
    /// displacement. Then 2 GiB are the most that can be used.
    pub together: bool,
    /// By which rules [`CodeSpace::link`](super::CodeSpace::link) and
    /// [`CodeSpace::publish_moved`](super::CodeSpace::publish_moved) validate;
    /// data ranges and entries are added by them.
    pub rules: Rules,
    /// Who is told of all code that is published, such as a
    /// [`PerfMap`](crate::tools::PerfMap).
    pub listeners: Vec<Arc<dyn Listener>>,
}

impl Default for SpaceOptions {
    fn default() -> Self {
        Self::new()
    }
}

#[doc(hidden)]
impl SpaceOptions {
    #[must_use]
    pub const fn new() -> Self {
        Self {
            region: RegionOptions::new(),
            max_capacity: usize::MAX,
            lead: 16,
            together: false,
            rules: Rules::new(),
            listeners: Vec::new(),
        }
    }

    #[must_use]
    pub const fn region(mut self, options: RegionOptions) -> Self {
        let RegionOptions {
            capacity, window, ..
        } = self.region;
        self.region = options;
        self.region.capacity = capacity;
        if self.region.window.is_none() {
            self.region.window = window;
        }
        self
    }

    #[must_use]
    pub const fn region_capacity(mut self, bytes: usize) -> Self {
        self.region.capacity = bytes;
        self
    }

    #[must_use]
    pub const fn max_capacity(mut self, bytes: usize) -> Self {
        self.max_capacity = bytes;
        self
    }

    #[must_use]
    pub const fn lead(mut self, bytes: usize) -> Self {
        self.lead = bytes;
        self
    }

    #[must_use]
    pub const fn together(mut self, together: bool) -> Self {
        self.together = together;
        self
    }

    #[must_use]
    pub const fn window(mut self, window: Window) -> Self {
        self.region.window = Some(window);
        self
    }

    #[must_use]
    pub fn validation(mut self, options: Rules) -> Self {
        self.rules = options;
        self
    }

    #[must_use]
    pub fn listener(mut self, listener: Arc<dyn Listener>) -> Self {
        self.listeners.push(listener);
        self
    }
}

impl fmt::Debug for SpaceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpaceOptions")
            .field("region", &self.region)
            .field("max_capacity", &self.max_capacity)
            .field("lead", &self.lead)
            .field("together", &self.together)
            .finish_non_exhaustive()
    }
}
