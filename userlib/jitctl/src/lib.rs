// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command `jitctl`, as a function, so that tests run it where no program
//! can be started.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod probe;
mod stat;
mod validate;

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

/// What the command ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The answer is yes.
    Good = 0,
    /// The answer is no, or only in part.
    No = 1,
    /// The command line was wrong.
    Usage = 2,
    /// It could not be found out; of `probe`: nothing works.
    Failed = 3,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// Code for JIT compilers from /dev/jit: what this system allows, whether code is
/// valid, and what regions there are.
#[derive(Parser)]
#[command(name = "jitctl", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Says in words what this system allows and what refuses the rest. Ends with
    /// 0 if /dev/jit works, with 1 if only a fallback does, with 3 if nothing does
    Probe(probe::Arguments),
    /// Checks code as the library does before it is published. Ends with 0 if it
    /// is valid, with 1 if not, with 3 if it can't be read
    Validate(validate::Arguments),
    /// Shows the counters of a process's regions. Ends with 0 if there are any,
    /// with 1 if not, with 3 if the process can't be read
    Stat(stat::Arguments),
}

/// Runs the command with these arguments, of which the first is its name.
/// Answers go to `out`, complaints to standard error.
pub fn run<I, T>(arguments: I, out: &mut dyn Write) -> Status
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return explain(&error, out),
    };
    let done = match arguments.command {
        Command::Probe(arguments) => probe::run(&arguments, out),
        Command::Validate(arguments) => validate::run(&arguments, out),
        Command::Stat(arguments) => stat::run(&arguments, out),
    };
    done.unwrap_or_else(|error| {
        complain(&format!("jitctl: {error}\n"));
        Status::Failed
    })
}

/// The status tells it as well, so that a standard error which is full or closed does
/// not matter.
fn complain(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Help and version are answers, all else is a complaint.
fn explain(error: &clap::Error, out: &mut dyn Write) -> Status {
    if error.use_stderr() {
        complain(&error.to_string());
        return Status::Usage;
    }
    match write!(out, "{error}") {
        Ok(()) => Status::Good,
        Err(_) => Status::Failed,
    }
}
