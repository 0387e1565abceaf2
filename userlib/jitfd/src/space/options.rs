// SPDX-License-Identifier: MIT OR Apache-2.0

//! How a code space is made.

use super::listener::Listener;
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
///     listeners: vec![Arc::new(GdbJit::default())],
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
        Self {
            region: RegionOptions::default(),
            max_capacity: usize::MAX,
            lead: 16,
            together: false,
            rules: Rules::new(),
            listeners: Vec::new(),
        }
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
