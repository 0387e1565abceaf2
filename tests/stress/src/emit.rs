// SPDX-License-Identifier: GPL-2.0

//! Functions that prove who they are: `f(x)` is `x` mixed with the function's
//! own number, spread over instructions of many lengths, so that functions
//! cross lines and pages at every possible place.

use crate::random::Random;

/// The type of every function.
pub type Function = extern "C" fn(u32) -> u32;

/// What function `id` returns for `x`.
pub fn expected(id: u32, x: u32) -> u32 {
    (x ^ id).wrapping_add(id.rotate_left(7))
}

/// NOPs of one to nine bytes, as the processor manuals recommend.
const NOPS: [&[u8]; 9] = [
    &[0x90],
    &[0x66, 0x90],
    &[0x0f, 0x1f, 0x00],
    &[0x0f, 0x1f, 0x40, 0x00],
    &[0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
    &[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
    &[0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
];

fn pad(code: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(4) {
        code.extend_from_slice(NOPS[random.below(NOPS.len())]);
    }
}

/// The code of function `id`.
pub fn function(id: u32, random: &mut Random) -> Vec<u8> {
    let mut code = Vec::with_capacity(96);
    pad(&mut code, random);
    code.extend_from_slice(&[0x89, 0xf8]); // mov eax, edi
    pad(&mut code, random);
    code.push(0x35); // xor eax, id
    code.extend_from_slice(&id.to_le_bytes());
    pad(&mut code, random);
    // movabs rcx, rotated id; ten bytes, the longest with an identity
    code.extend_from_slice(&[0x48, 0xb9]);
    code.extend_from_slice(&u64::from(id.rotate_left(7)).to_le_bytes());
    pad(&mut code, random);
    code.extend_from_slice(&[0x01, 0xc8]); // add eax, ecx
    pad(&mut code, random);
    code.push(0xc3); // ret
    code
}

/// An upper bound of a function's length, in bytes.
pub const MAX_LEN: usize = 5 * 3 * 9 + 20;
