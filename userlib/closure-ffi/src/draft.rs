// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory in which a function is written before it is published. Others write into
//! it by its address, so it is no `Vec`.
#![expect(unsafe_code, reason = "this is the file for it")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// As the places of functions in a region: what is aligned here is aligned there.
pub const ALIGN: usize = 16;

/// Writable memory, zeroed at first.
///
/// # Invariants
/// `start` is an allocation of `layout`, which is this value's alone and initialised
/// throughout: at first, and nobody can take that back.
#[derive(Debug)]
pub struct Draft {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: by the type invariant, it is memory that nobody else has.
unsafe impl Send for Draft {}

impl Draft {
    /// `None` if `len` is 0 or too large.
    pub fn new(len: usize) -> Option<Self> {
        let layout = Layout::from_size_align(len, ALIGN).ok()?;
        if len == 0 {
            return None;
        }
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) });
        let start = start.unwrap_or_else(|| handle_alloc_error(layout));
        // INVARIANT: it is new and zeroed.
        Some(Self { start, layout })
    }

    /// Where to write. Valid as long as the draft.
    pub const fn as_mut_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// A copy of `len` bytes, `skip` bytes behind the start; `None` if they are not
    /// inside. Who has the address does not write at the same time, or his data
    /// race is his own.
    pub fn copy(&self, skip: usize, len: usize) -> Option<Vec<u8>> {
        let end = skip.checked_add(len)?;
        if end > self.layout.size() {
            return None;
        }
        // SAFETY: by the type invariant, and the range is inside. No reference to
        // it stays.
        Some(unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(skip), len) }.to_vec())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // SAFETY: by the type invariant.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_by_the_address_is_copied() {
        let draft = Draft::new(20).unwrap();
        assert_eq!(draft.as_mut_ptr().addr() % ALIGN, 0);
        // SAFETY: it is inside.
        unsafe { draft.as_mut_ptr().add(3).write(7) };
        assert_eq!(draft.copy(2, 3), Some(vec![0, 7, 0]));
        assert_eq!(draft.copy(0, 20).map(|copy| copy.len()), Some(20));
        assert_eq!(draft.copy(1, 20), None);
        assert_eq!(draft.copy(usize::MAX, 2), None);
    }

    #[test]
    fn no_draft_is_empty_or_too_large() {
        assert!(Draft::new(0).is_none() && Draft::new(usize::MAX).is_none());
    }
}
