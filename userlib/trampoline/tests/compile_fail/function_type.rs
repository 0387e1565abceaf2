// SPDX-License-Identifier: MIT OR Apache-2.0
//! A trampoline is called by a function pointer.

use jitfd::{Fallback, Jit};
use jitfd_trampoline::SaveAllTrampoline;

fn main() -> Result<(), jitfd::Error> {
    let save_all = SaveAllTrampoline::new(&Jit::open(Fallback::Any)?, |_| {})?;
    let _ = unsafe { save_all.entry::<u64>() };
    Ok(())
}
