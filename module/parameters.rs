// SPDX-License-Identifier: GPL-2.0

//! What an administrator sets, and sees: the module's parameters (`parameters.c`
//! defines them, `/sys/module/jit/parameters` has them) and who holds what
//! (`/sys/kernel/debug/jit/users`).
//!
//! Context: parameters are read anywhere, without a lock, and may change at any
//! time; a bound that is lowered refuses more, and takes nothing away.

use core::ptr::{addr_of, NonNull};

use kernel::{bindings, prelude::*, seq_file::SeqFile, seq_print};

use crate::user;

unsafe extern "C" {
    static jit_stop: bool;
    static jit_user_pages: c_long;
    static jit_user_regions: c_long;
    static jit_total_pages: c_long;
    static jit_total_regions: c_long;
    static jit_total_mappings: c_long;
    static jit_user_mappings: c_long;
    static jit_holder_mappings: c_long;
    static jit_retired_region: c_long;

    safe fn jit_parameters_init();
    safe fn jit_debugfs_create() -> *mut c_void;
    fn jit_debugfs_remove(dir: *mut c_void);
}

macro_rules! parameters {
    ($($(#[$doc:meta])* $name:ident = $symbol:ident;)*) => {
        $(
            $(#[$doc])*
            pub(crate) fn $name() -> i64 {
                // SAFETY: A plain variable, which sysfs writes; volatile, as it
                // may change at any time. A `long` has 64 bits here.
                unsafe { addr_of!($symbol).read_volatile() as i64 }
            }
        )*
    };
}

parameters! {
    /// Pages one user may have.
    user_pages = jit_user_pages;
    /// Regions and created codes one user may have.
    user_regions = jit_user_regions;
    /// Pages all users together may have.
    total_pages = jit_total_pages;
    /// Regions and created codes of all users together.
    total_regions = jit_total_regions;
    /// Mappings that all users together may make.
    total_mappings = jit_total_mappings;
    /// Mappings one user may have.
    user_mappings = jit_user_mappings;
    /// Mappings of one region that is not sealed by one address space, or by another user.
    holder_mappings = jit_holder_mappings;
    /// Replaced pages of one region that may wait to be freed.
    retired_region = jit_retired_region;
}

/// Whether all new code is refused.
pub(crate) fn stop() -> bool {
    // SAFETY: As above.
    unsafe { addr_of!(jit_stop).read_volatile() }
}

/// Sets the defaults that depend on the machine. To be called first.
pub(crate) fn init() {
    jit_parameters_init();
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
