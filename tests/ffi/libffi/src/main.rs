// SPDX-License-Identifier: GPL-2.0
//! libffi's own tests of closures, in processes that have set `PR_SET_MDWE`, with
//! closures whose code is in `jitfd`. Every closure that a test makes is checked
//! to be entered by a mapping of `/dev/jit` that nobody can write.
//!
//! ```text
//! libffi [WORD...]   the tests whose name contains one of the words, or all
//! ```

mod allocate;
mod case;
mod child;
#[path = "../../common/mod.rs"]
mod common;

/// The harness of the guest's tests, and of its tools what that needs.
#[expect(
    dead_code,
    unused_macros,
    unused_imports,
    reason = "the guest's tests use all of it"
)]
#[path = "../../../guest/src/suite"]
mod suite {
    pub mod harness;
    pub mod outcome;
    pub mod patience;
    pub mod sys;
}

use case::CASES;
use common::hardening;
use std::process::ExitCode;
use suite::harness::{self, Test};

fn main() -> ExitCode {
    let mut tests = vec![Test::new(
        "hardening::ordinary_ways_are_refused",
        hardening::ordinary_ways_are_refused,
    )];
    tests.extend(CASES.iter().map(|case| Test::new(case.name, || case.run())));
    harness::main(tests)
}
