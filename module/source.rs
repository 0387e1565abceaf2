// SPDX-License-Identifier: GPL-2.0

//! Bytes in user memory that become code. They are read once, front to back.
//!
//! Context: process, where user memory may be touched: no turn is held.

use kernel::{bindings, prelude::*, uaccess::UserPtr};

/// What is left of a range of user memory.
pub(crate) struct Source {
    at: UserPtr,
    left: usize,
}

impl Source {
    /// `len` bytes from the address `from` on.
    pub(crate) fn new(from: u64, len: u64) -> Result<Self> {
        Ok(Source {
            at: user_ptr(from)?,
            left: usize::try_from(len)?,
        })
    }

    /// Bytes that are left.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Copies the next `len` bytes, of which some may be there when it fails.
    /// Fails with `EFAULT`.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes of `len` bytes.
    pub(crate) unsafe fn read(&mut self, to: *mut u8, len: usize) -> Result {
        if len > self.left {
            return Err(EFAULT);
        }
        // This variant does not look for the slab object that the bytes would have
        // to lie in: they go to a page of their own.
        //
        // SAFETY: By this function's contract.
        let missing = unsafe { bindings::_copy_from_user(to.cast(), self.at.as_const_ptr(), len) };
        if missing != 0 {
            return Err(EFAULT);
        }
        self.at = self.at.wrapping_byte_add(len);
        self.left -= len;
        Ok(())
    }
}

/// A user address.
pub(crate) fn user_ptr(addr: u64) -> Result<UserPtr> {
    Ok(UserPtr::from_addr(usize::try_from(addr)?))
}
