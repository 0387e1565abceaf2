// SPDX-License-Identifier: MIT OR Apache-2.0

//! `jitctl validate`.

use crate::Status;
use jitfd::{Class, LockSkips, Options, ValidationError, Validator};
use object::{Object, ObjectSection};
use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Arguments {
    /// The file: x86-64 machine code, and nothing else unless --elf is given
    file: PathBuf,
    /// The file is an ELF file, and its section .text (or --section) is meant
    #[arg(long)]
    elf: bool,
    /// The section of the ELF file
    #[arg(long, requires = "elf", default_value = ".text")]
    section: String,
    /// Bytes that are data: offsets from the start of the code, the second not
    /// included, decimal or 0x...; may be given more than once
    #[arg(long, value_name = "FROM..TO", value_parser = range)]
    data: Vec<Range<usize>>,
    /// Refuses branches that skip a lock prefix; they are tolerated otherwise
    #[arg(long)]
    strict: bool,
    /// Refuses instructions that cross a 64-byte line
    #[arg(long)]
    within_lines: bool,
    /// Refuses system calls
    #[arg(long)]
    no_system_calls: bool,
}

fn number(text: &str) -> Option<usize> {
    match text.strip_prefix("0x") {
        Some(digits) => usize::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn range(text: &str) -> Result<Range<usize>, String> {
    let parsed = text
        .split_once("..")
        .and_then(|(from, to)| Some(number(from)?..number(to)?));
    parsed.ok_or_else(|| "a range is FROM..TO, in bytes".to_owned())
}

pub fn run(arguments: &Arguments, out: &mut dyn Write) -> io::Result<Status> {
    let name = arguments.file.display();
    let unreadable = |error| io::Error::other(format!("{name}: {error}"));
    let file = fs::read(&arguments.file).map_err(unreadable)?;
    let code = if arguments.elf {
        section(&file, &arguments.section).map_err(unreadable)?
    } else {
        file
    };
    let len = code.len();
    match Validator::new(options(arguments)).validate_owned(code) {
        Ok(chunk) => {
            writeln!(out, "{name}: valid, {len} bytes")?;
            for offset in chunk.lock_skips() {
                writeln!(
                    out,
                    "tolerated: a branch to {offset:#x}, behind a lock prefix"
                )?;
            }
            Ok(Status::Good)
        }
        Err(error) => {
            explain(&error, &name.to_string(), out)?;
            Ok(Status::No)
        }
    }
}

fn explain(error: &ValidationError, name: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{name}: not valid: {error}")
}

fn options(arguments: &Arguments) -> Options {
    let rule = if arguments.strict {
        LockSkips::Refuse
    } else {
        LockSkips::Tolerate
    };
    let mut options = Options::new().lock_skips(rule);
    for range in &arguments.data {
        options = options.data(range.clone());
    }
    if arguments.within_lines {
        options = options.within_lines();
    }
    if arguments.no_system_calls {
        options = options.forbid(Class::SystemCalls);
    }
    options
}

fn section(file: &[u8], name: &str) -> io::Result<Vec<u8>> {
    let elf = object::File::parse(file).map_err(io::Error::other)?;
    let section = elf
        .section_by_name(name)
        .ok_or_else(|| io::Error::other(format!("there is no section {name}")))?;
    let data = section.uncompressed_data().map_err(io::Error::other)?;
    Ok(data.into_owned())
}
