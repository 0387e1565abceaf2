// SPDX-License-Identifier: GPL-2.0

//! jitfd's own.

use std::ffi::c_void;

use jitfd::Register;
use jitfd_peers::target;
use jitfd_trampoline::{Table, TableOptions, Trampoline};

use super::{Maker, Start, Way, of};
use crate::calls::Callee;

/// A number's address, as the library wants it.
pub(super) fn context(number: &'static u64) -> *mut c_void {
    (&raw const *number).cast_mut().cast()
}

struct InTable(&'static Table);

impl Maker for InTable {
    type Made = Trampoline<'static>;

    #[inline]
    fn make(&self, number: &'static u64) -> Result<Self::Made, String> {
        // SAFETY: The target takes a number's address as its second argument,
        // which the table's register is.
        let entry = unsafe { self.0.bind(target as *const c_void, context(number)) };
        entry.map_err(|error| error.to_string())
    }

    fn callee(made: &Self::Made) -> Callee {
        Callee::At(made.address())
    }
}

fn of_table(
    start: &Start,
    name: &'static str,
    options: TableOptions,
) -> Result<Box<dyn Way>, String> {
    let table = Table::create(&start.jit()?, options).map_err(|error| error.to_string())?;
    let table = Box::leak(Box::new(table));
    Ok(of(name, 64, true, InTable(table)))
}

pub fn table(start: &Start) -> Result<Box<dyn Way>, String> {
    of_table(start, "jitfd table", Register::Rsi.into())
}

/// The least code: two pages of it.
pub fn small_table(start: &Start) -> Result<Box<dyn Way>, String> {
    let small = TableOptions {
        context_register: Register::Rsi,
        copy_capacity: 256,
        ..Default::default()
    };
    of_table(start, "jitfd table of 256", small)
}
