// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs the adapters where ordinary executable memory is refused: a line for each test,
//! and as the last line "adapters: N passed, N failed".
//!
//! `adapters-check [--fallback]`: with `--fallback` also where there is no `/dev/jit`.

mod cranelift;
mod modules;

use jitfd::{Fallback, Jit};
use std::process::ExitCode;

type Outcome = Result<(), Box<dyn std::error::Error>>;
type Test = (&'static str, fn(&Jit) -> Outcome);

/// Fails with `what` unless it holds.
fn holds(condition: bool, what: impl FnOnce() -> String) -> Outcome {
    match condition {
        true => Ok(()),
        false => Err(what().into()),
    }
}

/// Fails unless both are the same.
fn equal<T: PartialEq + std::fmt::Debug>(what: &str, got: T, wanted: T) -> Outcome {
    holds(got == wanted, || {
        format!("{what}: got {got:?}, wanted {wanted:?}")
    })
}

/// How many mappings of this process are executable, and how many also writable.
fn executable_mappings() -> Result<(usize, usize), Box<dyn std::error::Error>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let count = |what: &str| maps.lines().filter(|line| line.contains(what)).count();
    Ok((count(" r-x") + count(" rwx"), count(" rwx")))
}

/// From here on memory that was writable can't become executable: `PR_SET_MDWE`.
fn refuse_ordinary_code() -> std::io::Result<()> {
    const REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    // SAFETY: takes numbers.
    let result = unsafe { libc::prctl(libc::PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) };
    match result {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn main() -> ExitCode {
    let with_fallback = std::env::args().any(|word| word == "--fallback");
    let fallback = if with_fallback {
        Fallback::Any
    } else {
        Fallback::Never
    };
    let jit = match Jit::open(fallback) {
        Ok(jit) => jit,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = refuse_ordinary_code() {
        eprintln!("error: PR_SET_MDWE: {error}");
        return ExitCode::FAILURE;
    }
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in modules::TESTS.iter().chain(cranelift::TESTS) {
        match test(&jit) {
            Ok(()) => {
                passed += 1;
                println!("ok {name}");
            }
            Err(error) => {
                failed += 1;
                println!("FAILED {name}: {error}");
            }
        }
    }
    println!("adapters: {passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed != 0))
}
