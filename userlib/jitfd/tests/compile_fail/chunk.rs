// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be published has passed validation: its parts are nobody else's to set.

use jitfd::{Align, Chunk, Rules, validate};

fn main() -> Result<(), jitfd::Error> {
    let validated = validate(&[0xc3], &Rules::new())?;
    let _changed = Chunk {
        align: Align::NONE,
        ..validated
    };
    Ok(())
}
