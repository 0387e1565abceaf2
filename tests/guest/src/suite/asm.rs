// SPDX-License-Identifier: GPL-2.0
//! Machine code of the tests.

/// `mov eax, value; ret`: six bytes.
pub fn answer(value: u32) -> Vec<u8> {
    let mut code = vec![0xb8];
    code.extend(value.to_le_bytes());
    code.push(0xc3);
    code
}

/// The same after one-byte `nop`s, `len` bytes in all.
pub fn long_answer(value: u32, len: usize) -> Vec<u8> {
    let code = answer(value);
    let mut long = vec![0x90; len - code.len()];
    long.extend(code);
    long
}

/// `call target; ret` for code that will lie at `at`; offsets of one region.
pub fn call(at: u64, target: u64) -> Vec<u8> {
    let displacement = target.wrapping_sub(at + 5) as u32;
    let mut code = vec![0xe8];
    code.extend(displacement.to_le_bytes());
    code.push(0xc3);
    code
}

/// `int3; mov eax, value; ret`.
pub fn breakpoint_then(value: u32) -> Vec<u8> {
    let mut code = vec![0xcc];
    code.extend(answer(value));
    code
}

/// `CD 03` (the two-byte int 3), then `mov eax, value; ret`.
pub fn int_3_then(value: u32) -> Vec<u8> {
    let mut code = vec![0xcd, 0x03];
    code.extend(answer(value));
    code
}

/// `mov eax, [rip + 1]; ret; value`: code that loads data of its own.
pub fn load_own_data(value: u32) -> Vec<u8> {
    let mut code = vec![0x8b, 0x05, 1, 0, 0, 0, 0xc3];
    code.extend(value.to_le_bytes());
    code
}
