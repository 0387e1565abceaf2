// SPDX-License-Identifier: MIT OR Apache-2.0

//! The stubs of a table, and where the data of each lies. Pure.
//!
//! ```text
//!   copy:  | code: capacity x 32 bytes       | data: capacity x 16 bytes |
//!             stub i                            slot i
//!             endbr64                           context
//!             mov context register, [context of slot i]  target
//!             jmp [target of slot i]
//!             int3 ...
//!             endbr64      <- the trap of slot i
//!             int3 ...
//! ```
//!
//! A copy starts at a multiple of its alignment, so the address of a stub says
//! where its slot is. The distance is the same in all copies, so they can share
//! the pages of the code.

use crate::assemble::{Assembly, quadword_at};
use crate::register::{ContextRegister, encoded};
use iced_x86::{Code, Instruction};
use jitfd::Error;
use jitfd_code::Chunk;
use jitfd_code::internal::PAGE_SIZE;

/// The bytes of a stub: two to a line, none in two lines.
pub(crate) const STUB: usize = 32;
/// The bytes of a slot: the context, then the target.
pub(crate) const SLOT: usize = 16;
/// Where in a stub its trap is. A stale call ends there: the address of the trap
/// says which stub it was.
pub(crate) const TRAP: usize = 24;

/// How many slots a copy has, and so where everything is.
///
/// # Invariants
/// A power of two, and the slots are whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    capacity: usize,
}

impl Shape {
    /// The fewest slots: a page of them.
    pub(crate) const LEAST: usize = PAGE_SIZE / SLOT;
    /// The most: 2 MiB of code.
    pub(crate) const MOST: usize = 1 << 16;

    /// At least `capacity` slots, inside of the bounds.
    pub(crate) const fn new(capacity: usize) -> Self {
        let capacity = match capacity {
            ..Self::LEAST => Self::LEAST,
            Self::LEAST..=Self::MOST => capacity.next_power_of_two(),
            _ => Self::MOST,
        };
        // INVARIANT: the bounds are powers of two, and so is all in between.
        Self { capacity }
    }

    pub(crate) const fn capacity(self) -> usize {
        self.capacity
    }

    /// The bytes of the code, and the offset of the data.
    pub(crate) const fn code_len(self) -> usize {
        self.capacity * STUB
    }

    /// The bytes of a copy.
    pub(crate) const fn len(self) -> usize {
        self.capacity * (STUB + SLOT)
    }

    /// What the address of a copy is a multiple of: the next power of two.
    pub(crate) const fn align(self) -> usize {
        self.capacity * 2 * STUB
    }

    /// The offset in its copy of the address of a stub.
    pub(crate) const fn offset(self, address: usize) -> usize {
        address & (self.align() - 1)
    }

    /// From the offset of a stub to that of its slot.
    pub(crate) const fn slot(self, stub: usize) -> usize {
        self.code_len() + stub / (STUB / SLOT)
    }
}

/// The code of a copy.
pub(crate) fn assemble(context_register: ContextRegister, shape: Shape) -> Result<Chunk, Error> {
    let mut code = Assembly::new()?;
    let context_register = encoded(context_register.register());
    for number in 0..shape.capacity {
        let stub = number * STUB;
        let context = shape.slot(stub);
        code.pad_to(stub)?;
        code.entry()?;
        let context_there = quadword_at(context);
        code.push(Instruction::with2(
            Code::Mov_r64_rm64,
            context_register,
            context_there,
        ))?;
        let target_there = quadword_at(context + SLOT / 2);
        code.push(Instruction::with1(Code::Jmp_rm64, target_there))?;
        code.pad_to(stub + TRAP)?;
        code.entry()?;
    }
    code.pad_to(shape.code_len())?;
    code.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, Mnemonic};

    #[test]
    fn shapes_are_powers_of_two_in_their_bounds() {
        for (asked, got) in [
            (0, 256),
            (256, 256),
            (257, 512),
            (4096, 4096),
            (1 << 30, 1 << 16),
        ] {
            let shape = Shape::new(asked);
            assert_eq!(shape.capacity(), got);
            assert!(shape.align() >= shape.len() && shape.align().is_power_of_two());
            assert_eq!(
                (shape.code_len() % PAGE_SIZE, shape.len() % PAGE_SIZE),
                (0, 0)
            );
            assert_eq!(shape.slot(0), shape.code_len());
            assert_eq!(shape.slot((got - 1) * STUB) + SLOT, shape.len());
        }
    }

    #[test]
    fn each_stub_loads_its_own_slot_and_each_trap_traps() {
        let shape = Shape::new(256);
        for context_register in ContextRegister::ALL {
            let chunk = assemble(context_register, shape).unwrap();
            assert_eq!(chunk.len(), shape.code_len());
            assert!(!chunk.holds_data());
            for stub in (0..shape.code_len()).step_by(STUB) {
                let bytes = &chunk.bytes()[stub..stub + STUB];
                let at = jitfd_code::internal::num::to_u64(stub);
                let mut decoder = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE);
                assert_eq!(decoder.decode().mnemonic(), Mnemonic::Endbr64);
                let load = decoder.decode();
                assert_eq!(load.code(), Code::Mov_r64_rm64);
                assert_eq!(load.op0_register(), encoded(context_register.register()));
                let slot = jitfd_code::internal::num::to_u64(shape.slot(stub));
                assert!(load.is_ip_rel_memory_operand());
                assert_eq!(load.ip_rel_memory_address(), slot);
                let jump = decoder.decode();
                assert_eq!(jump.code(), Code::Jmp_rm64);
                assert_eq!(jump.ip_rel_memory_address(), slot + 8);
                assert!(bytes[17..TRAP].iter().all(|&byte| byte == 0xcc));
                assert_eq!(bytes[TRAP..TRAP + 4], [0xf3, 0x0f, 0x1e, 0xfa]);
                assert!(bytes[TRAP + 4..].iter().all(|&byte| byte == 0xcc));
                assert!(chunk.is_entry(stub) && chunk.is_entry(stub + TRAP));
                assert!(!chunk.is_entry(stub + 4));
            }
        }
    }
}
