// SPDX-License-Identifier: GPL-2.0
//! The tests of the module, run as root inside the guest.
//!
//! ```text
//! suite             all tests; the last line counts them
//! suite WORD...     only the tests whose name contains one of the words
//! suite --list      the names
//! ```

fn main() -> std::process::ExitCode {
    jitfd_guest::suite::main()
}
