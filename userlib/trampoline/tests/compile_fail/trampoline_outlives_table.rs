// SPDX-License-Identifier: MIT OR Apache-2.0
//! A trampoline can't outlive its table.

use jitfd::{Fallback, Jit, Register};
use jitfd_trampoline::Table;

fn main() -> Result<(), jitfd::Error> {
    let table = Table::create(&Jit::open(Fallback::Any)?, Register::Rdi)?;
    let trampoline = unsafe { table.bind(std::ptr::null(), std::ptr::null_mut())? };
    drop(table);
    drop(trampoline);
    Ok(())
}
