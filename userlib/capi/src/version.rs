// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which library a program runs with.

use std::ffi::c_char;

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");

/// The version of the library, as text: "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_version() -> *const c_char {
    VERSION.as_ptr().cast()
}
