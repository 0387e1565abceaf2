// SPDX-License-Identifier: MIT OR Apache-2.0

//! The jump tables of Cranelift's `br_table`. Before the jump the case is
//! limited to the last one, which is the default, and its entry is loaded:
//!
//! ```text
//! mov    ecx, LAST              (or a cmov of a constant in memory)
//! cmp    eax, ecx
//! cmovb  ecx, eax
//! lea    rdx, [rip + table]
//! movsxd rax, dword [rdx + rcx * 4]
//! add    rdx, rax
//! jmp    rdx
//! table: one signed 32-bit distance from the table for each case
//! ```

use crate::compiler::BoxError;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use std::collections::HashMap;
use std::ops::Range;

/// What one run of instructions says about the table at its end.
pub struct Cases<'a> {
    text: &'a [u8],
    /// The last constant that was moved into a register, by its number.
    constants: HashMap<usize, usize>,
    /// The last case, once an entry was loaded.
    last: Option<usize>,
}

impl<'a> Cases<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            constants: HashMap::new(),
            last: None,
        }
    }

    /// Looks at an instruction on the way to the jump.
    pub fn note(&mut self, instruction: &Instruction) -> Result<(), BoxError> {
        if instruction.mnemonic() == Mnemonic::Movsxd && instruction.memory_index_scale() == 4 {
            let index = number(instruction.memory_index());
            self.last = index.and_then(|index| self.constants.get(&index).copied());
        } else if let Some((register, constant)) = self.constant(instruction)? {
            self.constants.insert(register, constant);
        }
        Ok(())
    }

    /// The places in `function` where the table at `table` sends control.
    pub fn targets(&self, table: usize, function: &Range<usize>) -> Result<Vec<usize>, BoxError> {
        let unknown = || format!("the jump table at offset {table:#x} of .text has no known size");
        let last = self.last.ok_or_else(unknown)?;
        (0..=last)
            .map(|case| self.target(table, case, function))
            .collect()
    }

    fn target(
        &self,
        table: usize,
        case: usize,
        function: &Range<usize>,
    ) -> Result<usize, BoxError> {
        let distance = isize::try_from(self.word(table + 4 * case)?.cast_signed())?;
        let target = table.wrapping_add_signed(distance);
        if !function.contains(&target) {
            return Err(
                format!("case {case} of the table at {table:#x} leaves its function").into(),
            );
        }
        Ok(target)
    }

    /// A register and the constant that `instruction` may give it.
    fn constant(&self, instruction: &Instruction) -> Result<Option<(usize, usize)>, BoxError> {
        let Some(register) = number(instruction.op0_register()) else {
            return Ok(None);
        };
        let value = if instruction.op1_kind() == OpKind::Immediate32
            && instruction.mnemonic() == Mnemonic::Mov
        {
            instruction.immediate32()
        } else if instruction.is_ip_rel_memory_operand() && moves_if(instruction.mnemonic()) {
            self.word(usize::try_from(instruction.ip_rel_memory_address())?)?
        } else {
            return Ok(None);
        };
        Ok(Some((register, usize::try_from(value)?)))
    }

    fn word(&self, at: usize) -> Result<u32, BoxError> {
        let bytes = self
            .text
            .get(at..at + 4)
            .ok_or("a constant outside of .text")?;
        Ok(u32::from_le_bytes(bytes.try_into()?))
    }
}

fn moves_if(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::Cmovb | Mnemonic::Cmovbe | Mnemonic::Cmova | Mnemonic::Cmovae
    )
}

/// The number of a 32-bit or 64-bit register.
fn number(register: Register) -> Option<usize> {
    let value = register as usize;
    [Register::EAX, Register::RAX]
        .into_iter()
        .map(|first| value.wrapping_sub(first as usize))
        .find(|&number| number < 16)
}
