// SPDX-License-Identifier: MIT OR Apache-2.0
//! What makes closures is a Jit or a table.

use jitfd::Fallback;
use jitfd_trampoline::Closure;

fn main() -> Result<(), jitfd::Error> {
    drop(Closure::new(&Fallback::Any, || {})?);
    Ok(())
}
