// SPDX-License-Identifier: MIT OR Apache-2.0

//! Code space: where code comes to lie, and finding it again.

pub(crate) mod near;
mod window;

pub use window::Window;
