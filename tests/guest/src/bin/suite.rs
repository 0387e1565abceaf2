// SPDX-License-Identifier: GPL-2.0
//! The tests of the module, run as root inside the guest.
//!
//! ```text
//! suite             all tests; the last line counts them
//! suite WORD...     only the tests whose name contains one of the words
//! suite --list      the names
//! ```

#[path = "../suite/mod.rs"]
mod suite;

fn main() -> std::process::ExitCode {
    suite::main()
}
