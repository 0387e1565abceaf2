// SPDX-License-Identifier: MIT OR Apache-2.0

//! Unwind tables in the format of `.eh_frame`. Pure.
//!
//! One common entry, then one entry for each function, then a zero. All
//! addresses are absolute, so the table can lie anywhere. Numbers and names are
//! those of the DWARF standard, version 5, section 6.4, and of the x86-64 ABI.

use crate::error::Error;
use crate::num::to_u64;
use crate::register::Register;

/// How a function's caller is found, at each of its instructions.
///
/// The *frame address* is where `rsp` was before the call that came here. At the
/// function's start that is `rsp + 8`. Each step says what is different from some
/// offset on, in bytes from the start of the function; steps come in ascending
/// order.
///
/// ```
/// use jitfd::{Register, tools::Frame};
///
/// // push rbx (1 byte); sub rsp, 32 (4 bytes); ...; add rsp, 32 (ends at 50);
/// // pop rbx (ends at 51); ret
/// let frame = Frame::leaf()
///     .cfa(1, Register::Rsp, 16)
///     .saved(1, Register::Rbx, 16)
///     .cfa(5, Register::Rsp, 48)
///     .cfa(50, Register::Rsp, 16)
///     .cfa(51, Register::Rsp, 8)
///     .restored(51, Register::Rbx);
/// // push rbp; mov rbp, rsp; ...
/// let usual = Frame::pointer();
/// assert_ne!(frame, usual);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The operations, and where the last step was.
    bytes: Vec<u8>,
    at: usize,
}

const ADVANCE: u8 = 0x40;
const ADVANCE_2: u8 = 0x03;
const ADVANCE_4: u8 = 0x04;
const OFFSET: u8 = 0x80;
const RESTORE: u8 = 0xc0;
const CFA: u8 = 0x0c;
const CFA_EXPRESSION: u8 = 0x0f;
// Operations of an expression.
const CONST: u8 = 0x08;
const AND: u8 = 0x1a;
const MULTIPLY: u8 = 0x1e;
const PLUS: u8 = 0x22;
const NOT_BELOW: u8 = 0x2a;
const REGISTER: u8 = 0x70;
const RIP: u8 = 16;

/// In bytes: an advance of 4 bytes, and an expression as of `cfa_repeated`.
const LONGEST_STEP: usize = 5 + 16;

impl Frame {
    /// A function that leaves the stack pointer where it is.
    #[must_use]
    pub const fn leaf() -> Self {
        Self {
            bytes: Vec::new(),
            at: 0,
        }
    }

    /// A function that begins with `push rbp; mov rbp, rsp`. For one that can be
    /// interrupted in its last instruction add `.cfa(len - 1, Register::Rsp, 8)`.
    #[must_use]
    pub fn pointer() -> Self {
        Self::leaf()
            .cfa(1, Register::Rsp, 16)
            .saved(1, Register::Rbp, 16)
            .cfa(4, Register::Rbp, 16)
    }

    /// Gets the memory for this many more steps, so that adding them needs none.
    ///
    /// See the example of [`EhFrame::add`].
    ///
    /// # Errors
    /// [`Kind::NoMemory`](crate::Kind::NoMemory).
    pub fn try_reserve(&mut self, steps: usize) -> Result<(), Error> {
        let more = steps.saturating_mul(LONGEST_STEP);
        self.bytes.try_reserve(more).map_err(|_| Error::no_memory())
    }

    /// From `at` on the frame address is `register + offset`. Changes come in
    /// ascending order: one at a lower offset than the one before takes that one's.
    #[must_use]
    pub fn cfa(mut self, at: usize, register: Register, offset: u32) -> Self {
        self.advance(at);
        self.bytes.extend([CFA, register.in_unwind_tables()]);
        leb128(&mut self.bytes, offset);
        self
    }

    /// From `at` on the code is many pieces of `stride` bytes, a power of two, at
    /// multiples of that, which all change the frame in the same way. In each the
    /// frame address is `register + offset` at first, and `more` further from
    /// `changes` bytes after its start on. All in bytes, and below 64: with
    /// other numbers the table means something else.
    ///
    /// The table has one entry for all of them then: an expression, as linkers write
    /// one for the stubs of a procedure linkage table.
    ///
    /// ```
    /// use jitfd::{Register, tools::Frame};
    ///
    /// // A page of: push rax (1 byte); lea rax, [rip - 8] (7 bytes); jmp (2 bytes)
    /// let frame = Frame::leaf().cfa_repeated(0, Register::Rsp, 8, 16, 1, 8);
    /// ```
    #[must_use]
    pub fn cfa_repeated(
        mut self,
        at: usize,
        register: Register,
        offset: u8,
        stride: u8,
        changes: u8,
        more: u8,
    ) -> Self {
        self.advance(at);
        // Below 64 both forms of LEB128 are the number itself.
        let small = |number: u8| number & 0x3f;
        self.bytes.extend([CFA_EXPRESSION, 14]);
        self.bytes
            .extend([REGISTER | register.in_unwind_tables(), small(offset)]);
        self.bytes.extend([REGISTER + RIP, 0]);
        self.bytes
            .extend([CONST, small(stride.wrapping_sub(1)), AND]);
        self.bytes.extend([CONST, changes, NOT_BELOW]);
        self.bytes.extend([CONST, more, MULTIPLY, PLUS]);
        self
    }

    /// From `at` on the caller's `register` is in memory, `below` bytes below the
    /// frame address: a multiple of 8, to which it is rounded down.
    #[must_use]
    pub fn saved(mut self, at: usize, register: Register, below: u32) -> Self {
        self.advance(at);
        self.bytes.push(OFFSET | register.in_unwind_tables());
        leb128(&mut self.bytes, below / 8);
        self
    }

    /// From `at` on the caller's `register` is in the register again.
    #[must_use]
    pub fn restored(mut self, at: usize, register: Register) -> Self {
        self.advance(at);
        self.bytes.push(RESTORE | register.in_unwind_tables());
        self
    }

    fn advance(&mut self, at: usize) {
        let by = at.saturating_sub(self.at);
        self.at = self.at.max(at);
        match (u8::try_from(by), u16::try_from(by)) {
            (Ok(0), _) => {}
            (Ok(by @ ..0x40), _) => self.bytes.push(ADVANCE | by),
            (_, Ok(by)) => {
                self.bytes.push(ADVANCE_2);
                self.bytes.extend(by.to_le_bytes());
            }
            _ => {
                self.bytes.push(ADVANCE_4);
                let by = u32::try_from(by).unwrap_or(u32::MAX);
                self.bytes.extend(by.to_le_bytes());
            }
        }
    }
}

fn leb128(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push((value & 0x7f) as u8);
}

/// Unwind tables of any number of functions, to be
/// [registered](Self::register), or given to [`GdbJit::add`](super::GdbJit::add).
///
/// Compilers that make `.eh_frame` on their own use
/// [`UnwindTable::from_bytes`](super::UnwindTable::from_bytes) instead.
///
/// ```
/// use jitfd::tools::{EhFrame, Frame};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let mut table = EhFrame::default();
/// table.add(0x7f00_0000_1000, 60, &Frame::pointer())?;
/// table.add(0x7f00_0000_1040, 11, &Frame::leaf())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EhFrame {
    /// Whole at any time: with the zero at its end.
    bytes: Vec<u8>,
}

/// What all functions have in common: the version, addresses that are 8 bytes,
/// offsets in units of 1 and -8, the return address in column 16, which is right
/// below the frame address, `rsp + 8`.
const COMMON: [u8; 24] = [
    20, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0, CFA, 7, 8, 0x90, 1, 0, 0,
];

/// What ends a table.
const END: [u8; 4] = [0; 4];

/// What each function's entry has but for its frame, with what fills it up.
const ENTRY: usize = 4 + 4 + 8 + 8 + 1 + 7;

/// A table without functions.
impl Default for EhFrame {
    fn default() -> Self {
        Self {
            bytes: [&COMMON[..], &END].concat(),
        }
    }
}

impl EhFrame {
    /// Adds the function of `len` bytes at `address`; nothing if it has none, which
    /// an unwinder could not find and some do not take.
    ///
    /// ```
    /// use jitfd::Register;
    /// use jitfd::tools::{EhFrame, Frame};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let mut frame = Frame::leaf();
    /// frame.try_reserve(100)?;
    /// for push in 1_u8..=100 {
    ///     frame = frame.cfa(usize::from(push), Register::Rsp, 8 + 8 * u32::from(push));
    /// }
    /// let mut table = EhFrame::default();
    /// table.add(0x7f00_0000_1000, 300, &frame)?;
    /// assert!(table.bytes().ends_with(&[0; 4]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Kind::NoMemory`](crate::Kind::NoMemory). The table is as it was then.
    pub fn add(&mut self, address: usize, len: usize, frame: &Frame) -> Result<(), Error> {
        if len == 0 {
            return Ok(());
        }
        let more = ENTRY + frame.bytes.len() + END.len();
        let room = self.bytes.try_reserve(more);
        room.map_err(|_| Error::no_memory())?;
        // The length goes where the zero was.
        let start = self.bytes.len() - END.len();
        // The distance from here to the common entry, the first one.
        let common = u32::try_from(start + 4).unwrap_or(u32::MAX);
        self.bytes.extend(common.to_le_bytes());
        self.bytes.extend(to_u64(address).to_le_bytes());
        self.bytes.extend(to_u64(len).to_le_bytes());
        self.bytes.push(0);
        self.bytes.extend(&frame.bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let entry = u32::try_from(self.bytes.len() - start - 4).unwrap_or(u32::MAX);
        if let Some(field) = self.bytes.get_mut(start..start + 4) {
            field.copy_from_slice(&entry.to_le_bytes());
        }
        self.bytes.extend(END);
        Ok(())
    }

    /// The table, with the zero at its end.
    ///
    /// See the example of [`add`](Self::add).
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The table, given away.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gimli::{BaseAddresses, CfaRule, NativeEndian, RegisterRule, UnwindContext, UnwindSection};

    type Rule = Option<RegisterRule<usize>>;

    /// What an independent reader makes of it, at an address.
    fn rules(table: &[u8], address: u64) -> (CfaRule<usize>, Rule, Rule) {
        let section = gimli::EhFrame::new(table, NativeEndian);
        let bases = BaseAddresses::default();
        let mut context = UnwindContext::new();
        let found = section.unwind_info_for_address(
            &bases,
            &mut context,
            address,
            gimli::EhFrame::cie_from_offset,
        );
        let row = found.unwrap();
        let rule = |number| row.register(gimli::Register(number));
        (row.cfa().clone(), rule(3), rule(6))
    }

    /// The frame address by an expression, with these registers.
    fn evaluated(table: &[u8], rip: u64, rsp: u64) -> u64 {
        let section = gimli::EhFrame::new(table, NativeEndian);
        let (CfaRule::Expression(expression), _, _) = rules(table, rip) else {
            panic!("an expression");
        };
        let encoding = gimli::Encoding {
            address_size: 8,
            format: gimli::Format::Dwarf32,
            version: 1,
        };
        let mut evaluation = expression.get(&section).unwrap().evaluation(encoding);
        let mut result = evaluation.evaluate().unwrap();
        while let gimli::EvaluationResult::RequiresRegister { register, .. } = result {
            let value = match register.0 {
                7 => rsp,
                16 => rip,
                other => panic!("register {other}"),
            };
            let value = gimli::Value::Generic(value);
            result = evaluation.resume_with_register(value).unwrap();
        }
        assert_eq!(result, gimli::EvaluationResult::Complete);
        match evaluation.as_result() {
            [piece] => match piece.location {
                gimli::Location::Address { address } => address,
                ref other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pieces_that_are_all_alike_have_one_entry() {
        let mut table = EhFrame::default();
        let frame = Frame::leaf().cfa_repeated(0, Register::Rsp, 8, 32, 5, 16);
        table.add(0x1000, 4096, &frame).unwrap();
        let table = table.into_bytes();
        for piece in [0x1000, 0x1020, 0x1fe0] {
            for (at, expected) in [(0, 0x9008), (4, 0x9008), (5, 0x9018), (31, 0x9018)] {
                assert_eq!(evaluated(&table, piece + at, 0x9000), expected);
            }
        }
    }

    fn cfa(register: u16, offset: i64) -> CfaRule<usize> {
        CfaRule::RegisterAndOffset {
            register: gimli::Register(register),
            offset,
        }
    }

    #[test]
    fn a_function_without_bytes_is_not_added() {
        let mut table = EhFrame::default();
        table.add(0x1000, 0, &Frame::leaf()).unwrap();
        assert_eq!(table, EhFrame::default());
    }

    #[test]
    fn what_was_reserved_is_enough() {
        let mut frame = Frame::leaf();
        frame.try_reserve(3).unwrap();
        let room = frame.bytes.capacity();
        let frame = frame
            .cfa_repeated(100_000, Register::Rsp, 8, 32, 5, 16)
            .cfa(200_000, Register::Rsp, u32::MAX)
            .cfa_repeated(300_000, Register::Rsp, 8, 32, 5, 16);
        assert_eq!(frame.bytes.capacity(), room);
        let refused = Frame::leaf().try_reserve(usize::MAX).unwrap_err();
        assert_eq!(refused.kind(), Some(crate::Kind::NoMemory));
        let mut table = EhFrame::default();
        for frame in [frame, Frame::leaf(), Frame::pointer()] {
            let before = table.bytes().len();
            table.add(0x1000, 16, &frame).unwrap();
            assert!(table.bytes().len() - before <= ENTRY + frame.bytes.len());
            assert_eq!(table.bytes(), table.clone().into_bytes());
        }
    }

    #[test]
    fn another_reader_finds_each_row() {
        let mut table = EhFrame::default();
        table
            .add(0x1000, 100, &Frame::pointer().cfa(99, Register::Rsp, 8))
            .unwrap();
        let large = Frame::leaf()
            .cfa(1, Register::Rsp, 16)
            .saved(1, Register::Rbx, 16)
            .cfa(100, Register::Rsp, 5000)
            .cfa(1000, Register::Rsp, 16)
            .restored(100_000, Register::Rbx);
        table.add(0x10_0000, 200_000, &large).unwrap();
        let table = table.into_bytes();
        const NONE: Rule = None;
        let at = |below: i64| Some(RegisterRule::Offset(-below));
        assert_eq!(rules(&table, 0x1000), (cfa(7, 8), NONE, NONE));
        assert_eq!(rules(&table, 0x1001), (cfa(7, 16), NONE, at(16)));
        assert_eq!(rules(&table, 0x1004), (cfa(6, 16), NONE, at(16)));
        assert_eq!(rules(&table, 0x1063), (cfa(7, 8), NONE, at(16)));
        let large = |at: u64| rules(&table, 0x10_0000 + at);
        assert_eq!(large(99), (cfa(7, 16), at(16), NONE));
        assert_eq!(large(100), (cfa(7, 5000), at(16), NONE));
        assert_eq!(large(99_999), (cfa(7, 16), at(16), NONE));
        assert_eq!(large(100_000), (cfa(7, 16), NONE, NONE));
    }
}
