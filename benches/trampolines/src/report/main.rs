// SPDX-License-Identifier: GPL-2.0

//! What `jitfd-trampolines` has measured, as tables, verdicts and a picture. Runs
//! on the host; nothing is measured here, and nothing is printed that was not.
//!
//! ```text
//! report FOLDER [DOCUMENTATION]
//! ```
//!
//! Reads the files that the run left in FOLDER, writes `table.rst` and
//! `trampolines.svg` there, and, if asked, both into the documentation: the tables
//! between the two comments that say so. Of a run on a machine as it is, fewer tables,
//! between others, and no picture.

mod data;
mod page;
mod picture;
mod tables;
mod targets;

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use data::Run;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [folder] => report(Path::new(folder), None),
        [folder, pages] => report(Path::new(folder), Some(Path::new(pages))),
        _ => Err("usage: report FOLDER [DOCUMENTATION]".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("report: failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(folder: &Path, pages: Option<&Path>) -> Result<(), String> {
    let run = Run::read(folder)?;
    let guest = run.machine.is_empty();
    let (verdicts, summary) = targets::judge(&run);
    let (name, tables) = match guest {
        true => ("measured", tables::all(&run)),
        false => ("measured here", tables::here(&run)),
    };
    let text = format!("{tables}\n{verdicts}");
    print!("{text}");
    write(&folder.join("table.rst"), &text)?;
    let picture = folder.join(picture::NAME);
    picture::draw(&run, &picture)?;
    if let Some(pages) = pages {
        page::update(&pages.join("trampolines.rst"), name, &text)?;
    }
    if let (Some(pages), true) = (pages, guest) {
        let to = pages.join(picture::NAME);
        fs::copy(&picture, &to).map_err(|error| format!("{}: {error}", to.display()))?;
    }
    println!("{summary}");
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
