// SPDX-License-Identifier: MIT OR Apache-2.0

//! The WebAssembly program of the demo and how it is run: the same code on the
//! host and in the guest, so that only the machine code below it differs.

#![forbid(unsafe_code)]

mod errno;
mod memory;
mod render;
mod wasi;

pub use render::{RenderError, render};

/// What the compiler writes and the guest reads, all in one folder.
pub mod files {
    /// The picture's source.
    pub const SVG: &str = "picture.svg";
    /// The picture as the host's run of the program drew it.
    pub const EXPECTED: &str = "expected.png";
    /// The renderer's machine code: an ELF image for `Module::deserialize_raw`.
    pub const RENDERER: &str = "renderer.cwasm";
    /// The machine code of three functions that trap.
    pub const TRAPS: &str = "traps.cwasm";
    /// Appended to the name of an image: which of its bytes are data.
    pub const DATA_SUFFIX: &str = ".data";
    /// The picture as the guest drew it.
    pub const PICTURE: &str = "picture.png";
}
