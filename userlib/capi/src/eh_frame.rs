// SPDX-License-Identifier: MIT OR Apache-2.0

//! Unwind tables of generated code.

use crate::guard::{self, Failure};
use crate::pointer;
use crate::registers;
use rust::tools::{EhFrame, Frame};
use std::ffi::c_void;

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
    /// JITFD_REG_RBX, RBP, RSP or R12 to R15.
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
        let register = registers::saved(step.reg);
        made = match (step.kind, register, step.offset) {
            (JITFD_FRAME_POINTER, None, 0) if number == 0 && step.at == 0 && step.reg == 0 => {
                from = 4;
                let mut pointer = Frame::pointer();
                pointer.try_reserve(steps.len())?;
                pointer
            }
            (JITFD_FRAME_CFA, Some(register), offset) => made.cfa(step.at, register, offset),
            (JITFD_FRAME_SAVED, Some(register), below) if below % 8 == 0 => {
                made.saved(step.at, register, below)
            }
            (JITFD_FRAME_RESTORED, Some(register), 0) => made.restored(step.at, register),
            _ => return Err(BAD_STEP),
        };
    }
    Ok(made)
}

/// One function of an unwind table: where it is, and how its caller is found. This
/// struct does not grow.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jitfd_frame {
    /// The address of its first byte.
    pub address: *const c_void,
    /// The number of bytes.
    pub len: usize,
    /// What is different from where on, in ascending order. None, for a function that
    /// leaves rsp where it is.
    pub steps: *const jitfd_frame_step,
    /// How many steps there are.
    pub step_count: usize,
}

/// An unwind table in the format of .eh_frame, with the zero at its end: to be
/// registered (jitfd_eh_frame_register), or given to jitfd_gdb_register.
#[repr(C)]
pub struct jitfd_eh_frame {
    /// Its bytes.
    pub bytes: *const c_void,
    /// How many there are.
    pub len: usize,
}

/// What C sees, and what it points to.
#[repr(C)]
struct Owned {
    _seen: jitfd_eh_frame,
    _table: EhFrame,
}

/// Makes the unwind table of functions: one for many, not one for each. Give it back
/// with jitfd_eh_frame_destroy; what was registered stays so.
///
/// Returns null with errno EINVAL for a step that makes no sense, a null pointer, a
/// len of 0, or a function that goes beyond the last address; ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_eh_frame_create(
    functions: *const jitfd_frame,
    count: usize,
) -> *mut jitfd_eh_frame {
    let owned = guard::object(|| {
        let mut table = EhFrame::default();
        // SAFETY: the header says what this pointer must be.
        for function in unsafe { pointer::array(functions, count)? } {
            let (address, len) = (function.address, function.len);
            pointer::wanted(address.cast_mut())?;
            if len == 0 || address.addr().checked_add(len).is_none() {
                return Err(BAD_RANGE);
            }
            // SAFETY: as above.
            let steps = unsafe { pointer::array(function.steps, function.step_count)? };
            table.add(address.addr(), len, &frame(steps, len)?)?;
        }
        let bytes = table.bytes();
        let seen = jitfd_eh_frame {
            bytes: bytes.as_ptr().cast(),
            len: bytes.len(),
        };
        Ok(Owned {
            _seen: seen,
            _table: table,
        })
    });
    owned.cast()
}

/// Gives a table back; what was registered stays so. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_eh_frame_destroy(table: *mut jitfd_eh_frame) {
    // SAFETY: the header says what this pointer must be: one of the function above.
    guard::quietly(|| drop(unsafe { pointer::take(table.cast::<Owned>()) }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registers::*;
    use rust::Register;

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
