// SPDX-License-Identifier: MIT OR Apache-2.0

//! Chunks that are large enough to be divided get the same verdict, and the same
//! error, from several threads as from one. The input is repeated until it is;
//! with `cfg(fuzzing)` that does not take much.
#![no_main]

use jitfd_code::{Chunk, Rules, validate};
use libfuzzer_sys::fuzz_target;

#[derive(arbitrary::Arbitrary, Debug)]
struct Input<'a> {
    threads: u8,
    /// Changes one byte of the whole.
    hit: Option<(u16, u8)>,
    data: Vec<(u16, u8)>,
    code: &'a [u8],
}

/// Enough for five threads.
const LEN: usize = (5 << 8) + 5;

fuzz_target!(|input: Input<'_>| {
    if input.code.is_empty() {
        return;
    }
    let mut code: Vec<u8> = input.code.iter().copied().cycle().take(LEN).collect();
    if let Some((at, byte)) = input.hit {
        code[usize::from(at) % LEN] = byte;
    }
    let mut options = Rules::new();
    for (start, len) in input.data {
        let start = usize::from(start) % LEN;
        options = options.data(start..(start + 1 + usize::from(len)).min(LEN));
    }
    let found = |chunk: Chunk| -> Vec<bool> { (0..LEN).map(|at| chunk.is_boundary(at)).collect() };
    let one = validate(&code, &options.clone().threads(1)).map(found);
    let several = 2 + usize::from(input.threads) % 4;
    assert!(one == validate(&code, &options.threads(several)).map(found));
});
