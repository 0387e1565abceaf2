// SPDX-License-Identifier: MIT OR Apache-2.0

//! Laying code out so that no instruction crosses a line of 64 bytes.

use crate::guard::{self, Failure};
use crate::pointer;
use jitfd_code::internal::{next_in_line, nops};
use std::ffi::{c_int, c_void};
use std::ptr;

/// How many bytes of NOPs an instruction of len bytes needs before it at an offset, in
/// bytes from the start of the code, so that it does not cross a border of 64 bytes, as
/// JITFD_RULE_WITHIN_LINES demands. The code begins at such a border.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_line_padding(offset: usize, len: usize) -> usize {
    next_in_line(offset, len).wrapping_sub(offset)
}

/// Fills len bytes of code that is being written, from an offset on, with the longest
/// NOPs that do not cross a border of 64 bytes themselves: before an instruction
/// (jitfd_line_padding), or up to an aligned label. The code has room for them.
///
/// Returns 0, or -1 with errno EINVAL if code is null, or offset + len overflows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_line_nops(code: *mut c_void, offset: usize, len: usize) -> c_int {
    guard::status(|| {
        pointer::wanted(code)?;
        let too_long = Failure::Refused(libc::EINVAL, "a length is too large");
        let end = offset.checked_add(len).ok_or(too_long)?;
        let mut at = offset;
        for nop in nops(offset, end) {
            // SAFETY: the header says that there is room up to `end`, and the NOPs end
            // there.
            unsafe { ptr::copy_nonoverlapping(nop.as_ptr(), code.cast::<u8>().add(at), nop.len()) };
            at += nop.len();
        }
        Ok(())
    })
}
