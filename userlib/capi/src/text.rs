// SPDX-License-Identifier: MIT OR Apache-2.0

//! Text to C, in arrays of fixed length, and from C.

use crate::guard::Failure;
use std::ffi::{CStr, c_char};

/// A C string; an empty one if the pointer is null.
///
/// # Safety
/// `text` is null or a C string as long as the result is used.
pub(crate) unsafe fn read<'a>(text: *const c_char) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Ok("");
    }
    // SAFETY: as promised by the caller.
    unsafe { CStr::from_ptr(text) }
        .to_str()
        .map_err(|_| Failure::Refused(libc::EINVAL, "a name is not UTF-8"))
}

/// `text` with a NUL behind it, cut off where the array ends.
pub(crate) fn fixed<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    let room = N.saturating_sub(1);
    let end = (0..=room.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end));
    let bytes = text.bytes().take(end.unwrap_or(0));
    for (slot, byte) in array.iter_mut().zip(bytes) {
        *slot = c_char::from_ne_bytes([byte]);
    }
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        fixed(text).map(|byte: c_char| byte.to_ne_bytes()[0])
    }

    #[test]
    fn the_last_byte_is_nul() {
        assert_eq!(&bytes::<4>("ab"), b"ab\0\0");
        assert_eq!(&bytes::<4>("abcdef"), b"abc\0");
        assert_eq!(&bytes::<1>("abc"), b"\0");
    }

    #[test]
    fn no_character_is_cut_in_two() {
        assert_eq!(&bytes::<4>("ab\u{e9}"), b"ab\0\0");
    }
}
