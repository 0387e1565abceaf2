// SPDX-License-Identifier: MIT OR Apache-2.0

//! Laying code out so that no instruction crosses a line of 64 bytes.

use crate::align::{Align, LINE};
use crate::error::{CodeError, LONGEST, Reason};

/// Takes instructions one by one and puts NOPs before those that would cross a
/// border of 64 bytes: what [`Rules::within_lines`](crate::Rules::within_lines)
/// demands.
///
/// It does not look into the instructions. An emitter asks
/// [`place`](Self::place) where the next one will lie, which it needs for
/// operands relative to it, and [`patch`](Self::patch)es forward branches when
/// their targets are known. Finished code cannot be moved apart: displacements
/// would have to change.
///
/// At most 14 bytes are lost at a border, 4 % of the code at most if instructions
/// have 4 bytes on average: the NOPs are the longest that there are, and are
/// executed if control runs into them.
///
/// `LineWriter::default()` has written nothing yet, and its first byte is the first of a
/// line. `as_ref()` is what was written, `Vec::from(writer)` the same, given away.
///
/// ```
/// use jitfd::{LineWriter, Rules, validate};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let mut code = LineWriter::default();
/// for _ in 0..30 {
///     code.push(&[0xb8, 42, 0, 0, 0])?; // mov eax, 42
/// }
/// let jump = code.push(&[0xe9, 0, 0, 0, 0])?; // jmp: to where, is not known yet
/// let end = code.push(&[0xc3])?; // ret
/// let distance = i32::try_from(end - (jump + 5)).unwrap_or_default();
/// code.patch(jump + 1, &distance.to_le_bytes())?;
/// let chunk = validate(code.as_ref(), &Rules::new().within_lines())?;
/// assert_eq!(chunk.align().bytes(), 64);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct LineWriter {
    bytes: Vec<u8>,
}

impl LineWriter {
    /// Where an instruction of `len` bytes will lie if it is the next to be
    /// pushed, in bytes from the start.
    ///
    /// ```
    /// use jitfd::LineWriter;
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let mut code = LineWriter::default();
    /// code.push(&[0x0f, 0x0b])?; // ud2
    /// // lea rax, [rip + distance], which has 7 bytes: the address of the ud2.
    /// let end = code.place(7) + 7;
    /// let distance = -i32::try_from(end).unwrap_or(i32::MAX);
    /// let operand = distance.to_le_bytes();
    /// let at = code.push(&[&[0x48, 0x8d, 0x05][..], &operand].concat())?;
    /// assert_eq!(at + 7, end);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn place(&self, len: usize) -> usize {
        next_in_line(self.bytes.len(), len)
    }

    /// Writes one instruction, after NOPs if need be. Returns where it lies, in
    /// bytes from the start: labels for it are bound to that.
    ///
    /// # Errors
    /// [`Reason::InstructionLength`] if it has no bytes or more than 15;
    /// [`Reason::NoMemory`]. Nothing is written then.
    pub fn push(&mut self, instruction: &[u8]) -> Result<usize, CodeError> {
        if instruction.is_empty() || instruction.len() > LONGEST {
            let len = instruction.len();
            return Err(CodeError::whole(Reason::InstructionLength { len }));
        }
        let at = self.place(instruction.len());
        self.make_room(at + instruction.len())?;
        self.pad_to(at);
        self.bytes.extend_from_slice(instruction);
        Ok(at)
    }

    /// Writes NOPs up to a multiple of `align`. Returns where that is, in bytes
    /// from the start.
    ///
    /// # Errors
    /// [`Reason::NoMemory`]. Nothing is written then.
    pub fn align(&mut self, align: Align) -> Result<usize, CodeError> {
        let at = self.bytes.len().next_multiple_of(align.bytes());
        self.make_room(at)?;
        self.pad_to(at);
        Ok(at)
    }

    /// Replaces bytes that were written, from `at` on.
    ///
    /// # Errors
    /// [`Reason::NotWritten`] if not all of them were written.
    pub fn patch(&mut self, at: usize, bytes: &[u8]) -> Result<(), CodeError> {
        let (len, written) = (bytes.len(), self.bytes.len());
        let end = at.checked_add(len);
        let old = end.and_then(|end| self.bytes.get_mut(at..end));
        let unknown = || CodeError::whole(Reason::NotWritten { at, len, written });
        let old = old.ok_or_else(unknown)?;
        old.copy_from_slice(bytes);
        Ok(())
    }

    /// Gets the memory for as many bytes as there are before `end`.
    fn make_room(&mut self, end: usize) -> Result<(), CodeError> {
        let more = end.saturating_sub(self.bytes.len());
        let room = self.bytes.try_reserve(more);
        room.map_err(|_| CodeError::no_memory())
    }

    /// Writes NOPs up to `end`, none of which crosses a line either.
    fn pad_to(&mut self, end: usize) {
        for nop in nops(self.bytes.len(), end) {
            self.bytes.extend_from_slice(nop);
        }
    }
}

impl AsRef<[u8]> for LineWriter {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<LineWriter> for Vec<u8> {
    fn from(writer: LineWriter) -> Self {
        writer.bytes
    }
}

/// The first offset, from `at` on, where `len` bytes do not cross a border. An offset
/// that would be too large is 0.
#[must_use]
pub fn next_in_line(at: usize, len: usize) -> usize {
    if len > LINE - at % LINE {
        at.checked_next_multiple_of(LINE).unwrap_or(0)
    } else {
        at
    }
}

/// The longest NOPs that lead from one offset to another, none of which crosses a line.
pub fn nops(from: usize, to: usize) -> impl Iterator<Item = &'static [u8]> {
    let mut at = from;
    std::iter::from_fn(move || {
        let left = to.checked_sub(at).filter(|&left| left > 0)?;
        let next = nop((LINE - at % LINE).min(left));
        at += next.len();
        Some(next)
    })
}

/// The longest NOP that has at most `room` bytes, which is not 0.
fn nop(room: usize) -> &'static [u8] {
    NOPS[room.clamp(1, NOPS.len()) - 1]
}

/// The NOPs that the manuals of both makers recommend, by length.
const NOPS: [&[u8]; 9] = [
    &[0x90],
    &[0x66, 0x90],
    &[0x0f, 0x1f, 0x00],
    &[0x0f, 0x1f, 0x40, 0x00],
    &[0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
    &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rules, validate};
    use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};
    use proptest::prelude::*;

    fn instructions(code: &[u8]) -> Vec<Instruction> {
        Decoder::new(64, code, DecoderOptions::NONE)
            .iter()
            .collect()
    }

    #[test]
    fn each_nop_is_one_nop_of_its_length() {
        for (index, bytes) in NOPS.iter().enumerate() {
            let all = instructions(bytes);
            assert_eq!((bytes.len(), all.len()), (index + 1, 1));
            assert_eq!(all[0].mnemonic(), Mnemonic::Nop, "{bytes:02x?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_and_changes_nothing() {
        let mut code = LineWriter::default();
        assert!(code.push(&[]).is_err() && code.push(&[0x66; 16]).is_err());
        code.push(&[0xc3]).unwrap();
        assert!(code.patch(0, &[0x90, 0x90]).is_err());
        assert!(code.patch(usize::MAX, &[0x90]).is_err());
        assert_eq!(code.as_ref(), [0xc3]);
        code.patch(0, &[0x90]).unwrap();
        assert_eq!((code.place(64), code.place(usize::MAX)), (64, 64));
        assert_eq!(code.align(Align::PAGE).unwrap(), 4096);
        assert_eq!(code.as_ref().len(), 4096);
        assert!(validate(code.as_ref(), &Rules::new().within_lines()).is_ok());
    }

    /// An instruction of `len` bytes that is no NOP.
    fn filler(len: usize) -> Vec<u8> {
        let short: [&[u8]; 5] = [
            &[0xc3],
            &[0xb0, 7],
            &[0x83, 0xc0, 7],
            &[0x48, 0x83, 0xc0, 7],
            &[0xb8, 1, 2, 3, 4],
        ];
        // Segment overrides mean nothing here, and make it longer.
        let prefixes = len.saturating_sub(short.len());
        [&vec![0x2e; prefixes], short[len - prefixes - 1]].concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_instruction_crosses_a_line_and_none_is_lost(
            lengths in prop::collection::vec(1_usize..=15, 1..200),
        ) {
            let mut code = LineWriter::default();
            for &len in &lengths {
                let place = code.place(len);
                prop_assert_eq!(code.push(&filler(len)).unwrap(), place);
            }
            let chunk = validate(code.as_ref(), &Rules::new().within_lines()).unwrap();
            let kept = instructions(chunk.bytes()).into_iter();
            let kept = kept.filter(|one| one.mnemonic() != Mnemonic::Nop);
            prop_assert!(kept.map(|instruction| instruction.len()).eq(lengths));
        }
    }
}
