// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be published has passed validation: bytes are not turned into it.

use jitfd::Chunk;

fn main() {
    let _default = Chunk::default();
    let _converted = Chunk::from(vec![0x06]);
}
