// SPDX-License-Identifier: MIT OR Apache-2.0
//! A function pointer does not outlive the code space that its code is in.

use jitfd::space::SpaceOptions;
use jitfd::{Fallback, Jit, Rules, validate};

fn main() -> Result<(), jitfd::Error> {
    let chunk = validate(&[0xc3], &Rules::new())?;
    let space = Jit::open(Fallback::Any)?.space(SpaceOptions::default())?;
    let published = space.publish("nothing", &chunk)?;
    // SAFETY: the code is such a function.
    let nothing = unsafe { space.entry::<extern "C" fn()>(published)? };
    drop(space);
    nothing();
    Ok(())
}
