// SPDX-License-Identifier: GPL-2.0
//! What one user does to another through the module, and the bound of each.
//! Run as root inside the guest.
//!
//! ```text
//! hostile             all tests; the last line counts them
//! hostile WORD...     only the tests whose name contains one of the words
//! hostile --list      the names
//! ```

fn main() -> std::process::ExitCode {
    jitfd_guest::hostile::main()
}
