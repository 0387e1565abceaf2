// SPDX-License-Identifier: MIT OR Apache-2.0

//! What unwinders and debuggers are told of generated code.

use crate::guard::{self, Failure};
use crate::pointer;
use crate::space::jitfd_symbol;
use rust::space::Symbol;
use rust::tools::{GdbJit, UnwindTable};
use std::ffi::c_void;

/// What an unwinder or a debugger was told, until jitfd_unregister.
pub struct jitfd_registration {
    _told: Told,
}

enum Told {
    #[expect(dead_code, reason = "it is held, and dropped")]
    Unwinder(UnwindTable),
    #[expect(dead_code, reason = "it is held, and dropped")]
    Debugger(GdbJit),
}

/// Has exceptions and backtraces of this program find their way by the len bytes of
/// an .eh_frame section with its zero at the end: those of a jitfd_eh_frame, or the
/// compiler's own. It is copied, so all addresses in it must be absolute
/// (__register_frame takes one that is relative to its place). Register one table
/// for many functions, not one for each. Take it back with jitfd_unregister, before the
/// code ends. What it says must be true of the code that is there.
///
/// Returns null with errno EINVAL for a null pointer, or if the records do not follow
/// each other up to a zero of four bytes that is the end of the bytes, one is in
/// DWARF's 64-bit form, or a function's does not refer to a common one before it; or
/// ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_eh_frame_register(
    bytes: *const c_void,
    len: usize,
) -> *mut jitfd_registration {
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
        Ok(jitfd_registration {
            _told: Told::Unwinder(table),
        })
    })
}

/// Tells gdb of functions that were published, also if it attaches later: their names in
/// UTF-8, which may be null, addresses and lengths; and eh_frame_len bytes of an unwind
/// table about them with absolute addresses (those of a jitfd_eh_frame), or null and 0.
/// All is copied but the code. Take it back with jitfd_unregister.
///
/// With a debugger attached each registration stops the program for a moment: a program
/// does well to do it on demand only. JITFD_SPACE_GDB does it for all code of a code
/// space.
///
/// Returns null with errno EINVAL if there are no functions, one has no bytes,
/// a name is not UTF-8, or for a null pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_gdb_register(
    functions: *const jitfd_symbol,
    count: usize,
    eh_frame: *const c_void,
    eh_frame_len: usize,
) -> *mut jitfd_registration {
    // SAFETY: the header says what these pointers must be.
    guard::object(|| unsafe {
        let table = pointer::array(eh_frame.cast::<u8>(), eh_frame_len)?;
        let functions = pointer::array(functions, count)?.iter();
        let codes = pointer::list(functions.map(|one| code(one)))?;
        if codes.is_empty() {
            return Err(Failure::Refused(libc::EINVAL, "there are no functions"));
        }
        let gdb = GdbJit::default();
        gdb.add(&codes, table);
        Ok(jitfd_registration {
            _told: Told::Debugger(gdb),
        })
    })
}

/// Takes back what was registered: the unwinder or debugger forgets it. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_unregister(registration: *mut jitfd_registration) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(registration) }));
}

/// # Safety
/// The pointers of `function` are null or valid for reads of what its lengths say,
/// as long as the result is used.
unsafe fn code(function: &jitfd_symbol) -> Result<Symbol<'_>, Failure> {
    const NOTHING: Failure = Failure::Refused(libc::EINVAL, "a function has no bytes");
    const NO_TEXT: Failure = Failure::Refused(libc::EINVAL, "a name is not UTF-8");
    let name_len = if function.name.is_null() {
        0
    } else {
        function.name_len
    };
    // SAFETY: as promised by the caller.
    let (name, bytes) = unsafe {
        let name = pointer::array(function.name.cast::<u8>(), name_len)?;
        let bytes = pointer::array(function.address.cast::<u8>().cast_const(), function.len)?;
        (name, bytes)
    };
    if bytes.is_empty() {
        return Err(NOTHING);
    }
    let name = std::str::from_utf8(name).map_err(|_| NO_TEXT)?;
    Ok(Symbol {
        name,
        address: function.address.addr(),
        bytes,
    })
}
