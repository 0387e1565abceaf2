// SPDX-License-Identifier: GPL-2.0

//! What an administrator sets: the module's parameters (`parameters.c` defines them,
//! `/sys/module/jit/parameters` has them).
//!
//! Context: parameters are read anywhere, without a lock, and may change at any
//! time; a bound that is lowered refuses more, and takes nothing away.

use core::ptr::addr_of;

use kernel::prelude::*;

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
