// SPDX-License-Identifier: GPL-2.0
//! Trampolines that add their context to what they are called with.

use crate::suite::outcome::{Checked, failed};
use jitfd::Error;
use jitfd_trampoline::{Entry, Table, TableOptions};
use std::ffi::c_void;
use std::ptr::without_provenance_mut;

extern "C" fn add(number: usize, context: *mut c_void) -> usize {
    number + context.addr()
}

pub fn made(options: TableOptions) -> Checked<Table> {
    options.create().or_else(|error| failed(error.to_string()))
}

/// The table is one of `ContextRegister::Rsi`.
pub fn bind(table: &Table, context: usize) -> Result<Entry<'_>, Error> {
    // SAFETY: `add` takes any context.
    unsafe { table.bind(add as *const c_void, without_provenance_mut(context)) }
}

pub fn bound(table: &Table, context: usize) -> Checked<Entry<'_>> {
    bind(table, context).or_else(|error| failed(format!("bind: {error}")))
}

pub fn call(entry: &Entry<'_>, number: usize) -> Checked<usize> {
    // SAFETY: it was bound to `add`.
    let function = unsafe { entry.function::<extern "C" fn(usize) -> usize>() };
    let function = function.or_else(|error| failed(error.to_string()))?;
    Ok(function(number))
}
