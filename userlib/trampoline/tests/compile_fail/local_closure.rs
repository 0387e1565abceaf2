// SPDX-License-Identifier: MIT OR Apache-2.0
//! A closure of a thread stays there.

use jitfd::{Fallback, Jit};
use jitfd_trampoline::LocalClosure;

fn moves<T: Send>(_: T) {}

fn main() -> Result<(), jitfd::Error> {
    moves(LocalClosure::new(&Jit::open(Fallback::Any)?, || {})?);
    Ok(())
}
