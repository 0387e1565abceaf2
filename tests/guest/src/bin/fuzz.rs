// SPDX-License-Identifier: GPL-2.0
//! Random calls, each with a result that a model has predicted, run as root
//! inside the guest.
//!
//! ```text
//! fuzz                       some seeds, each a test; the last line counts them
//! fuzz --calls N [--seed S]  one long run
//! fuzz --seed S --trace      prints every call (default: 10000 of them)
//! ```

fn main() -> std::process::ExitCode {
    jitfd_guest::fuzz::main()
}
