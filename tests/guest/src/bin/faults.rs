// SPDX-License-Identifier: GPL-2.0
//! Every call, with every allocation and every copy of user memory in it failing
//! once, run as root inside a guest whose kernel has fault injection.
//!
//! ```text
//! faults             all tests; the last line counts them
//! faults WORD...     only the tests whose name contains one of the words
//! faults --list      the names
//! ```

fn main() -> std::process::ExitCode {
    jitfd_guest::faults::main()
}
