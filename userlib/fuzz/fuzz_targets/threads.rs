// SPDX-License-Identifier: MIT OR Apache-2.0

//! Chunks that are large enough to be divided get the same verdict, and the same
//! error, from several threads as from one. The input is repeated until it is.
#![no_main]

use jitfd::{Options, Validated, validate};
use libfuzzer_sys::fuzz_target;

#[derive(arbitrary::Arbitrary, Debug)]
struct Input<'a> {
    threads: u8,
    /// Changes one byte of the whole.
    hit: Option<(u32, u8)>,
    data: Vec<(u32, u16)>,
    code: &'a [u8],
}

/// A little more than the least that is divided by three.
const LEN: usize = (3 << 19) + 5;

fuzz_target!(|input: Input<'_>| {
    if input.code.is_empty() {
        return;
    }
    let mut code: Vec<u8> = input.code.iter().copied().cycle().take(LEN).collect();
    if let Some((at, byte)) = input.hit {
        code[at as usize % LEN] = byte;
    }
    let mut options = Options::new();
    for (start, len) in input.data {
        let start = start as usize % LEN;
        options = options.data(start..(start + 1 + usize::from(len)).min(LEN));
    }
    let found =
        |chunk: Validated| -> Vec<bool> { (0..LEN).map(|at| chunk.is_boundary(at)).collect() };
    let one = validate(&code, &options.clone().threads(1)).map(found);
    let several = 2 + usize::from(input.threads) % 3;
    assert!(one == validate(&code, &options.threads(several)).map(found));
});
