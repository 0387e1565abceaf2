// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arguments and results are what the System V ABI passes in one register.

use jitfd::{Fallback, Jit};
use jitfd_trampoline::Closure;

fn main() -> Result<(), jitfd::Error> {
    let jit = Jit::open(Fallback::Any)?;
    drop(Closure::new(&jit, |_: String| {})?);
    drop(Closure::new(&jit, |number: i32| number.to_string())?);
    Ok(())
}
