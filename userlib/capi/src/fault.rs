// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why code was refused, as a struct.

use crate::rules::flag_of;
use crate::text::fixed;
use crate::versioned::Versioned;
use rust::{CodeError, Reason};
use std::ffi::c_char;

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
/// A direct branch goes behind a lock prefix, and that was not tolerated; target:
/// where to.
pub const JITFD_REASON_SKIPS_LOCK: u32 = 8;
/// A direct branch goes into declared data; target: where to.
pub const JITFD_REASON_INTO_DATA: u32 = 9;
/// A near branch, call or return with an operand-size prefix: processors differ.
pub const JITFD_REASON_VENDOR_DEPENDENT: u32 = 10;
/// A declared entry is not the first byte of an instruction; target: the entry.
pub const JITFD_REASON_BAD_ENTRY: u32 = 11;
/// The instruction at an entry is not endbr64, which JITFD_ENDBR64 asks for.
pub const JITFD_REASON_NO_ENDBR64: u32 = 12;
/// The rules forbid the instruction; forbidden: by which JITFD_FORBID_.
pub const JITFD_REASON_FORBIDDEN: u32 = 13;
/// The instruction crosses a border of 64 bytes, which JITFD_WITHIN_LINES forbids.
pub const JITFD_REASON_CROSSES_LINE: u32 = 14;
/// A reason that this header has no number for: see the message.
pub const JITFD_REASON_OTHER: u32 = 0xffff;

/// Why code was refused, and where.
#[repr(C)]
pub struct jitfd_fault {
    /// In: sizeof(struct jitfd_fault).
    pub size: usize,
    /// The instruction at fault, in bytes from the start of the chunk. Of a
    /// branch it is the branch, not its target.
    pub offset: usize,
    /// What the reason speaks of, in bytes from the start of the chunk; else 0.
    pub target: usize,
    /// One of JITFD_REASON_.
    pub reason: u32,
    /// How many of the bytes are those of the instruction: 0 to 15. 0 if the
    /// chunk as a whole is at fault.
    pub length: u32,
    /// By which of JITFD_FORBID_ the instruction is forbidden; else 0.
    pub forbidden: u32,
    /// 0.
    pub reserved: u32,
    /// The instruction, or what there is of it.
    pub bytes: [u8; 16],
    /// The instruction as text; "(bad)" if it is none.
    pub disassembly: [c_char; 112],
    /// All of it in one sentence, with what to do about it.
    pub message: [c_char; 400],
}

// SAFETY: `repr(C)`, three words, four half words and bytes up to a multiple of
// eight; zero is a value of all.
unsafe impl Versioned for jitfd_fault {
    const FIRST: usize = 568;
}

impl From<&CodeError> for jitfd_fault {
    fn from(error: &CodeError) -> Self {
        let (reason, target) = number(&error.reason);
        let mut bytes = [0; 16];
        for (slot, byte) in bytes.iter_mut().zip(&error.bytes) {
            *slot = *byte;
        }
        Self {
            size: size_of::<Self>(),
            offset: error.offset,
            target,
            reason,
            length: u32::try_from(error.bytes.len()).unwrap_or(0),
            forbidden: match &error.reason {
                Reason::Forbidden { class } => flag_of(*class),
                _ => 0,
            },
            reserved: 0,
            bytes,
            disassembly: fixed(&error.disassembly),
            message: fixed(&error.to_string()),
        }
    }
}

/// The number of a reason, and the offset it speaks of.
fn number(reason: &Reason) -> (u32, usize) {
    match reason {
        Reason::Empty => (JITFD_REASON_EMPTY, 0),
        Reason::TooLong { .. } => (JITFD_REASON_TOO_LONG, 0),
        Reason::DataRange { range, .. } => (JITFD_REASON_DATA_RANGE, range.start),
        Reason::Invalid => (JITFD_REASON_INVALID, 0),
        Reason::Truncated => (JITFD_REASON_TRUNCATED, 0),
        Reason::RunsIntoData { data } => (JITFD_REASON_RUNS_INTO_DATA, *data),
        Reason::IntoInstruction { target, .. } => (JITFD_REASON_INTO_INSTRUCTION, *target),
        Reason::SkipsLock { target } => (JITFD_REASON_SKIPS_LOCK, *target),
        Reason::IntoData { target } => (JITFD_REASON_INTO_DATA, *target),
        Reason::VendorDependent => (JITFD_REASON_VENDOR_DEPENDENT, 0),
        Reason::BadEntry { entry } => (JITFD_REASON_BAD_ENTRY, *entry),
        Reason::NoEndbr64 => (JITFD_REASON_NO_ENDBR64, 0),
        Reason::Forbidden { .. } => (JITFD_REASON_FORBIDDEN, 0),
        Reason::CrossesLine => (JITFD_REASON_CROSSES_LINE, 0),
        _ => (JITFD_REASON_OTHER, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_has_the_size_it_had() {
        assert_eq!(size_of::<jitfd_fault>(), jitfd_fault::FIRST);
    }

    #[test]
    fn a_longest_message_fits() {
        // Fifteen bytes, a long name with long operands, and two offsets.
        let longest = [
            0x2e, 0x67, 0x64, 0x67, 0xf0, 0x48, 0x81, 0x84, 0x8b, 0x78, 0x56, 0x34, 0x12, 0x78,
            0x56,
        ];
        let code: Vec<u8> = longest.iter().copied().cycle().take(1 << 20).collect();
        let error = rust::validate(&code, &rust::Rules::new()).unwrap_err();
        let fault = jitfd_fault::from(&error);
        assert_eq!(fault.message.last(), Some(&0));
        assert!(error.to_string().len() < fault.message.len() / 2);
    }
}
