// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tables that a process has in common: one for each kind of trampoline and each
//! backend, created at first use and never dropped.
//!
//! Locks: none. Two threads that both need a table first may both create it; one of
//! the two is dropped again.

use crate::register::ContextRegister;
use crate::table::{Stubs, Table, TableOptions};
use jitfd::internal::First;
use jitfd::{Backend, Error, Fallback};

/// What the tables of a kind have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    number: usize,
    stubs: fn(ContextRegister) -> Result<Stubs, Error>,
    context_register: ContextRegister,
}

impl Kind {
    /// Tables that carry the context in this register.
    pub(crate) fn carrying(context_register: ContextRegister) -> Self {
        Self {
            number: context_register as usize,
            stubs: |context_register| TableOptions::new(context_register).stubs(),
            context_register,
        }
    }

    /// Tables of a kind of their own, which carry the context in `r10`.
    pub(crate) fn special(stubs: fn(ContextRegister) -> Result<Stubs, Error>) -> Self {
        Self {
            number: ContextRegister::ALL.len(),
            stubs,
            context_register: ContextRegister::R10,
        }
    }

    /// The table that these backends lead to. It is looked for once; a failure is not
    /// kept, so the next call tries again.
    pub(crate) fn table(self, accepted: Fallback) -> Result<&'static Table, Error> {
        static FOUND: [[First<&'static Table>; Fallback::COUNT]; KINDS] =
            [const { [const { First::new() }; Fallback::COUNT] }; KINDS];
        let found = &FOUND[self.number][accepted.number()];
        if let Some(table) = found.get() {
            return Ok(table);
        }
        let table = accepted.choose(|backend| self.of(backend))?;
        Ok(found.get_or_set(table))
    }

    /// The table of one backend.
    fn of(self, backend: Backend) -> Result<&'static Table, Error> {
        static CREATED: [[First<Table>; BACKENDS]; KINDS] =
            [const { [const { First::new() }; BACKENDS] }; KINDS];
        let created = &CREATED[self.number][backend as usize];
        if let Some(table) = created.get() {
            return Ok(table);
        }
        let new = (self.stubs)(self.context_register)?.create(backend)?;
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
        let only = Fallback::Only(Backend::DualMapping);
        let mut tables = Vec::new();
        for context_register in ContextRegister::ALL {
            let table = Kind::carrying(context_register).table(only).unwrap();
            assert_eq!(
                (table.context_register(), table.backend()),
                (context_register, Backend::DualMapping)
            );
            tables.push(std::ptr::from_ref(table));
            let again = Kind::carrying(context_register).table(only).unwrap();
            assert!(std::ptr::eq(table, again));
        }
        tables.push(crate::return_page::kind().table(only).unwrap());
        tables.sort();
        tables.dedup();
        assert_eq!(tables.len(), KINDS);
    }

    #[test]
    fn fallbacks_that_lead_to_one_backend_share_its_table() {
        let kind = Kind::carrying(ContextRegister::R9);
        let any = kind.table(Fallback::Any).unwrap();
        let same = kind.table(Fallback::Only(any.backend())).unwrap();
        assert!(std::ptr::eq(any, same));
    }
}
