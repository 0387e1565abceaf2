// SPDX-License-Identifier: MIT OR Apache-2.0
//! A function pointer does not outlive the code that is mapped.

use jitfd::{Fallback, Jit, Rules, validate};

fn main() -> Result<(), jitfd::Error> {
    let chunk = validate(&[0xc3], &Rules::new())?;
    let code = Jit::open(Fallback::Any)?.code(&chunk)?;
    // SAFETY: the code is such a function.
    let nothing = unsafe { code.entry::<extern "C" fn()>(0)? };
    drop(code);
    nothing();
    Ok(())
}
