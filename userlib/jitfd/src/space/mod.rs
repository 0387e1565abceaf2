// SPDX-License-Identifier: MIT OR Apache-2.0

//! Code space management: where code comes to lie, and finding it again.
//!
//! A [`Region`](crate::Region) is one region of fixed capacity. A [`CodeSpace`] is
//! as many of them as it takes, with the parts that every JIT compiler needs
//! around them: names, lookup by address, growth, relocation, statistics.
//!
//! | need | call |
//! |---|---|
//! | publish finished code | [`CodeSpace::publish`], [`CodeSpace::publish_all`] |
//! | know the address first | [`CodeSpace::reserve`] and [`CodeSpace::fill`], or [`CodeSpace::publish_with`] |
//! | many functions that refer to each other | [`CodeSpace::link`] |
//! | code that was made for another address | [`CodeSpace::publish_moved`] |
//! | code near some address | [`Request::window`], [`RegionOptions::window`](crate::RegionOptions::window) |
//! | from a program counter to its function | [`CodeSpace::lookup`] |
//! | perf, gdb, ... | [`SpaceOptions::listeners`] |

mod area;
mod code_space;
mod image;
mod index;
mod link;
mod listener;
#[cfg(feature = "move-code")]
mod moved;
mod options;
mod slot;
mod stats;
mod table;

pub use jitfd_code::{Reloc, RelocKind, Target};

pub use crate::os::window::Window;
pub use code_space::CodeSpace;
pub use image::Item;
pub use listener::{Listener, Symbol};
#[cfg(feature = "move-code")]
pub use moved::move_code;
pub use options::SpaceOptions;
pub use slot::Request;
pub use stats::SpaceStats;
