// SPDX-License-Identifier: MIT OR Apache-2.0

//! Trampolines: small pieces of code that bring a pointer along, or set registers,
//! and go on to a function that was compiled long before.
//!
//! | need | here |
//! |---|---|
//! | a C function pointer that carries a context pointer | [`Table`] |

// In the order in which a trampoline is made.
mod assemble;
mod register;
mod stub;

mod cache;
mod copy;
mod pool;
mod slots;
mod table;

pub use register::{Carrier, Gpr};
pub use table::{Entry, Table, TableOptions, TableStats};
