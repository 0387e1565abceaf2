// SPDX-License-Identifier: MIT OR Apache-2.0

//! Laying code out so that no instruction crosses a line of 64 bytes.

use crate::guard;
use crate::pointer;
use crate::rules::align;
use rust::LineWriter;
use std::ffi::{c_int, c_void};

/// Takes instructions one by one and puts NOPs before those that would cross a
/// border of 64 bytes, as JITFD_WITHIN_LINES demands. For one thread at a time.
pub struct jitfd_lines {
    lines: LineWriter,
}

/// Begins to lay code out. The first byte will be the first of a line. Give it back
/// with jitfd_lines_free.
///
/// Returns null with errno ENOTRECOVERABLE only.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_lines_new() -> *mut jitfd_lines {
    guard::object(|| {
        Ok(jitfd_lines {
            lines: LineWriter::new(),
        })
    })
}

/// Gives what was laid out back. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_lines_free(lines: *mut jitfd_lines) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(lines) }));
}

/// Stores where an instruction of len bytes will lie if it is the next to be
/// written, in bytes from the start: operands may be relative to it.
///
/// Returns 0, or -1 with errno EINVAL for a null pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_lines_place(
    lines: *const jitfd_lines,
    len: usize,
    offset: *mut usize,
) -> c_int {
    guard::status(|| {
        pointer::wanted(offset)?;
        // SAFETY: the header says what these pointers must be.
        unsafe { pointer::store(offset, pointer::object(lines)?.lines.place(len)) };
        Ok(())
    })
}

/// Writes one instruction, after NOPs if need be, and stores where it lies, unless
/// offset is null.
///
/// Returns 0, or -1 with errno EINVAL if it has no bytes or more than 15, or for a
/// null pointer; ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_lines_push(
    lines: *mut jitfd_lines,
    instruction: *const c_void,
    len: usize,
    offset: *mut usize,
) -> c_int {
    // SAFETY: the header says what these pointers must be, and that one thread
    // uses them.
    guard::status(|| unsafe {
        let bytes = pointer::array(instruction.cast::<u8>(), len)?;
        let at = pointer::object_mut(lines)?.lines.push(bytes)?;
        pointer::store(offset, at);
        Ok(())
    })
}

/// Writes NOPs up to a multiple of align_bytes (a power of two up to 4096), and
/// stores where that is, unless offset is null.
///
/// Returns 0, or -1 with errno EINVAL for a bad align or a null pointer; ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_lines_align(
    lines: *mut jitfd_lines,
    align_bytes: usize,
    offset: *mut usize,
) -> c_int {
    // SAFETY: as above.
    guard::status(|| unsafe {
        let align = align(align_bytes)?;
        let at = pointer::object_mut(lines)?.lines.align(align)?;
        pointer::store(offset, at);
        Ok(())
    })
}

/// Replaces len bytes that were written, from offset on: the displacement of a
/// branch whose target is known now.
///
/// Returns 0, or -1 with errno EINVAL if not all of them were written, or for a
/// null pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_lines_patch(
    lines: *mut jitfd_lines,
    offset: usize,
    bytes: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: as above.
    guard::status(|| unsafe {
        let bytes = pointer::array(bytes.cast::<u8>(), len)?;
        Ok(pointer::object_mut(lines)?.lines.patch(offset, bytes)?)
    })
}

/// What was written, and in len, which may be null, its length; valid until more is
/// written.
///
/// Returns null with errno EINVAL if lines is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_lines_bytes(
    lines: *const jitfd_lines,
    len: *mut usize,
) -> *const c_void {
    // SAFETY: the header says what these pointers must be.
    guard::address(|| unsafe {
        let bytes = pointer::object(lines)?.lines.bytes();
        pointer::store(len, bytes.len());
        Ok(bytes.as_ptr().cast_mut().cast())
    })
}
