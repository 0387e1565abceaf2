// SPDX-License-Identifier: MIT OR Apache-2.0

//! Unwind tables of generated code, and their registration.

use crate::guard::{self, Failure};
use crate::pointer;
use rust::Register;
use rust::tools::{EhFrame, Frame, UnwindTable};
use std::ffi::{c_int, c_void};

/// Unwind tables of any number of functions, in the format of .eh_frame, to be
/// registered (jitfd_eh_frame_register) or given to jitfd_gdb_add. For one thread
/// at a time.
pub struct jitfd_eh_frame {
    table: EhFrame,
}

/// A table that exceptions and backtraces of this program use.
pub struct jitfd_unwind_table {
    _table: UnwindTable,
}

/// From here on the frame address is reg + offset. The frame address is where rsp
/// was before the call that came here: at the start of a function rsp + 8.
pub const JITFD_FRAME_CFA: u32 = 1;
/// From here on the caller's reg is in memory, offset bytes below the frame
/// address: a multiple of 8.
pub const JITFD_FRAME_SAVED: u32 = 2;
/// From here on the caller's reg is in the register again.
pub const JITFD_FRAME_RESTORED: u32 = 3;
/// The function begins with push rbp; mov rbp, rsp. The first step, at 0; further
/// ones begin at 4.
pub const JITFD_FRAME_POINTER: u32 = 4;

/// A register, by its number in DWARF.
pub const JITFD_REG_RBX: u32 = 3;
/// A register, by its number in DWARF.
pub const JITFD_REG_RBP: u32 = 6;
/// A register, by its number in DWARF.
pub const JITFD_REG_RSP: u32 = 7;
/// A register, by its number in DWARF.
pub const JITFD_REG_R12: u32 = 12;
/// A register, by its number in DWARF.
pub const JITFD_REG_R13: u32 = 13;
/// A register, by its number in DWARF.
pub const JITFD_REG_R14: u32 = 14;
/// A register, by its number in DWARF.
pub const JITFD_REG_R15: u32 = 15;

const REGISTERS: [(u32, Register); 7] = [
    (JITFD_REG_RBX, Register::Rbx),
    (JITFD_REG_RBP, Register::Rbp),
    (JITFD_REG_RSP, Register::Rsp),
    (JITFD_REG_R12, Register::R12),
    (JITFD_REG_R13, Register::R13),
    (JITFD_REG_R14, Register::R14),
    (JITFD_REG_R15, Register::R15),
];

/// One step in the description of a function's frame: what is different from some
/// instruction on. Fields that a kind does not use are 0. This struct does not
/// grow.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jitfd_frame_step {
    /// From where on, in bytes from the start of the function.
    pub at: usize,
    /// One of JITFD_FRAME_.
    pub kind: u32,
    /// One of JITFD_REG_.
    pub reg: u32,
    /// In bytes.
    pub offset: u32,
    /// 0.
    pub reserved: u32,
}

const BAD_STEP: Failure = Failure::Refused(
    libc::EINVAL,
    "a step of a frame is not known, not inside of the function, or before the last one",
);

const BAD_RANGE: Failure = Failure::Refused(
    libc::EINVAL,
    "a function has no bytes, or goes beyond the last address",
);

fn frame(steps: &[jitfd_frame_step], len: usize) -> Result<Frame, Failure> {
    let mut made = Frame::leaf();
    made.try_reserve(steps.len())?;
    let mut from = 0;
    for (number, step) in steps.iter().enumerate() {
        if step.at < from || step.at > len || step.reserved != 0 {
            return Err(BAD_STEP);
        }
        from = step.at;
        let register = REGISTERS.iter().find(|(known, _)| *known == step.reg);
        made = match (step.kind, register, step.offset) {
            (JITFD_FRAME_POINTER, None, 0) if number == 0 && step.at == 0 && step.reg == 0 => {
                from = 4;
                let mut pointer = Frame::pointer();
                pointer.try_reserve(steps.len())?;
                pointer
            }
            (JITFD_FRAME_CFA, Some(&(_, register)), offset) => made.cfa(step.at, register, offset),
            (JITFD_FRAME_SAVED, Some(&(_, register)), below) if below % 8 == 0 => {
                made.saved(step.at, register, below)
            }
            (JITFD_FRAME_RESTORED, Some(&(_, register)), 0) => made.restored(step.at, register),
            _ => return Err(BAD_STEP),
        };
    }
    Ok(made)
}

/// A table without functions. Give it back with jitfd_eh_frame_free.
///
/// Returns null with errno ENOTRECOVERABLE only.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_eh_frame_new() -> *mut jitfd_eh_frame {
    guard::object(|| {
        Ok(jitfd_eh_frame {
            table: EhFrame::new(),
        })
    })
}

/// Gives a table back; what was registered stays so. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_eh_frame_free(table: *mut jitfd_eh_frame) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(table) }));
}

/// Adds the function of len bytes at an address, and how its caller is found: by
/// steps in ascending order. None, for a function that leaves rsp where it is.
///
/// Returns 0, or -1 with errno EINVAL for a step that makes no sense, a null
/// pointer, a len of 0, or a function that goes beyond the last address; ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_eh_frame_add(
    table: *mut jitfd_eh_frame,
    address: *const c_void,
    len: usize,
    steps: *const jitfd_frame_step,
    count: usize,
) -> c_int {
    guard::status(|| {
        pointer::wanted(address.cast_mut())?;
        if len == 0 || address.addr().checked_add(len).is_none() {
            return Err(BAD_RANGE);
        }
        // SAFETY: the header says what these pointers must be.
        let (table, steps) =
            unsafe { (pointer::object_mut(table)?, pointer::array(steps, count)?) };
        let frame = frame(steps, len)?;
        Ok(table.table.try_add(address.addr(), len, &frame)?)
    })
}

/// The table as it is in memory, with the zero at its end, and its length in bytes,
/// unless len is null. Valid until the table is added to or given back.
///
/// Returns null with errno EINVAL if table is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_eh_frame_bytes(
    table: *const jitfd_eh_frame,
    len: *mut usize,
) -> *const c_void {
    guard::address(|| {
        // SAFETY: the header says what these pointers must be.
        let bytes = unsafe { pointer::object(table)? }.table.bytes();
        // SAFETY: as above.
        unsafe { pointer::store(len, bytes.len()) };
        Ok(bytes.as_ptr().cast_mut().cast::<c_void>())
    })
}

/// Has exceptions and backtraces of this program find their way by the len bytes of
/// an .eh_frame section with its zero at the end: what jitfd_eh_frame_bytes gives,
/// or the compiler's own. It is copied, so all addresses in it must be absolute
/// (__register_frame takes one that is relative to its place). Register one table
/// for many functions, not one for each. Give it back with jitfd_unwind_table_free,
/// before the code. What it says must be true of the code that is there.
///
/// Returns null with errno EINVAL for a null pointer, or if the records do not follow
/// each other up to a zero of four bytes that is the end of the bytes, one is in
/// DWARF's 64-bit form, or a function's does not refer to a common one before it; or
/// ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_eh_frame_register(
    bytes: *const c_void,
    len: usize,
) -> *mut jitfd_unwind_table {
    guard::object(|| {
        // SAFETY: the header says what this pointer must be.
        let section = unsafe { pointer::array(bytes.cast::<u8>(), len)? };
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(len).is_err() {
            let text = "no memory for a copy of the unwind table";
            return Err(Failure::Refused(libc::ENOMEM, text));
        }
        bytes.extend_from_slice(section);
        // SAFETY: the header says what the table must be.
        let table = unsafe { UnwindTable::from_bytes(bytes.into_boxed_slice())? };
        Ok(jitfd_unwind_table { _table: table })
    })
}

/// Takes a table back that was registered. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_unwind_table_free(table: *mut jitfd_unwind_table) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(table) }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(at: usize, kind: u32, reg: u32, offset: u32) -> jitfd_frame_step {
        jitfd_frame_step {
            at,
            kind,
            reg,
            offset,
            reserved: 0,
        }
    }

    #[test]
    fn this_struct_never_grows() {
        assert_eq!(size_of::<jitfd_frame_step>(), 24);
    }

    #[test]
    fn steps_are_those_of_the_library() {
        let steps = [
            step(0, JITFD_FRAME_POINTER, 0, 0),
            step(5, JITFD_FRAME_SAVED, JITFD_REG_RBX, 24),
            step(9, JITFD_FRAME_RESTORED, JITFD_REG_RBX, 0),
            step(9, JITFD_FRAME_CFA, JITFD_REG_RSP, 8),
        ];
        let wanted = Frame::pointer()
            .saved(5, Register::Rbx, 24)
            .restored(9, Register::Rbx)
            .cfa(9, Register::Rsp, 8);
        assert_eq!(frame(&steps, 10).unwrap(), wanted);
        assert_eq!(frame(&[], 1).unwrap(), Frame::leaf());
    }

    #[test]
    fn steps_that_make_no_sense_are_refused() {
        let bad = [
            step(0, 0, JITFD_REG_RBX, 0),
            step(0, 5, JITFD_REG_RBX, 0),
            step(0, JITFD_FRAME_CFA, 0, 8),
            step(0, JITFD_FRAME_SAVED, JITFD_REG_RBX, 4),
            step(0, JITFD_FRAME_RESTORED, JITFD_REG_RBX, 8),
            step(1, JITFD_FRAME_POINTER, 0, 0),
            step(0, JITFD_FRAME_POINTER, JITFD_REG_RBP, 0),
            step(11, JITFD_FRAME_CFA, JITFD_REG_RSP, 8),
        ];
        for one in bad {
            assert!(frame(&[one], 10).is_err(), "{} at {}", one.kind, one.at);
        }
        let good = step(4, JITFD_FRAME_CFA, JITFD_REG_RSP, 8);
        for second in [
            step(3, JITFD_FRAME_CFA, JITFD_REG_RSP, 8),
            step(4, JITFD_FRAME_POINTER, 0, 0),
        ] {
            assert!(frame(&[good, second], 10).is_err());
        }
        let mut odd = good;
        odd.reserved = 1;
        assert!(frame(&[odd], 10).is_err() && frame(&[good], 10).is_ok());
    }
}
