// SPDX-License-Identifier: GPL-2.0

//! The one table from causes to errnos. Documentation/userspace-api/jit.rst
//! lists them per call.

use kernel::prelude::*;

use crate::plan::refusal::Refusal;

/// The errno of a refusal.
pub(crate) fn errno(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Invalid => EINVAL,
        Refusal::Full => ENOSPC,
        Refusal::Sealed => EROFS,
        Refusal::NotOwner => EPERM,
        Refusal::Moved => ESTALE,
        Refusal::NotReserved => EEXIST,
        Refusal::Stopped => ESHUTDOWN,
    }
}

/// The handle is no region yet.
pub(crate) fn not_a_region() -> Error {
    ENODATA
}

/// A bound on pages, regions or mappings is reached.
pub(crate) fn quota() -> Error {
    EDQUOT
}
