// SPDX-License-Identifier: GPL-2.0

//! The functions that are published: 64 bytes, and each returns its own number.

/// Bytes of a function.
pub const LEN: usize = 64;

/// Functions that fill a page.
pub const PER_PAGE: usize = 4096 / LEN;

/// The type of every function.
pub type Function = extern "C" fn() -> u32;

const NOP_9: [u8; 9] = [0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0];

/// The code of function `id`: `mov eax, id`, NOPs, `ret`.
pub fn code(id: u32) -> [u8; LEN] {
    let mut code = [0x90; LEN];
    code[0] = 0xb8;
    code[1..5].copy_from_slice(&id.to_le_bytes());
    for nop in code[5..59].chunks_exact_mut(9) {
        nop.copy_from_slice(&NOP_9);
    }
    code[LEN - 1] = 0xc3;
    code
}

/// The code of `count` functions, one after the other.
pub fn codes(first: u32, count: usize) -> Vec<u8> {
    (first..).take(count).flat_map(code).collect()
}
