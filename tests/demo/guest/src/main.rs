// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest side of the demo. In order: give up the ordinary ways to make code
//! executable (`hardening`), run real programs whose machine code `jit_create_code`
//! placed (`image`, `traps`, `picture`), compile functions on first use into a
//! region while other CPUs execute it (`lazy`), and judge (`report`).

mod cpu;
mod hardening;
mod image;
mod interrupts;
mod lazy;
mod picture;
mod report;
mod sys;
mod traps;

use report::{BoxError, Findings};
use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: demo-guest [FOLDER [OUT [FUNCTIONS]]]";

/// What is read, what is written, and how much is compiled lazily.
struct Task {
    folder: PathBuf,
    out: PathBuf,
    functions: usize,
}

fn main() -> ExitCode {
    let findings = Task::from_arguments().and_then(|task| run(&task));
    match findings.and_then(|findings| findings.verdict()) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("demo: failed: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Task {
    /// The defaults are where the guest's init puts files and takes them from.
    fn from_arguments() -> Result<Self, BoxError> {
        let args: Vec<String> = env::args().skip(1).collect();
        if args.len() > 3 {
            return Err(USAGE.into());
        }
        let path = |at: usize, default| args.get(at).map_or(Path::new(default), Path::new).into();
        let functions = args.get(2).map_or(Ok(4000), |text| text.parse());
        Ok(Self {
            folder: path(0, "."),
            out: path(1, "/out"),
            functions: functions.map_err(|error| format!("FUNCTIONS: {error}; {USAGE}"))?,
        })
    }
}

fn run(task: &Task) -> Result<Findings, BoxError> {
    hardening::give_up_ordinary_ways()?;
    let traps = traps::check(&task.folder)?;
    let picture = picture::check(&task.folder, &task.out)?;
    let lazy = lazy::run(task.functions)?;
    Ok(Findings {
        wrong_traps: traps,
        wrong_pictures: picture,
        lazy,
    })
}
