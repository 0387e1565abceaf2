// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tells instructions from data in code that Cranelift compiled, by following
//! it: from each function's start through its instructions and direct branches.
//! An indirect jump is a `br_table`; its table lies right behind the jump.

use crate::compiler::BoxError;
use crate::table::Cases;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
use std::ops::Range;

/// For each byte of `text`, whether it is part of an instruction of one of the
/// `functions`.
pub fn find(text: &[u8], functions: &[Range<usize>]) -> Result<Vec<bool>, BoxError> {
    let mut walk = Walk {
        text,
        covered: vec![false; text.len()],
    };
    for function in functions {
        walk.function(function)?;
    }
    Ok(walk.covered)
}

struct Walk<'a> {
    text: &'a [u8],
    covered: Vec<bool>,
}

/// How an instruction passes control on.
enum Next {
    Through,
    Branch { target: usize, through: bool },
    Table,
    Stop,
}

impl Walk<'_> {
    fn function(&mut self, function: &Range<usize>) -> Result<(), BoxError> {
        let mut blocks = vec![function.start];
        while let Some(block) = blocks.pop() {
            self.block(block, function, &mut blocks)?;
        }
        Ok(())
    }

    /// Follows one run of instructions to its end, or to where it was followed
    /// before. Other places in `function` where control can go are pushed.
    fn block(
        &mut self,
        mut at: usize,
        function: &Range<usize>,
        blocks: &mut Vec<usize>,
    ) -> Result<(), BoxError> {
        let mut cases = Cases::new(self.text);
        while function.contains(&at) && !self.covered[at] {
            let instruction = self.decode(at, function)?;
            let end = at + instruction.len();
            self.covered[at..end].fill(true);
            at = end;
            match next(&instruction)? {
                Next::Through => cases.note(&instruction)?,
                Next::Branch { target, through } => {
                    // Calls leave the function: what they call has a symbol.
                    blocks.extend(Some(target).filter(|to| function.contains(to)));
                    if !through {
                        break;
                    }
                }
                Next::Table => {
                    blocks.extend(cases.targets(at, function)?);
                    break;
                }
                Next::Stop => break,
            }
        }
        Ok(())
    }

    fn decode(&self, at: usize, function: &Range<usize>) -> Result<Instruction, BoxError> {
        let bytes = &self.text[at..function.end];
        let ip = u64::try_from(at)?;
        let instruction = Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE).decode();
        if instruction.is_invalid() {
            return Err(format!("no instruction at offset {at:#x} of .text").into());
        }
        Ok(instruction)
    }
}

fn next(instruction: &Instruction) -> Result<Next, BoxError> {
    let jumps = instruction.mnemonic() == Mnemonic::Jmp;
    if instruction.op_count() > 0 && instruction.op0_kind() == OpKind::NearBranch64 {
        let target = usize::try_from(instruction.near_branch_target())?;
        return Ok(Next::Branch {
            target,
            through: !jumps,
        });
    }
    Ok(match instruction.mnemonic() {
        Mnemonic::Jmp => Next::Table,
        Mnemonic::Ret | Mnemonic::Ud2 => Next::Stop,
        _ => Next::Through,
    })
}

#[cfg(test)]
mod tests {
    use crate::compiler::BoxError;
    use std::slice;

    /// As if `text` was one function.
    fn find(text: &[u8]) -> Result<Vec<bool>, BoxError> {
        super::find(text, slice::from_ref(&(0..text.len())))
    }

    #[test]
    fn a_jump_table_is_data_and_its_cases_are_code() {
        let text = [
            0xb9, 1, 0, 0, 0, // mov ecx, 1: the last case
            0x48, 0x63, 0x04, 0x8a, // movsxd rax, [rdx + rcx * 4]
            0xff, 0xe2, // jmp rdx
            8, 0, 0, 0, 9, 0, 0, 0,    // two cases
            0xc3, // ret
            0x0f, 0x0b, // ud2
            0x06, // data
        ];
        let code = find(&text).unwrap();
        let data: Vec<usize> = (0..text.len()).filter(|&at| !code[at]).collect();
        assert_eq!(data, [11, 12, 13, 14, 15, 16, 17, 18, 22]);
    }

    #[test]
    fn both_ways_of_a_branch_are_followed() {
        // je +2; ret; a byte of data; nop; ud2
        let text = [0x74, 0x02, 0xc3, 0x06, 0x90, 0x0f, 0x0b];
        let code = find(&text).unwrap();
        assert_eq!(code, [true, true, true, false, true, true, true]);
    }

    #[test]
    fn what_cannot_be_followed_is_an_error() {
        assert!(find(&[0x06]).is_err());
        // jmp rax, of which no table is known
        assert!(find(&[0xff, 0xe0]).is_err());
    }
}
