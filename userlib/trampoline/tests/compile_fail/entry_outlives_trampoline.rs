// SPDX-License-Identifier: MIT OR Apache-2.0
//! A trampoline of a table can't be called after it is dropped.

use jitfd::{Fallback, Jit, Register};
use jitfd_trampoline::{SaveAllTrampoline, Table};

fn main() -> Result<(), jitfd::Error> {
    let jit = Jit::open(Fallback::Any)?;
    let table = Table::create(&jit, Register::Rdi)?;
    let trampoline = unsafe { table.bind(std::ptr::null(), std::ptr::null_mut())? };
    let function = unsafe { trampoline.entry::<extern "C" fn()>() };
    drop(trampoline);
    function();

    let save_all = SaveAllTrampoline::new(&jit, |_| {})?;
    let function = unsafe { save_all.entry::<extern "C" fn()>() };
    drop(save_all);
    function();
    Ok(())
}
