// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why code was refused, as a struct: the second half of what a thread's last
//! failure is.

use crate::guard::last_code_error;
use crate::rules::flag_of;
use crate::text::fixed;
use rust::{CodeError, Reason};
use std::cell::RefCell;
use std::ffi::c_char;
use std::ptr::{from_ref, null};

/// The chunk has no bytes.
pub const JITFD_REASON_EMPTY: u32 = 1;
/// The chunk has more bytes than one publication takes.
pub const JITFD_REASON_TOO_LONG: u32 = 2;
/// A declared data range is empty or reaches beyond the chunk; target: its start.
pub const JITFD_REASON_DATA_RANGE: u32 = 3;
/// The bytes are no valid instruction of 64-bit mode.
pub const JITFD_REASON_INVALID: u32 = 4;
/// The chunk ends inside an instruction.
pub const JITFD_REASON_TRUNCATED: u32 = 5;
/// An instruction runs into declared data; target: where the data begins.
pub const JITFD_REASON_RUNS_INTO_DATA: u32 = 6;
/// A direct branch goes into the middle of an instruction; target: where to.
pub const JITFD_REASON_INTO_INSTRUCTION: u32 = 7;
/// A direct branch goes behind a lock prefix, and that was not allowed; target:
/// where to.
pub const JITFD_REASON_SKIPS_LOCK: u32 = 8;
/// A direct branch goes into declared data; target: where to.
pub const JITFD_REASON_INTO_DATA: u32 = 9;
/// A near branch, call or return with an operand-size prefix: processors differ.
pub const JITFD_REASON_VENDOR_DEPENDENT: u32 = 10;
/// A declared entry is not the first byte of an instruction; target: the entry.
pub const JITFD_REASON_BAD_ENTRY: u32 = 11;
/// The instruction at an entry is not endbr64, which JITFD_RULE_ENDBR64 asks for.
pub const JITFD_REASON_NO_ENDBR64: u32 = 12;
/// The rules forbid the instruction; forbidden: by which JITFD_FORBID_.
pub const JITFD_REASON_FORBIDDEN: u32 = 13;
/// The instruction crosses a border of 64 bytes, which JITFD_RULE_WITHIN_LINES forbids.
pub const JITFD_REASON_CROSSES_LINE: u32 = 14;
/// A branch out of the chunk does not go to an instruction, or not to a declared entry, of
/// another one; target: where to, in bytes from the start of the region.
pub const JITFD_REASON_NOT_AN_ENTRY: u32 = 15;
/// A branch that was published before goes to what is no instruction, or no declared
/// entry, of the chunk; target: where to, in bytes from the start of the region.
pub const JITFD_REASON_ENTRY_EXPECTED: u32 = 16;
/// A field can't hold what it refers to; target: the address.
pub const JITFD_REASON_TOO_FAR: u32 = 17;
/// A field is not inside of its item.
pub const JITFD_REASON_FIELD_OUTSIDE: u32 = 18;
/// A field has bytes of another one; target: where that begins.
pub const JITFD_REASON_FIELDS_OVERLAP: u32 = 19;
/// A field refers to an item that there is not; target: its number.
pub const JITFD_REASON_NO_ITEM: u32 = 20;
/// A branch goes to an address that is not among those that it may leave to; target: the
/// address.
pub const JITFD_REASON_LEAVES_TO: u32 = 21;
/// The rules say where branches may leave to, and a part of a region that is only the
/// right to publish knows no address.
pub const JITFD_REASON_NO_ADDRESS: u32 = 22;
/// The bytes are those of an ELF file; target: the number of its processor.
pub const JITFD_REASON_ELF: u32 = 23;
/// The bytes are instructions of aarch64.
pub const JITFD_REASON_AARCH64: u32 = 24;
/// A reason that this header has no number for: see jitfd_error.
pub const JITFD_REASON_OTHER: u32 = 0xffff;

/// Why code was refused, and where. It may grow at its end.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jitfd_code_error {
    /// Which of several items or chunks, counted from 0; SIZE_MAX if there was only one.
    pub item: usize,
    /// The instruction at fault, in bytes from the start of the chunk, or of the item. Of
    /// a branch it is the branch, not its target; of a field the field.
    pub offset: usize,
    /// What the reason speaks of, in bytes from the start of the chunk, if it does not say
    /// from what else; else 0.
    pub target: usize,
    /// One of JITFD_REASON_.
    pub reason: u32,
    /// By which of JITFD_FORBID_ the instruction is forbidden; else 0.
    pub forbidden: u32,
    /// How many of the bytes are those of the instruction: 0 to 15. 0 if the
    /// chunk as a whole is at fault.
    pub length: u32,
    /// 0.
    pub reserved: u32,
    /// The instruction, or what there is of it.
    pub bytes: [u8; 16],
    /// The instruction as text; "(bad)" if it is none.
    pub disassembly: [c_char; 112],
}

impl jitfd_code_error {
    /// `None` if it was no code that was refused, but an argument.
    pub(crate) fn of(error: &CodeError) -> Option<Self> {
        if error.is_argument() || error.is_no_memory() {
            return None;
        }
        let (reason, target) = number(&error.reason);
        let mut bytes = [0; 16];
        for (slot, byte) in bytes.iter_mut().zip(&error.bytes) {
            *slot = *byte;
        }
        Some(Self {
            item: error.item.as_ref().map_or(usize::MAX, |item| item.0),
            offset: error.offset,
            target,
            reason,
            length: u32::try_from(error.bytes.len()).unwrap_or(0),
            forbidden: match error.reason {
                Reason::Forbidden { class } => flag_of(class),
                _ => 0,
            },
            reserved: 0,
            bytes,
            disassembly: fixed(&error.disassembly),
        })
    }
}

/// The number of a reason, and what it speaks of.
fn number(reason: &Reason) -> (u32, usize) {
    match *reason {
        Reason::Empty => (JITFD_REASON_EMPTY, 0),
        Reason::TooLong { .. } => (JITFD_REASON_TOO_LONG, 0),
        Reason::DataRange { ref range, .. } => (JITFD_REASON_DATA_RANGE, range.start),
        Reason::Invalid => (JITFD_REASON_INVALID, 0),
        Reason::Truncated => (JITFD_REASON_TRUNCATED, 0),
        Reason::RunsIntoData { data } => (JITFD_REASON_RUNS_INTO_DATA, data),
        Reason::IntoInstruction { target, .. } => (JITFD_REASON_INTO_INSTRUCTION, target),
        Reason::SkipsLock { target } => (JITFD_REASON_SKIPS_LOCK, target),
        Reason::IntoData { target } => (JITFD_REASON_INTO_DATA, target),
        Reason::VendorDependent => (JITFD_REASON_VENDOR_DEPENDENT, 0),
        Reason::BadEntry { entry } => (JITFD_REASON_BAD_ENTRY, entry),
        Reason::NoEndbr64 => (JITFD_REASON_NO_ENDBR64, 0),
        Reason::Forbidden { .. } => (JITFD_REASON_FORBIDDEN, 0),
        Reason::CrossesLine => (JITFD_REASON_CROSSES_LINE, 0),
        Reason::NotAnEntry { target, .. } => (JITFD_REASON_NOT_AN_ENTRY, target),
        Reason::EntryExpected { target } => (JITFD_REASON_ENTRY_EXPECTED, target),
        Reason::TooFar { address, .. } => (JITFD_REASON_TOO_FAR, address),
        Reason::FieldOutside { .. } => (JITFD_REASON_FIELD_OUTSIDE, 0),
        Reason::FieldsOverlap { other, .. } => (JITFD_REASON_FIELDS_OVERLAP, other),
        Reason::NoItem { number, .. } => (JITFD_REASON_NO_ITEM, number),
        Reason::LeavesTo { target, .. } => (JITFD_REASON_LEAVES_TO, target),
        Reason::NoAddress => (JITFD_REASON_NO_ADDRESS, 0),
        Reason::Elf { machine } => (JITFD_REASON_ELF, machine.into()),
        Reason::Aarch64 => (JITFD_REASON_AARCH64, 0),
        _ => (JITFD_REASON_OTHER, 0),
    }
}

thread_local! {
    /// What [`jitfd_get_code_error`] has returned.
    static TOLD: RefCell<Option<jitfd_code_error>> = const { RefCell::new(None) };
}

/// Where and why code was refused, if that is what the last call of this thread that
/// failed has failed for (errno EILSEQ, EOVERFLOW, or EINVAL for the chunk as a whole);
/// else null.
///
/// It is valid until the next failing call of this thread.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_get_code_error() -> *const jitfd_code_error {
    let error = last_code_error(jitfd_code_error::of);
    let told = TOLD.try_with(|told| {
        told.replace(error);
        told.borrow().as_ref().map_or(null(), from_ref)
    });
    told.unwrap_or(null())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longest_instruction_fits() {
        // Fifteen bytes, a long name with long operands, and two offsets.
        let longest = [
            0x2e, 0x67, 0x64, 0x67, 0xf0, 0x48, 0x81, 0x84, 0x8b, 0x78, 0x56, 0x34, 0x12, 0x78,
            0x56,
        ];
        let code: Vec<u8> = longest.iter().copied().cycle().take(1 << 20).collect();
        let error = rust::validate(&code, &rust::Rules::new()).unwrap_err();
        let told = jitfd_code_error::of(&error).unwrap();
        assert_eq!(told.disassembly.last(), Some(&0));
        assert!(error.disassembly.len() < told.disassembly.len());
    }
}
