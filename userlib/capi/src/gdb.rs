// SPDX-License-Identifier: MIT OR Apache-2.0

//! Registration of code with gdb.

use crate::guard::{self, Failure};
use crate::pointer;
use crate::space::jitfd_symbol;
use rust::space::NewCode;
use rust::tools::GdbJit;
use std::ffi::{c_int, c_void};

/// Code that gdb knows by name, also if it attaches later. May be used by several
/// threads at once. With a debugger attached each registration stops the program
/// for a moment; so a program does well to do it on demand only. JITFD_SPACE_GDB
/// does it for all code of a code space.
pub struct jitfd_gdb {
    gdb: GdbJit,
}

/// Nothing is registered yet. Give it back with jitfd_gdb_free.
///
/// Returns null with errno ENOTRECOVERABLE only.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_gdb_new() -> *mut jitfd_gdb {
    guard::object(|| Ok(jitfd_gdb { gdb: GdbJit::new() }))
}

/// Has gdb forget what was registered. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_gdb_free(gdb: *mut jitfd_gdb) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(gdb) }));
}

/// Registers functions that were published: their names in UTF-8, which may be null,
/// addresses and lengths; and eh_frame_len bytes of an unwind table about them with
/// absolute addresses (jitfd_eh_frame_bytes), or null and 0. All is copied but the
/// code.
///
/// Returns 0, or -1 with errno EINVAL if there are no functions, one has no bytes,
/// a name is not UTF-8, or for a null pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_gdb_add(
    gdb: *mut jitfd_gdb,
    functions: *const jitfd_symbol,
    count: usize,
    eh_frame: *const c_void,
    eh_frame_len: usize,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let gdb = pointer::object(gdb)?;
        let table = pointer::array(eh_frame.cast::<u8>(), eh_frame_len)?;
        let functions = pointer::array(functions, count)?.iter();
        let codes = pointer::list(functions.map(|one| code(one)))?;
        if codes.is_empty() {
            return Err(Failure::Refused(libc::EINVAL, "there are no functions"));
        }
        gdb.gdb.add(&codes, table);
        Ok(())
    })
}

/// # Safety
/// The pointers of `function` are null or valid for reads of what its lengths say,
/// as long as the result is used.
unsafe fn code(function: &jitfd_symbol) -> Result<NewCode<'_>, Failure> {
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
    Ok(NewCode::new(name, function.address.addr(), bytes))
}
