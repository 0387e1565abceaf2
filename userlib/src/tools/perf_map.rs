// SPDX-License-Identifier: MIT OR Apache-2.0

//! The file in which `perf` looks up generated code: one line for each function.
//!
//! Locks: one for the file, held while lines are written.

use crate::space::{Listener, NewCode};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The perf map of this process, `/tmp/perf-PID.map`. `perf report` and `perf
/// script` read it if they run on the same machine as the same user or root.
///
/// It knows one name for each address; if code comes and goes, or its
/// instructions are to be seen, use a [`JitDump`](super::JitDump). The file
/// remains when the program ends, as `perf` reads it then. A forked child needs
/// a map of its own.
///
/// `perf` reads it only for memory of no file, so the regions must be made for
/// that ([`RegionOptions::perf_map`](crate::RegionOptions::perf_map)).
///
/// ```
/// use jitfd::RegionOptions;
/// use jitfd::space::SpaceOptions;
/// use jitfd::tools::PerfMap;
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let map = Arc::new(PerfMap::create()?);
/// let region = RegionOptions::new().perf_map(true);
/// let options = SpaceOptions::new().region(region).listener(map.clone());
/// // options.create(), and publish
/// assert_eq!(map.lost(), 0);
/// # std::fs::remove_file(map.path())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PerfMap {
    path: PathBuf,
    file: Mutex<File>,
    lost: AtomicUsize,
}

impl PerfMap {
    /// An empty map where `perf` looks for it. One of an earlier process with the
    /// same number is replaced.
    ///
    /// # Errors
    /// If the file can't be created: also if somebody else owns one of this name.
    pub fn create() -> io::Result<Self> {
        Self::create_in(Path::new("/tmp"))
    }

    /// The same in another folder.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_in(folder: &Path) -> io::Result<Self> {
        let path = folder.join(format!("perf-{}.map", std::process::id()));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Nobody else's file is opened, nor what a link of this name points to.
        let file = File::options().append(true).create_new(true).open(&path)?;
        Ok(Self {
            path,
            file: Mutex::new(file),
            lost: AtomicUsize::new(0),
        })
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds functions. Characters that would end a line are replaced.
    ///
    /// # Errors
    /// If they can't be written.
    pub fn add(&self, codes: &[NewCode<'_>]) -> io::Result<()> {
        let mut lines = String::new();
        for code in codes {
            let name = printable(code.name);
            // Writing to a string can't fail.
            let _ = writeln!(lines, "{:x} {:x} {name}", code.address, code.bytes.len());
        }
        // A panic can't leave half a line: it is one write.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(lines.as_bytes())
    }

    /// How many functions could not be written as a listener.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Listener for PerfMap {
    fn published(&self, codes: &[NewCode<'_>]) {
        if self.add(codes).is_err() {
            self.lost.fetch_add(codes.len(), Ordering::Relaxed);
        }
    }
}

/// The name on one line; a function without a name is called so.
pub(super) fn printable(name: &str) -> String {
    if name.is_empty() {
        return "[jit]".to_owned();
    }
    let plain = |letter: char| if letter.is_control() { '_' } else { letter };
    name.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_function_is_a_line() {
        let folder = std::env::temp_dir().join(format!("jitfd-perf-map-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for _ in 0..2 {
            let map = PerfMap::create_in(&folder).unwrap();
            map.published(&[NewCode::new("a b", 0x1000, &[0; 20])]);
            map.published(&[
                NewCode::new("c\nd", 0x2000, &[0; 1]),
                NewCode::new("", 0x3000, &[0; 1]),
            ]);
            let text = fs::read_to_string(map.path()).unwrap();
            assert_eq!(text, "1000 14 a b\n2000 1 c_d\n3000 1 [jit]\n");
            assert_eq!(map.lost(), 0);
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let map = PerfMap {
            path: "/dev/full".into(),
            file: Mutex::new(File::options().append(true).open("/dev/full").unwrap()),
            lost: AtomicUsize::new(0),
        };
        map.published(&[NewCode::new("f", 0x1000, &[0])]);
        assert_eq!(map.lost(), 1);
    }
}
