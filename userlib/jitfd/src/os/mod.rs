// SPDX-License-Identifier: MIT OR Apache-2.0

//! The operating system, and the memory that it gives: the bottom of the library.

pub(crate) mod fallible;
pub(crate) mod fork;
pub(crate) mod fork_lock;
pub(crate) mod near;
pub(crate) mod sys;
pub(crate) mod window;
