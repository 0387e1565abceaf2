// SPDX-License-Identifier: MIT OR Apache-2.0
//! A function pointer does not outlive the region that its code is in, nor one that is
//! taken apart.

use jitfd::{Fallback, Jit, Rules, validate};

fn main() -> Result<(), jitfd::Error> {
    let chunk = validate(&[0xc3], &Rules::new())?;
    let region = Jit::open(Fallback::Any)?.region(4096)?;
    let published = region.publish(&chunk)?;
    // SAFETY: the code is such a function.
    let nothing = unsafe { region.entry::<extern "C" fn()>(published)? };
    drop(region.split());
    nothing();
    Ok(())
}
