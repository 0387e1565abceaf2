// SPDX-License-Identifier: MIT OR Apache-2.0

//! The shortest way: two instructions become a function that returns 42.
//!
//! With the jit module loaded the kernel publishes them. Without it this program
//! accepts a fallback, and the library says on standard error why it was needed.

use jitfd::{Error, Fallback, Jit, Rules, validate};

fn main() -> Result<(), Error> {
    // mov eax, 42; ret
    let bytes = [0xb8, 42, 0, 0, 0, 0xc3];
    let chunk = validate(&bytes, &Rules::new())?;
    let jit = Jit::open(Fallback::Any)?;
    let code = jit.code(&chunk)?;
    println!("the code was published by: {}", jit.backend());
    // SAFETY: the bytes are a function of this type.
    let answer = unsafe { code.entry::<extern "C" fn() -> i32>(0)? };
    println!("code at {:#x} returns {}", code.address(), answer());
    Ok(())
}
