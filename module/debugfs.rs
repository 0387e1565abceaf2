// SPDX-License-Identifier: GPL-2.0

//! What an administrator sees: who holds what (`/sys/kernel/debug/jit/users`, a file of
//! `parameters.c`).
//!
//! Context: process.

use core::ptr::NonNull;

use kernel::{bindings, prelude::*, seq_file::SeqFile, seq_print};

use crate::user;

unsafe extern "C" {
    safe fn jit_debugfs_create() -> *mut c_void;
    fn jit_debugfs_remove(dir: *mut c_void);
}

/// The module's folder in debugfs, if there is one.
pub(crate) struct Folder(Option<NonNull<c_void>>);

// SAFETY: The dentry is only removed, which any thread may do.
unsafe impl Send for Folder {}
// SAFETY: As above.
unsafe impl Sync for Folder {}

impl Folder {
    /// Makes it. Without debugfs there is none, which is no error.
    pub(crate) fn create() -> Self {
        Folder(NonNull::new(jit_debugfs_create()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(dir) = self.0 {
            // SAFETY: Made by `create`; the kernel takes its error pointers too.
            unsafe { jit_debugfs_remove(dir.as_ptr()) };
        }
    }
}

/// # Safety
///
/// Called by `parameters.c` with a valid file.
#[no_mangle]
unsafe extern "C" fn jit_show_users(m: *mut bindings::seq_file) {
    // SAFETY: By this function's contract.
    let m = unsafe { SeqFile::from_raw(m) };
    seq_print!(m, "user pages regions mappings\n");
    let mut from = Some(0);
    while let Some(user) = from.and_then(user::at_or_after) {
        let (pages, regions, mappings) = user.holds();
        seq_print!(m, "{} {} {} {}\n", user.id(), pages, regions, mappings);
        from = user.id().checked_add(1);
    }
    let (pages, regions, mappings) = user::totals();
    seq_print!(m, "all {} {} {}\n", pages, regions, mappings);
}
