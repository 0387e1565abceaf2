// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where a closure gets its trampoline from: a table that the process has for a backend,
//! or one that the program has made.

use crate::bound::Held;
use crate::kind::Kind;
use crate::table::Table;
use jitfd::{Error, Jit};
use std::sync::Arc;

/// A [`Jit`], or a [`Table`] of the program's own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not where trampolines are made",
    label = "expected a `Jit` or an `Arc<Table>`",
    note = "pass `&jit` for the tables that the process has, or `&table` for one of your own, \
            which is an `Arc<Table>`"
)]
pub trait Place {
    /// A table for trampolines of this kind.
    fn held(&self, kind: Kind) -> Result<Held, Error>;
}

impl Place for Jit {
    fn held(&self, kind: Kind) -> Result<Held, Error> {
        kind.table(self.backend()).map(Held::Common)
    }
}

impl Place for Arc<Table> {
    fn held(&self, _: Kind) -> Result<Held, Error> {
        Ok(Held::Own(Self::clone(self)))
    }
}
