// SPDX-License-Identifier: GPL-2.0

//! capstone, without details, which would make it slower still: branches are
//! told from the bytes.

use crate::Sample;
use crate::ledger::{Decoded, Ledger};
use capstone::arch::BuildsCapstone;
use capstone::{Capstone, arch::x86::ArchMode};

pub fn check(sample: &Sample) -> Option<usize> {
    let capstone = Capstone::new().x86().mode(ArchMode::Mode64).build().ok()?;
    Ledger::check(sample, |bytes| {
        // One instruction at a time, into a buffer of its own that is kept.
        let mut all = capstone.disasm_iter(bytes, 0).ok()?;
        let instruction = all.next()?;
        let found = instruction.bytes();
        Some(Decoded {
            len: found.len(),
            displacement: displacement(found),
        })
    })
}

fn displacement(instruction: &[u8]) -> Option<i64> {
    let is_prefix = |byte: &u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    let at = instruction.iter().position(|byte| !is_prefix(byte))?;
    match &instruction[at..] {
        [0x70..=0x7f | 0xe0..=0xe3 | 0xeb, byte] => Some((*byte as i8).into()),
        [0xe8 | 0xe9, rest @ ..] | [0x0f, 0x80..=0x8f, rest @ ..] | [0xc7, 0xf8, rest @ ..] => {
            Some(i32::from_le_bytes(rest.try_into().ok()?).into())
        }
        _ => None,
    }
}
