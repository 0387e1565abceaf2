// SPDX-License-Identifier: MIT OR Apache-2.0

//! From instructions to a validated chunk. The opcodes are iced-x86's, and what it
//! wrote is checked like the code of anybody else.

use iced_x86::{Code, Encoder, IcedError, Instruction, MemoryOperand, Register};
use jitfd::Error;
use jitfd::internal::Call;
use jitfd::internal::{FILL, FirstUse};
use jitfd_code::internal::num::to_u64;
use jitfd_code::{Align, Chunk, Class, LineWriter, Rules, validate_owned};
use std::ops::Range;

/// A chunk that is being written, none of its instructions in two lines. Addresses
/// are offsets in it: only operands relative to the instruction pointer may refer
/// to one, and only inside of it or to what lies at a fixed distance from it.
pub(crate) struct Assembly {
    encoder: Encoder,
    lines: LineWriter,
    entries: Vec<usize>,
    data: Vec<Range<usize>>,
}

/// Those of iced-x86, for encoding and for decoding.
static TABLES: FirstUse = FirstUse::new();

const FORKED_MEANWHILE: Error = Error::Argument(
    "another thread was making the first trampoline of the process when that was forked; make \
     one before",
);

const WRONG: Error = Error::Argument("x86-64 has no such instruction");

fn wrong(_: IcedError) -> Error {
    WRONG
}

/// The quadword at `offset` of the chunk.
pub(crate) fn quadword_at(offset: usize) -> MemoryOperand {
    MemoryOperand::with_base_displ(
        Register::RIP,
        jitfd_code::internal::num::to_i64(to_u64(offset)),
    )
}

impl Assembly {
    pub(crate) fn new() -> Result<Self, Error> {
        let made = TABLES.made(|| {
            let mut one = Self::begin()?;
            one.entry()?;
            one.finish().map(drop)
        });
        match made.map_err(|error| Error::system(Call::Owner, &error))?? {
            true => Self::begin(),
            false => Err(FORKED_MEANWHILE),
        }
    }

    fn begin() -> Result<Self, Error> {
        Ok(Self {
            encoder: Encoder::try_new(64).map_err(wrong)?,
            lines: LineWriter::default(),
            entries: Vec::new(),
            data: Vec::new(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.as_ref().len()
    }

    /// A place at which calls and jumps may land.
    pub(crate) fn entry(&mut self) -> Result<(), Error> {
        let at = self.push(Ok(Instruction::with(Code::Endbr64)))?;
        self.entries.push(at);
        Ok(())
    }

    /// Returns where the instruction came to lie.
    pub(crate) fn push(&mut self, made: Result<Instruction, IcedError>) -> Result<usize, Error> {
        let instruction = made.map_err(wrong)?;
        let next = self.len();
        let mut bytes = self.encode(&instruction, next)?;
        // The length is the same everywhere.
        let place = self.lines.place(bytes.len());
        if place != next {
            bytes = self.encode(&instruction, place)?;
        }
        Ok(self.lines.push(&bytes)?)
    }

    fn encode(&mut self, instruction: &Instruction, at: usize) -> Result<Vec<u8>, Error> {
        let done = self.encoder.encode(instruction, to_u64(at));
        let bytes = self.encoder.take_buffer();
        done.map(|_| bytes).map_err(wrong)
    }

    /// Fills up with traps.
    pub(crate) fn pad_to(&mut self, offset: usize) -> Result<(), Error> {
        while self.len() < offset {
            self.lines.push(&[FILL])?;
        }
        Ok(())
    }

    /// Declared data: a constant.
    pub(crate) fn quadword(&mut self, value: u64) -> Result<(), Error> {
        self.pad_to(self.len().next_multiple_of(8))?;
        let at = self.lines.push(&value.to_le_bytes())?;
        self.data.push(at..self.len());
        Ok(())
    }

    /// Validates the chunk: it is entered at its declared entries only, each of
    /// which is an `endbr64`, and has no instruction of a class that a program may
    /// want to forbid. A chunk that fits into a line is aligned so that it lies in
    /// one wherever it is put.
    pub(crate) fn finish(self) -> Result<Chunk, Error> {
        #[cfg(test)]
        tests::CHECKED.set(tests::CHECKED.get() + 1);
        let len = self.len();
        let align = align(len)?;
        let options = Class::FIXED.into_iter().fold(Rules::new(), Rules::forbid);
        let options = self.data.into_iter().fold(options, Rules::data);
        let options = self.entries.into_iter().fold(options, Rules::entry);
        let options = options.endbr64();
        if len > Align::LINE.bytes() {
            let rules = options.within_lines();
            return Ok(validate_owned(self.lines.into(), &rules)?);
        }
        let chunk = validate_owned(self.lines.into(), &options)?;
        Ok(chunk.aligned(align))
    }
}

/// The alignment of a finished chunk of `len` bytes.
pub(crate) fn align(len: usize) -> Result<Align, Error> {
    let line = Align::LINE.bytes().min(len.next_power_of_two());
    Ok(Align::new(line)?.max(Align::FUNCTION))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    thread_local! {
        /// How many chunks this thread has checked.
        pub(crate) static CHECKED: Cell<usize> = const { Cell::new(0) };
    }
}
