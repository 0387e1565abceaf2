// SPDX-License-Identifier: MIT OR Apache-2.0

//! A WebAssembly module whose functions trap. Its text form:
//!
//! ```text
//! (module
//!   (memory 1)
//!   (func (export "unreachable") unreachable)
//!   (func (export "divide") (param i32 i32) (result i32)
//!     local.get 0 local.get 1 i32.div_s)
//!   (func (export "load") (param i32) (result i32)
//!     local.get 0 i32.load))
//! ```

/// The module in its binary form, one section a group of lines.
#[rustfmt::skip]
pub const MODULE: [u8; 92] = [
    0x00, b'a', b's', b'm', 1, 0, 0, 0,
    // types: () -> (), (i32 i32) -> i32, (i32) -> i32
    1, 15, 3,
    0x60, 0, 0,
    0x60, 2, 0x7f, 0x7f, 1, 0x7f,
    0x60, 1, 0x7f, 1, 0x7f,
    // functions
    3, 4, 3, 0, 1, 2,
    // one memory of one page
    5, 3, 1, 0, 1,
    // exports
    7, 31, 3,
    11, b'u', b'n', b'r', b'e', b'a', b'c', b'h', b'a', b'b', b'l', b'e', 0, 0,
    6, b'd', b'i', b'v', b'i', b'd', b'e', 0, 1,
    4, b'l', b'o', b'a', b'd', 0, 2,
    // bodies
    10, 21, 3,
    3, 0, 0x00, 0x0b,
    7, 0, 0x20, 0, 0x20, 1, 0x6d, 0x0b,
    7, 0, 0x20, 0, 0x28, 2, 0, 0x0b,
];
