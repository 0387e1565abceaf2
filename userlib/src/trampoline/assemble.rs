// SPDX-License-Identifier: MIT OR Apache-2.0

//! From instructions to a validated chunk. The opcodes are iced-x86's, and what it
//! wrote is checked like the code of anybody else.

use crate::abi::FILL;
use crate::cast::to_u64;
use crate::error::Error;
use crate::options::Options;
use crate::policy::Class;
use crate::validate::Validator;
use crate::validated::Validated;
use iced_x86::{Code, Encoder, IcedError, Instruction, MemoryOperand, Register};

/// A chunk that is being written. Addresses are offsets in it: only operands
/// relative to the instruction pointer may refer to one, and only inside of it or
/// to what lies at a fixed distance from it.
pub(super) struct Assembly {
    encoder: Encoder,
    bytes: Vec<u8>,
    entries: Vec<usize>,
}

const WRONG: Error = Error::Argument("x86-64 has no such instruction");

fn wrong(_: IcedError) -> Error {
    WRONG
}

/// The quadword at `offset` of the chunk.
pub(super) fn quadword_at(offset: usize) -> MemoryOperand {
    MemoryOperand::with_base_displ(Register::RIP, crate::cast::to_i64(to_u64(offset)))
}

impl Assembly {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self {
            encoder: Encoder::try_new(64).map_err(wrong)?,
            bytes: Vec::new(),
            entries: Vec::new(),
        })
    }

    /// Where the next instruction comes to lie.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A place at which calls and jumps may land. Returns where it is.
    pub(super) fn entry(&mut self) -> Result<usize, Error> {
        let at = self.len();
        self.entries.push(at);
        self.push(Ok(Instruction::with(Code::Endbr64)))?;
        Ok(at)
    }

    pub(super) fn push(&mut self, made: Result<Instruction, IcedError>) -> Result<(), Error> {
        let instruction = made.map_err(wrong)?;
        let at = to_u64(self.len());
        // The encoder appends to its buffer.
        self.encoder.set_buffer(std::mem::take(&mut self.bytes));
        let done = self.encoder.encode(&instruction, at);
        self.bytes = self.encoder.take_buffer();
        done.map(drop).map_err(wrong)
    }

    /// Fills up with traps.
    pub(super) fn pad_to(&mut self, offset: usize) {
        self.bytes.resize(offset.max(self.len()), FILL);
    }

    /// Checks it: it is entered where it says so and with `endbr64`, and does
    /// nothing that code of a program may not want to have around.
    pub(super) fn finish(self, options: Options) -> Result<Validated, Error> {
        let options = Class::FIXED.into_iter().fold(options, Options::forbid);
        let options = self.entries.into_iter().fold(options, Options::entry);
        let validator = Validator::new(options.endbr64().entries_only());
        Ok(validator.validate_owned(self.bytes)?)
    }
}
