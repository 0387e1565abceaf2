// SPDX-License-Identifier: GPL-2.0

//! yaxpeax-x86.

use crate::Sample;
use crate::ledger::{Decoded, Ledger};
use yaxpeax_arch::{Decoder, LengthedInstruction, U8Reader};
use yaxpeax_x86::long_mode::{InstDecoder, Instruction, Opcode, Operand};

pub fn check(sample: &Sample) -> Option<usize> {
    let decoder = InstDecoder::default();
    let mut instruction = Instruction::default();
    Ledger::check(sample, |bytes| {
        let mut reader = U8Reader::new(bytes);
        decoder.decode_into(&mut instruction, &mut reader).ok()?;
        Some(Decoded {
            len: instruction.len().to_const() as usize,
            displacement: displacement(&instruction),
        })
    })
}

#[inline]
fn displacement(instruction: &Instruction) -> Option<i64> {
    use Opcode::*;
    let branches = matches!(
        instruction.opcode(),
        JMP | CALL
            | JO
            | JNO
            | JB
            | JNB
            | JZ
            | JNZ
            | JA
            | JNA
            | JS
            | JNS
            | JP
            | JNP
            | JL
            | JGE
            | JLE
            | JG
            | XBEGIN
            | LOOPNZ
            | LOOPZ
            | LOOP
            | JRCXZ
            | JECXZ
    );
    match branches.then(|| instruction.operand(0))? {
        Operand::ImmediateI8 { imm } => Some(imm.into()),
        Operand::ImmediateI32 { imm } => Some(imm.into()),
        _ => None,
    }
}
