// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which file a program's name means, and whether a library can be loaded before it.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Why a program can't be run.
#[derive(Debug)]
pub enum Problem {
    /// There is none.
    Missing(String),
    /// No library can be loaded before it.
    Unfit(String),
}

/// Bytes that hold the header and the table behind it.
const HEAD: u64 = 4096;
const SET_USER_OR_GROUP: u32 = 0o6000;

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The file, as a shell finds it.
pub fn find(name: &OsStr) -> Result<PathBuf, Problem> {
    let missing = || Problem::Missing(format!("there is no program {}", name.to_string_lossy()));
    let path = if name.as_bytes().contains(&b'/') {
        Some(PathBuf::from(name)).filter(|path| path.exists())
    } else {
        let folders = env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        env::split_paths(&folders)
            .map(|folder| folder.join(name))
            .find(|path| is_program(path))
    };
    let path = path.ok_or_else(missing)?;
    check(&path)?;
    Ok(path)
}

/// That the loader takes this file's part: a program that is linked statically has none,
/// and one that gains rights listens to nobody.
fn check(path: &Path) -> Result<(), Problem> {
    let shown = path.display();
    let mode = fs::metadata(path).map_or(0, |found| found.permissions().mode());
    if mode & SET_USER_OR_GROUP != 0 {
        return Err(Problem::Unfit(format!(
            "{shown} is set-user-ID or set-group-ID: the loader would not load the library \
             before it"
        )));
    }
    let mut head = Vec::new();
    // One that can't be read may still be run; then nothing is known of it.
    if let Ok(file) = File::open(path) {
        let _ = file.take(HEAD).read_to_end(&mut head);
    }
    match is_static(&head) {
        true => Err(Problem::Unfit(format!(
            "{shown} is linked statically: no library can be loaded before it"
        ))),
        false => Ok(()),
    }
}

/// Whether this is the beginning of a 64-bit ELF program without an interpreter.
fn is_static(head: &[u8]) -> bool {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, size: usize| {
        let mut bytes = [0; 8];
        let from = head.get(at..at.checked_add(size)?)?;
        bytes.get_mut(..size)?.copy_from_slice(from);
        Some(u64::from_le_bytes(bytes))
    };
    let table = || {
        let first = usize::try_from(number(32, 8)?).ok()?;
        let size = usize::try_from(number(54, 2)?).ok()?;
        let count = usize::try_from(number(56, 2)?).ok()?;
        let kinds = (0..count).map(|index| number(first.checked_add(index * size)?, 4));
        kinds.collect::<Option<Vec<u64>>>()
    };
    head.starts_with(b"\x7fELF\x02") && table().is_some_and(|kinds| !kinds.contains(&PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_program_is_recognised() {
        let own = fs::read("/proc/self/exe").unwrap();
        assert!(!is_static(&own));
        let mut changed = own.clone();
        let first = usize::from_le_bytes(own[32..40].try_into().unwrap());
        let size = usize::from(u16::from_le_bytes([own[54], own[55]]));
        let count = usize::from(u16::from_le_bytes([own[56], own[57]]));
        for index in 0..count {
            let at = first + index * size;
            if changed[at] == 3 {
                changed[at] = 4;
            }
        }
        assert!(is_static(&changed));
        assert!(!is_static(&changed[..100]));
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(b""));
    }

    #[test]
    fn programs_are_found_as_a_shell_does() {
        assert!(find(OsStr::new("sh")).is_ok());
        assert!(find(OsStr::new("/bin/sh")).is_ok());
        assert!(matches!(
            find(OsStr::new("no-such-program")),
            Err(Problem::Missing(_))
        ));
        assert!(matches!(
            find(OsStr::new("./no/such")),
            Err(Problem::Missing(_))
        ));
    }
}
