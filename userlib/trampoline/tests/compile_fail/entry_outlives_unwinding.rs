// SPDX-License-Identifier: MIT OR Apache-2.0
//! A function that ends the program by a panic is none that passes it on.

use jitfd::{Fallback, Jit};
use jitfd_trampoline::Closure;

fn main() -> Result<(), jitfd::Error> {
    let closure = Closure::new(&Jit::open(Fallback::Any)?, || 1)?;
    let function = unsafe { closure.entry() };
    let closure = closure.unwinding();
    function();
    drop(closure);
    Ok(())
}
