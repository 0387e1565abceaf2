// SPDX-License-Identifier: GPL-2.0
//! Trampolines that add their context to what they are called with.

use crate::suite::outcome::{Checked, failed};
use jitfd::{Error, Fallback, Jit, Register};
use jitfd_trampoline::{Table, TableOptions, Trampoline};
use std::ffi::c_void;
use std::ptr::without_provenance_mut;

extern "C" fn add(number: usize, context: *mut c_void) -> usize {
    number + context.addr()
}

/// A table with so many trampolines to a copy.
pub fn made(fallback: Fallback, copy_capacity: usize) -> Checked<Table> {
    let options = TableOptions {
        context_register: Register::Rsi,
        copy_capacity,
        ..Default::default()
    };
    let table = Jit::open(fallback).and_then(|jit| Table::create(&jit, options));
    table.or_else(|error| failed(error.to_string()))
}

/// The table is one of `made`.
pub fn bind(table: &Table, context: usize) -> Result<Trampoline<'_>, Error> {
    // SAFETY: `add` takes any context.
    unsafe { table.bind(add as *const c_void, without_provenance_mut(context)) }
}

pub fn bound(table: &Table, context: usize) -> Checked<Trampoline<'_>> {
    bind(table, context).or_else(|error| failed(format!("bind: {error}")))
}

pub fn call(trampoline: &Trampoline<'_>, number: usize) -> usize {
    // SAFETY: it was bound to `add`.
    let function = unsafe { trampoline.entry::<extern "C" fn(usize) -> usize>() };
    function(number)
}
