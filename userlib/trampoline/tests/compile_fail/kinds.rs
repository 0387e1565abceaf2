// SPDX-License-Identifier: MIT OR Apache-2.0
//! A closure that changes or is used up is made by its own constructor.

use jitfd::{Fallback, Jit};
use jitfd_trampoline::Closure;

fn main() -> Result<(), jitfd::Error> {
    let jit = Jit::open(Fallback::Any)?;
    let mut calls = 0;
    drop(Closure::new(&jit, |by: i32| calls += by)?);
    let text = String::new();
    drop(Closure::new_mut(&jit, move || drop(text))?);
    Ok(())
}
