// SPDX-License-Identifier: MIT OR Apache-2.0

//! Trampolines: small pieces of code that bring a pointer along, or set registers,
//! and go on to code that was there long before.
//!
//! | need | here |
//! |---|---|
//! | a C function pointer that carries a context pointer, any number of them, that come and go | [`Table`] |
//! | any general registers set, values pushed, from a description; nothing that can be changed later | [`Setting`] |
//!
//! | | [`Table`] | [`Setting`] |
//! |---|---|---|
//! | sets | one register, of seven | all general registers, `rsp` too; pushes values |
//! | one more costs | two stores | a publication; many can share one |
//! | memory for each | 16 bytes of data | 16 to 32 bytes of code, for one or two registers |
//! | is freed | each by itself, used again | with its code space |
//! | context and target are | data of the program, writable | constants in code, never writable |
//!
//! All begin with `endbr64`, leave the shadow stack in step and the flags as they
//! were, are in readable code that has passed validation, and work under
//! `PR_SET_MDWE` with every backend but mprotect flips.

// In the order in which a trampoline is made.
mod assemble;
mod register;

mod embedded;
mod setting;

mod stub;
mod table;

mod cache;
mod pool;
mod slots;

mod copy;
mod frame;

pub use register::{Carrier, Gpr};
pub use setting::Setting;
pub use table::{Entry, Table, TableOptions, TableStats};
