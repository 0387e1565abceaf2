// SPDX-License-Identifier: MIT OR Apache-2.0

//! Shows that this process has no ordinary way to run code that it wrote. Each
//! way is tried, and each must be refused.

use crate::report::BoxError;
use crate::sys::{self, Page};
use libc::{PROT_EXEC, PROT_READ, PROT_WRITE};
use std::io;

/// Gives up the ordinary ways for good, and tries them.
pub fn give_up_ordinary_ways() -> Result<(), BoxError> {
    sys::refuse_exec_gain().map_err(|error| format!("prctl(PR_SET_MDWE): {error}"))?;
    println!("this process has set PR_SET_MDWE; the ordinary ways to run new code:");
    let both = Page::map(PROT_READ | PROT_WRITE | PROT_EXEC);
    refused("mmap writable and executable", both)?;
    let page = Page::map(PROT_READ | PROT_WRITE)?;
    refused(
        "mprotect writable -> executable",
        page.protect(PROT_READ | PROT_EXEC),
    )
}

/// Tries to make jitfd's `code` writable.
pub fn stays_unwritable(code: *const u8) -> Result<(), BoxError> {
    // SAFETY: if it succeeds this is an error, which ends the program.
    let result = unsafe { sys::make_writable(code) };
    refused("mprotect code of jitfd -> writable", result)
}

fn refused<T>(way: &str, result: io::Result<T>) -> Result<(), BoxError> {
    match result {
        Err(error) => {
            println!("  {way}: {error}");
            Ok(())
        }
        Ok(_) => Err(format!("{way} was allowed under PR_SET_MDWE").into()),
    }
}
