// SPDX-License-Identifier: GPL-2.0
//! The peers' own tests: that each does what a trampoline is described to do, and
//! nothing else. Needs `trampfd.ko` in the working directory.
//!
//! ```text
//! peers [WORD...]   the tests whose name contains one of the words, or all
//! ```

/// The harness of the guest's suite.
#[expect(dead_code, reason = "the guest's suite uses all of it")]
#[path = "../../../guest/src/suite"]
mod suite {
    pub mod harness;
    pub mod outcome;
    pub mod patience;
    pub mod sys;
}

#[path = "../tests/mod.rs"]
mod tests;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(error) = jitfd_peers::Kernel::load("trampfd.ko") {
        println!("trampfd.ko: {error}");
        return ExitCode::FAILURE;
    }
    suite::harness::main(tests::all())
}
