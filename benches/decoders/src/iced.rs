// SPDX-License-Identifier: GPL-2.0

//! iced-x86: the bare loop, and the check as one would write it at first.

use crate::Sample;
use crate::ledger::{Decoded, Ledger};
use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind};
use std::hint::black_box;

/// Decodes everything and keeps nothing.
pub fn bare(sample: &Sample) -> Option<usize> {
    let mut instruction = Instruction::default();
    for run in sample.runs() {
        let mut decoder = Decoder::new(64, &sample.bytes[run], DecoderOptions::NONE);
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            black_box(&instruction);
        }
    }
    Some(0)
}

/// One decoder for each run of code, as its user would have it.
pub fn check(sample: &Sample) -> Option<usize> {
    let mut instruction = Instruction::default();
    let mut decoder = Decoder::new(64, &[], DecoderOptions::NONE);
    let mut end = std::ptr::null();
    Ledger::check(sample, |bytes| {
        if bytes.as_ptr_range().end != end {
            decoder = Decoder::new(64, bytes, DecoderOptions::NONE);
            end = bytes.as_ptr_range().end;
        }
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            return None;
        }
        let near = instruction.op0_kind() == OpKind::NearBranch64;
        let displacement = || instruction.near_branch_target().wrapping_sub(decoder.ip());
        Some(Decoded {
            len: instruction.len(),
            displacement: near.then(|| displacement() as i64),
        })
    })
}
