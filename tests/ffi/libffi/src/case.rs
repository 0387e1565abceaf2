// SPDX-License-Identifier: GPL-2.0
//! One test of libffi: a `main` that exits with 0 and prints what it should.

use crate::allocate;
use crate::child;
use crate::common::hardening;
use crate::suite::outcome::{Outcome, failed, holds};
use regex_lite::Regex;
use std::ffi::c_int;

/// A test, as the build script found it.
pub struct Case {
    /// The folder, the file, and which variant.
    pub name: &'static str,
    main: unsafe extern "C" fn() -> c_int,
    /// What DejaGnu wants to find in its output.
    output: &'static str,
    /// Whether it allocates closures at all.
    allocates: bool,
}

include!(concat!(env!("OUT_DIR"), "/cases.rs"));

impl Case {
    /// Runs it in a process of its own.
    pub fn run(&self) -> Outcome {
        hardening::give_up()?;
        let wanted = Regex::new(self.output).or_else(|error| failed(error.to_string()))?;
        let closures = allocate::count_closures()?;
        // SAFETY: the process is new and does nothing else.
        let end = child::run(|| unsafe { (self.main)() })?;
        holds(end.status == 0, end.to_string())?;
        let as_wanted = wanted.is_match(&end.output);
        holds(as_wanted, format!("{end}, not {:?}", self.output))?;
        if self.allocates {
            closures.all_in_jitfd()?;
        }
        Ok(())
    }
}
