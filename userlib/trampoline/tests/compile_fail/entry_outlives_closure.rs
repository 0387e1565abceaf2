// SPDX-License-Identifier: MIT OR Apache-2.0
//! A closure's function can't be called after the closure is dropped.

use jitfd::{Fallback, Jit};
use jitfd_trampoline::Closure;

fn main() -> Result<(), jitfd::Error> {
    let jit = Jit::open(Fallback::Any)?;
    let function = {
        let closure = Closure::new(&jit, || 1)?;
        unsafe { closure.entry() }
    };
    function();
    Ok(())
}
