// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tables that a process has in common: one for each kind of trampoline and each
//! backend, created at first use and never dropped.
//!
//! Locks: none. Two threads that both need a table first may both create it; one of
//! the two is dropped again.

use crate::kind::{Kind, Stubs};
use crate::register::ContextRegister;
use crate::table::{Table, TableOptions};
use jitfd::internal::First;
use jitfd::{Backend, Error};

impl Kind {
    const fn number(self) -> usize {
        match self {
            Self::Carrying(context_register) => context_register as usize,
            Self::SaveAll => ContextRegister::ALL.len(),
        }
    }

    fn stubs(self) -> Result<Stubs, Error> {
        match self {
            Self::Carrying(context_register) => {
                TableOptions::from(context_register.register()).stubs()
            }
            Self::SaveAll => TableOptions {
                save_all: true,
                ..TableOptions::default()
            }
            .stubs(),
        }
    }

    /// The table of one backend. A failure is not kept: the next call tries again.
    pub(crate) fn table(self, backend: Backend) -> Result<&'static Table, Error> {
        static CREATED: [[First<Table>; BACKENDS]; KINDS] =
            [const { [const { First::new() }; BACKENDS] }; KINDS];
        let created = &CREATED[self.number()][backend as usize];
        if let Some(table) = created.get() {
            return Ok(table);
        }
        let new = self.stubs()?.create(backend)?;
        Ok(created.get_or_set(new))
    }
}

const KINDS: usize = ContextRegister::ALL.len() + 1;
const BACKENDS: usize = Backend::ALL.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_one_table_of_a_backend() {
        let carrying = ContextRegister::ALL.map(Kind::Carrying);
        let mut tables = Vec::new();
        for kind in carrying.into_iter().chain([Kind::SaveAll]) {
            let table = kind.table(Backend::DualMapping).unwrap();
            assert_eq!(table.kind(), kind);
            tables.push(std::ptr::from_ref(table));
            let again = kind.table(Backend::DualMapping).unwrap();
            assert!(std::ptr::eq(table, again));
            let other = kind.table(Backend::ProtectFlips).unwrap();
            assert!(!std::ptr::eq(table, other));
        }
        tables.sort();
        tables.dedup();
        assert_eq!(tables.len(), KINDS);
    }
}
