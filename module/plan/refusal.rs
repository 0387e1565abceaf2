// SPDX-License-Identifier: GPL-2.0

//! Why a call is refused. One variant per cause; `module/error.rs` has the one
//! table that turns a variant into an errno.

/// The reason for which a request is refused. A refused request has changed
/// nothing (rule R7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A flag, a reserved field, a length, an alignment or an offset is not
    /// what the interface allows.
    Invalid,
    /// The region has no room for it.
    Full,
    /// The region is sealed.
    Sealed,
    /// The caller's address space is not the one that may publish.
    NotOwner,
    /// The cursor is not where the caller's code was relocated for.
    Moved,
    /// Some byte of a fill is not reserved, or was filled before.
    NotReserved,
    /// The administrator has stopped all new code.
    Stopped,
}
