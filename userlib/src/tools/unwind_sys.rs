// SPDX-License-Identifier: MIT OR Apache-2.0

//! The unwinder's functions for generated code: all `unsafe` of it.
//!
//! Two libraries have functions of the same names and different meanings. In
//! libgcc `__register_frame` takes a whole `.eh_frame` section, in LLVM's
//! libunwind one entry of it. Which one the program has is told by a symbol that
//! only the latter defines.
//!
//! Locks: none of ours; both libraries have their own.
#![expect(unsafe_code, reason = "this is the file for it")]

use std::sync::OnceLock;

unsafe extern "C" {
    fn __register_frame(table: *const u8);
    fn __deregister_frame(table: *const u8);
}

/// Whether the unwinder is LLVM's.
fn is_llvm() -> bool {
    static LLVM: OnceLock<bool> = OnceLock::new();
    *LLVM.get_or_init(|| {
        if cfg!(target_feature = "crt-static") {
            return cfg!(target_env = "musl");
        }
        let symbol = c"__unw_add_dynamic_fde";
        // SAFETY: the name is a C string; nothing is called.
        !unsafe { libc::dlsym(libc::RTLD_DEFAULT, symbol.as_ptr()) }.is_null()
    })
}

/// A table that the unwinder knows until this is dropped.
///
/// # Invariants
/// The bytes are a table that is registered.
#[derive(Debug)]
pub(super) struct Registered {
    bytes: Box<[u8]>,
}

impl Registered {
    /// # Safety
    /// `bytes` is a well-formed `.eh_frame` section with a zero at its end, which
    /// describes the code at its addresses truly, as long as the result lives.
    pub(super) unsafe fn new(bytes: Box<[u8]>) -> Self {
        for at in handles(&bytes) {
            // SAFETY: as promised by the caller; the box does not move.
            unsafe { __register_frame(at) };
        }
        // INVARIANT: it is registered.
        Self { bytes }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        for at in handles(&self.bytes) {
            // SAFETY: by the type invariant it is registered.
            unsafe { __deregister_frame(at) };
        }
    }
}

/// What is registered: the table, or each function of it.
fn handles(table: &[u8]) -> Vec<*const u8> {
    if is_llvm() {
        functions(table).map(<[u8]>::as_ptr).collect()
    } else {
        vec![table.as_ptr()]
    }
}

/// The entries of a table that are about functions: those that refer to a common
/// entry.
fn functions(table: &[u8]) -> impl Iterator<Item = &[u8]> {
    let word = |bytes: &[u8], at| {
        let bytes: Option<&[u8; 4]> = bytes.get(at..at + 4)?.first_chunk();
        Some(u32::from_ne_bytes(*bytes?))
    };
    let mut rest = table;
    let entries = std::iter::from_fn(move || {
        let len = usize::try_from(word(rest, 0).filter(|&len| len != 0)?).ok()?;
        let (entry, after) = rest.split_at_checked(len.checked_add(4)?)?;
        rest = after;
        Some(entry)
    });
    entries.filter(move |entry| word(entry, 4) != Some(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::{EhFrame, Frame};

    #[test]
    fn functions_are_told_from_the_common_entry() {
        let mut table = EhFrame::new();
        for number in 0..5 {
            table.add(number << 12, 16, &Frame::pointer());
        }
        let bytes = table.into_bytes();
        let starts: Vec<_> = functions(&bytes).map(|entry| entry[9]).collect();
        assert_eq!(starts, [0, 0x10, 0x20, 0x30, 0x40]);
        assert_eq!(functions(&[0; 4]).count(), 0);
        assert_eq!(functions(&[9, 0, 0, 0, 1]).count(), 0);
    }
}
