// SPDX-License-Identifier: MIT OR Apache-2.0

//! The file in which `perf` looks up generated code: one line for each function.
//!
//! Locks: those of `own_file.rs`.

use super::own_file::{self, OwnFile, OwnFiles};
use crate::os::fork::PerProcess;
use crate::space::{Listener, Symbol};
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The perf map of this process, `/tmp/perf-PID.map`. `perf report` and `perf
/// script` read it if they run on the same machine as the same user or root.
///
/// It knows one name for each address; if code comes and goes, or its
/// instructions are to be seen, use a [`JitDump`](super::JitDump). The file
/// remains when the program ends, as `perf` reads it then; until then one
/// descriptor stays open for it, also when all maps are dropped.
///
/// In a forked child it is the child's own map: a file with the child's number,
/// made when the child first adds to it.
///
/// `perf` reads it only for anonymous memory, so the regions must be made for
/// that ([`RegionOptions::perf_map`](crate::RegionOptions::perf_map)).
///
/// ```
/// use jitfd::RegionOptions;
/// use jitfd::space::SpaceOptions;
/// use jitfd::tools::PerfMap;
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let map = Arc::new(PerfMap::create_in("/tmp".as_ref())?);
/// let options = SpaceOptions {
///     region: RegionOptions { perf_map: true, ..Default::default() },
///     listeners: vec![map.clone()],
///     ..Default::default()
/// };
/// // jit.space(options), and publish
/// assert_eq!(map.lost(), 0);
/// # std::fs::remove_file(map.path())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PerfMap {
    folder: PathBuf,
    /// In the process that made it.
    path: PathBuf,
    file: PerProcess<Arc<OwnFile<File>>>,
    lost: AtomicUsize,
}

/// What this process has made: the maps of several code spaces are one file.
static FILES: OwnFiles<File> = OwnFiles::new();

impl PerfMap {
    /// The map in `folder`: `perf` looks for it in `/tmp`. If this process has made it
    /// already, the lines are added to it; one of an earlier process with the same number
    /// is replaced.
    ///
    /// # Errors
    /// If the file can't be created: also if somebody else owns one of this name.
    ///
    /// # Example
    /// ```
    /// use jitfd::space::Symbol;
    /// use jitfd::tools::PerfMap;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // For a tool that looks elsewhere, in a container for example.
    /// let map = PerfMap::create_in(&std::env::temp_dir())?;
    /// map.add(&[Symbol { name: "trampoline", address: 0x7f00_0000_1000, bytes: &[0x90, 0xc3] }])?;
    /// let text = std::fs::read_to_string(map.path())?;
    /// assert!(text.ends_with("7f0000001000 2 trampoline\n"));
    /// # std::fs::remove_file(map.path())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn create_in(folder: &Path) -> io::Result<Self> {
        let mut map = Self {
            folder: folder.to_owned(),
            path: PathBuf::new(),
            file: PerProcess::new(),
            lost: AtomicUsize::new(0),
        };
        map.path = map.file()?.path().to_owned();
        Ok(map)
    }

    fn file(&self) -> io::Result<&OwnFile<File>> {
        let name = || format!("perf-{}.map", std::process::id());
        let open = || FILES.open(&self.folder.join(name()), Ok);
        Ok(self.file.get_or_make(open)?)
    }

    /// Where the file is. In a forked child that has added nothing yet: where its
    /// parent's is.
    ///
    /// See the example of [`create_in`](Self::create_in).
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.get().map_or(&self.path, |file| file.path())
    }

    /// Adds functions. Characters that would end a line are replaced.
    ///
    /// See the example of [`create_in`](Self::create_in).
    ///
    /// # Errors
    /// If they can't be written; the file is as it was then: also if it would become
    /// longer than the process may have files (`RLIMIT_FSIZE`). Or if a forked child
    /// can't create its file.
    pub fn add(&self, codes: &[Symbol<'_>]) -> io::Result<()> {
        let mut lines = String::new();
        for code in codes {
            let name = printable(code.name);
            // Writing to a string can't fail.
            let _ = writeln!(lines, "{:x} {:x} {name}", code.address, code.bytes.len());
        }
        // A panic can't leave half a line: it is one write.
        let mut file = self.file()?.lock();
        let len = file.metadata()?.len();
        own_file::append(&mut file, len, lines.as_bytes())
    }

    /// How many functions could not be written as a listener.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Listener for PerfMap {
    fn published(&self, codes: &[Symbol<'_>]) {
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
    use crate::os::fork::tests::{in_child, limit_files};
    use crate::space::SpaceOptions;
    use crate::{Backend, Fallback, Jit, Rules, validate};
    use std::fs;

    #[test]
    fn each_function_is_a_line() {
        let folder = std::env::temp_dir().join(format!("jitfd-perf-map-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("perf-{}.map", std::process::id()));
        for _ in 0..2 {
            fs::write(&path, "of an earlier process").unwrap();
            let map = PerfMap::create_in(&folder).unwrap();
            map.published(&[Symbol {
                name: "a b",
                address: 0x1000,
                bytes: &[0; 20],
            }]);
            map.published(&[
                Symbol {
                    name: "c\nd",
                    address: 0x2000,
                    bytes: &[0; 1],
                },
                Symbol {
                    name: "",
                    address: 0x3000,
                    bytes: &[0; 1],
                },
            ]);
            let text = fs::read_to_string(map.path()).unwrap();
            assert_eq!(text, "1000 14 a b\n2000 1 c_d\n3000 1 [jit]\n");
            assert_eq!(map.lost(), 0);
            fs::remove_file(&path).unwrap();
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn maps_of_one_process_are_one_file() {
        let folder = std::env::temp_dir().join(format!("jitfd-perf-maps-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let first = PerfMap::create_in(&folder).unwrap();
        first.published(&[Symbol {
            name: "a",
            address: 0x1000,
            bytes: &[0],
        }]);
        let second = PerfMap::create_in(&folder).unwrap();
        second.published(&[Symbol {
            name: "b",
            address: 0x2000,
            bytes: &[0],
        }]);
        first.published(&[Symbol {
            name: "c",
            address: 0x3000,
            bytes: &[0],
        }]);
        drop((first, second));
        let third = PerfMap::create_in(&folder).unwrap();
        let text = fs::read_to_string(third.path()).unwrap();
        assert_eq!(text, "1000 1 a\n2000 1 b\n3000 1 c\n");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_forked_child_has_a_map_of_its_own() {
        let folder = std::env::temp_dir().join(format!("jitfd-perf-fork-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let map = PerfMap::create_in(&folder).unwrap();
        map.published(&[Symbol {
            name: "a",
            address: 0x1000,
            bytes: &[0],
        }]);
        let path = map.path().to_owned();
        // Another thread may be writing at the fork.
        let writing = map.file().unwrap().lock();
        let status = in_child(|| {
            let before = map.path() == path;
            map.published(&[Symbol {
                name: "b",
                address: 0x2000,
                bytes: &[0],
            }]);
            let name = format!("perf-{}.map", std::process::id());
            let own = map.path() == folder.join(name);
            let text = fs::read_to_string(map.path());
            u8::from(before && own && text.is_ok_and(|text| text == "2000 1 b\n"))
        });
        drop(writing);
        assert_eq!(status, 1);
        map.published(&[Symbol {
            name: "c",
            address: 0x3000,
            bytes: &[0],
        }]);
        let text = fs::read_to_string(map.path()).unwrap();
        assert_eq!((text.as_str(), map.lost()), ("1000 1 a\n3000 1 c\n", 0));
        fs::remove_dir_all(folder).unwrap();
    }

    /// The program goes on, its code is published, and there is no half a line.
    #[test]
    fn a_limit_on_files_ends_no_program() {
        let folder = std::env::temp_dir().join(format!("jitfd-perf-limit-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let status = in_child(|| {
            limit_files(40);
            let map = Arc::new(PerfMap::create_in(&folder).unwrap());
            let jit = Jit::open(Fallback::Only(Backend::ProtectFlips)).unwrap();
            let options = SpaceOptions {
                listeners: vec![map.clone()],
                ..Default::default()
            };
            let space = jit.space(options).unwrap();
            let chunk = validate(&[0xc3], &Rules::new()).unwrap();
            let published = (0..5).filter(|_| space.publish("function", &chunk).is_ok());
            let published = published.count();
            let text = fs::read_to_string(map.path()).unwrap();
            let lines = text.lines().filter(|line| line.ends_with(" 1 function"));
            let right = published == 5 && text.ends_with('\n') && text.len() <= 40;
            u8::from(right && lines.count() == 5 - map.lost() && map.lost() > 0)
        });
        fs::remove_dir_all(folder).unwrap();
        assert_eq!(status, 1);
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let folder = std::env::temp_dir().join(format!("jitfd-perf-full-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let map = PerfMap::create_in(&folder).unwrap();
        let full = File::options().append(true).open("/dev/full").unwrap();
        let file = std::mem::replace(&mut *map.file().unwrap().lock(), full);
        // Its inode must not become another test's file, which would be taken for it.
        std::mem::forget(file);
        map.published(&[Symbol {
            name: "f",
            address: 0x1000,
            bytes: &[0],
        }]);
        assert_eq!(map.lost(), 1);
        fs::remove_dir_all(folder).unwrap();
    }
}
