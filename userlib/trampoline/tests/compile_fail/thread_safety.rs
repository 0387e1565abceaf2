// SPDX-License-Identifier: MIT OR Apache-2.0
//! Closures for all threads capture what all threads may use.

use jitfd::{Fallback, Jit};
use jitfd_trampoline::Closure;
use std::cell::Cell;
use std::rc::Rc;

fn main() -> Result<(), jitfd::Error> {
    let jit = Jit::open(Fallback::Any)?;
    let calls = Cell::new(0);
    drop(Closure::new(&jit, || calls.set(1))?);
    let shared = Rc::new(0);
    drop(Closure::new_mut(&jit, move || drop(shared.clone()))?);
    let shared = Rc::new(true);
    drop(Closure::new_once(&jit, move || drop(shared))?);
    Ok(())
}
