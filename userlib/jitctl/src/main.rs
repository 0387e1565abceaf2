// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command `jitctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    jitctl::run(std::env::args_os(), &mut std::io::stdout().lock()).into()
}
