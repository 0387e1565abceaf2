// SPDX-License-Identifier: MIT OR Apache-2.0

//! The error numbers of WASI preview 1 that the demo's files can give.

/// Why a call failed, as the program is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(i32);

impl Errno {
    /// Not an open descriptor, or not one that can do this.
    pub const BADF: Self = Self(8);
    /// A pointer outside the program's memory.
    pub const FAULT: Self = Self(21);
}

/// The number that a call returns to the program.
pub fn number(result: Result<(), Errno>) -> i32 {
    result.map_or_else(|errno| errno.0, |()| 0)
}
