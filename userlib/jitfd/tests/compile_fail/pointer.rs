// SPDX-License-Identifier: MIT OR Apache-2.0
//! What code can be called by is a function pointer of a named calling convention.

use jitfd::{Fallback, Jit, Rules, validate};

fn main() -> Result<(), jitfd::Error> {
    let chunk = validate(&[0xc3], &Rules::new())?;
    let code = Jit::open(Fallback::Any)?.code(&chunk)?;
    // SAFETY: none is needed: it is refused.
    let _number = unsafe { code.entry::<u64>(0)? };
    // SAFETY: as above.
    let _rust = unsafe { code.entry::<fn()>(0)? };
    Ok(())
}
