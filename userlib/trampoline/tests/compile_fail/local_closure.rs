// SPDX-License-Identifier: MIT OR Apache-2.0
//! A closure of a thread stays there.

use jitfd::{Fallback, Jit};
use jitfd_trampoline::Closure;

fn moves<T: Send>(_: T) {}

fn main() -> Result<(), jitfd::Error> {
    moves(Closure::new_local(&Jit::open(Fallback::Any)?, || {})?);
    Ok(())
}
