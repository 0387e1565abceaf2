// SPDX-License-Identifier: GPL-2.0
//! Fault injection: each call is made again and again, and each time another one
//! of the allocations and copies of user memory that it makes fails, until none
//! is left. A call that fails has changed nothing (rule R7), then succeeds.
//!
//! Needs a kernel with fault injection. On another all tests are skipped, which
//! is a failure where they are asked for.

mod inject;
mod leaks;
mod maps;
mod publish;
mod region;
mod sweep;

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use crate::suite::harness;

/// Tells the C library to do without restartable sequences: the kernel writes to
/// their memory whenever it has scheduled, and a copy that fails there ends the
/// program.
const TUNABLES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.pthread.rseq=0");

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    if env::var_os(TUNABLES.0).is_none() {
        let error = Command::new("/proc/self/exe")
            .args(env::args_os().skip(1))
            .env(TUNABLES.0, TUNABLES.1)
            .exec();
        eprintln!("faults: could not start again: {error}");
        return ExitCode::FAILURE;
    }
    let groups = [
        region::tests(),
        publish::tests(),
        maps::tests(),
        leaks::tests(),
    ];
    harness::main(groups.into_iter().flatten().collect())
}
