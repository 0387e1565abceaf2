// SPDX-License-Identifier: MIT OR Apache-2.0
//! A closure can't outlive what it has captured, and none that borrows is kept for ever.

use jitfd::{Fallback, Jit};
use jitfd_trampoline::Closure;

fn main() -> Result<(), jitfd::Error> {
    let jit = Jit::open(Fallback::Any)?;
    let number = vec![1];
    let closure = Closure::new(&jit, || number[0])?;
    drop(number);
    drop(closure);

    let number = vec![1];
    let for_ever = Closure::new(&jit, || number[0])?.leak();
    for_ever();
    Ok(())
}
