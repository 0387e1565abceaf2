// SPDX-License-Identifier: MIT OR Apache-2.0

//! `jitctl validate`.

use crate::Status;
use jitfd::{Chunk, Class, CodeError, Rules, validate_owned};
use object::{Architecture, BinaryFormat, Object, ObjectSection};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Arguments {
    /// The file: x86-64 machine code, and nothing else unless --elf is given
    file: PathBuf,
    /// The file is an ELF file for x86-64, and its section .text (or --section) is meant
    #[arg(long)]
    elf: bool,
    /// The section of the ELF file
    #[arg(long, requires = "elf", default_value = ".text")]
    section: String,
    /// Bytes that are data: offsets from the start of the code, the second not
    /// included, decimal or 0x...; may be given more than once
    #[arg(long, value_name = "FROM..TO", value_parser = range)]
    data: Vec<Range<usize>>,
    /// An entry, at which an instruction must start: an offset like those of --data;
    /// may be given more than once
    #[arg(long, value_name = "OFFSET", value_parser = offset)]
    entry: Vec<usize>,
    /// Refuses entries that do not begin with endbr64; without --entry, a first
    /// instruction that is none
    #[arg(long)]
    endbr64: bool,
    /// Refuses branches that skip a lock prefix; they are tolerated and listed
    /// otherwise
    #[arg(long)]
    strict: bool,
    /// Refuses instructions that cross a 64-byte line
    #[arg(long)]
    within_lines: bool,
    /// Refuses instructions of a class; may be given more than once
    #[arg(long, value_name = "CLASS")]
    forbid: Vec<Forbidden>,
    /// Refuses instructions by their name in Intel's manual, such as cpuid; may be
    /// given more than once
    #[arg(long, value_name = "NAME", value_parser = mnemonic)]
    forbid_mnemonic: Vec<String>,
    /// As --forbid system-calls
    #[arg(long)]
    no_system_calls: bool,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// A class of instructions on the command line.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Forbidden {
    /// syscall, sysenter and int n
    SystemCalls,
    /// wrpkru and xrstor
    ProtectionKeys,
    /// Far jumps, calls and returns, and iret
    FarTransfers,
    /// Writes of segment registers or the bases behind them
    Segments,
    /// Privileged instructions (CPL 0)
    Privileged,
}

impl From<Forbidden> for Class {
    fn from(forbidden: Forbidden) -> Self {
        match forbidden {
            Forbidden::SystemCalls => Self::SystemCalls,
            Forbidden::ProtectionKeys => Self::ProtectionKeys,
            Forbidden::FarTransfers => Self::FarTransfers,
            Forbidden::Segments => Self::Segments,
            Forbidden::Privileged => Self::Privileged,
        }
    }
}

fn number(text: &str) -> Option<usize> {
    match text.strip_prefix("0x") {
        Some(digits) => usize::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn offset(text: &str) -> Result<usize, String> {
    number(text).ok_or_else(|| "an offset is a number of bytes".to_owned())
}

fn mnemonic(text: &str) -> Result<String, String> {
    let known = Rules::new().forbid_mnemonic(text);
    known.map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

fn range(text: &str) -> Result<Range<usize>, String> {
    let parsed = text
        .split_once("..")
        .and_then(|(from, to)| Some(number(from)?..number(to)?));
    parsed.ok_or_else(|| "a range is FROM..TO, in bytes".to_owned())
}

/// The most bytes that a chunk has.
const MOST: u64 = 1 << 30;

/// What there is to read, at most one byte more than `most`: a device may have no
/// end.
fn bounded(file: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub fn run(arguments: &Arguments, out: &mut dyn Write) -> io::Result<Status> {
    let name = arguments.file.display();
    let unreadable = |error| io::Error::other(format!("{name}: {error}"));
    let file = File::open(&arguments.file).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let most = if arguments.elf { size.max(MOST) } else { MOST };
    let file = bounded(file, most).map_err(unreadable)?;
    let code = if arguments.elf {
        section(&file, &arguments.section).map_err(unreadable)?
    } else {
        file
    };
    let len = code.len();
    let options = options(arguments).map_err(io::Error::other)?;
    let checked = validate_owned(code, &options);
    if arguments.json {
        let answer = as_json(&name.to_string(), len, &checked);
        writeln!(out, "{answer:#}")?;
    } else {
        print(&name.to_string(), len, &checked, out)?;
    }
    Ok(match checked {
        Ok(_) => Status::Good,
        Err(_) => Status::No,
    })
}

type Checked = Result<Chunk, CodeError>;

fn print(name: &str, len: usize, checked: &Checked, out: &mut dyn Write) -> io::Result<()> {
    let chunk = match checked {
        Ok(chunk) => chunk,
        Err(error) => return writeln!(out, "{name}: not valid: {error}"),
    };
    writeln!(out, "{name}: valid, {len} bytes")?;
    for offset in chunk.lock_skips() {
        writeln!(
            out,
            "tolerated: a branch to {offset:#x}, behind a lock prefix"
        )?;
    }
    Ok(())
}

fn as_json(name: &str, len: usize, checked: &Checked) -> Value {
    match checked {
        Ok(chunk) => json!({
            "file": name,
            "valid": true,
            "bytes": len,
            "lock_skips": chunk.lock_skips(),
        }),
        Err(error) => json!({
            "file": name,
            "valid": false,
            "bytes": len,
            "offset": error.offset,
            "instruction": error.bytes,
            "disassembly": error.disassembly,
            "reason": error.reason.to_string(),
            "advice": error.advice(),
        }),
    }
}

fn options(arguments: &Arguments) -> Result<Rules, jitfd::Error> {
    let mut options = Rules::new();
    if !arguments.strict {
        options = options.allow_lock_skips();
    }
    for range in &arguments.data {
        options = options.data(range.clone());
    }
    for &entry in &arguments.entry {
        options = options.entry(entry);
    }
    if arguments.endbr64 {
        options = options.endbr64();
    }
    if arguments.within_lines {
        options = options.within_lines();
    }
    for &class in &arguments.forbid {
        options = options.forbid(class.into());
    }
    if arguments.no_system_calls {
        options = options.forbid(Class::SystemCalls);
    }
    for name in &arguments.forbid_mnemonic {
        options = options.forbid_mnemonic(name)?;
    }
    Ok(options)
}

/// The instructions of x32 are the same.
fn is_of_x86_64(architecture: Architecture) -> bool {
    [Architecture::X86_64, Architecture::X86_64_X32].contains(&architecture)
}

fn section(file: &[u8], name: &str) -> io::Result<Vec<u8>> {
    let elf = object::File::parse(file).map_err(io::Error::other)?;
    if elf.format() != BinaryFormat::Elf || !is_of_x86_64(elf.architecture()) {
        return Err(io::Error::other("no ELF file with x86-64 code"));
    }
    let section = elf
        .section_by_name(name)
        .ok_or_else(|| io::Error::other(format!("there is no section {name}")))?;
    let data = section.uncompressed_data().map_err(io::Error::other)?;
    if data.is_empty() {
        let text = format!("the section {name} has no bytes in the file");
        return Err(io::Error::other(text));
    }
    Ok(data.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jitfd::internal::check_len;

    #[test]
    fn what_has_no_end_is_not_read_to_it() {
        assert_eq!(bounded(io::repeat(0), 100).unwrap().len(), 101);
        assert_eq!(bounded(&b"\x90\xc3"[..], 100).unwrap(), b"\x90\xc3");
        let longest = usize::try_from(MOST).unwrap();
        assert!(check_len(longest).is_ok() && check_len(longest + 1).is_err());
    }
}
