// SPDX-License-Identifier: MIT OR Apache-2.0

//! The dump of generated code that `perf inject --jit` reads.
//!
//! The format is that of the kernel's
//! `tools/perf/Documentation/jitdump-specification.txt`, version 1: a header,
//! then records, all in the machine's byte order.
//!
//! Locks: those of `own_file.rs`; one for each file and the number of the next
//! record.

use super::own_file::{self, OwnFile, OwnFiles};
use crate::num::to_u64;
use crate::os::fork::PerProcess;
use crate::os::sys::{self, Mapped};
use crate::space::{Listener, Symbol};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `JiTD`.
const MAGIC: u32 = 0x4a69_5444;
const VERSION: u32 = 1;
const HEADER: u32 = 40;
/// `EM_X86_64`.
const MACHINE: u32 = 62;

const CODE_LOAD: u32 = 0;
const CODE_CLOSE: u32 = 3;
/// The length of what begins each record.
const PREFIX: usize = 16;
/// The fields of a load before its name.
const LOAD: usize = 40;

/// A dump of code for `perf`, in a file `jit-PID.dump`.
///
/// ```text
/// perf record -k mono ./program
/// perf inject --jit --input perf.data --output perf.jit.data
/// perf report --input perf.jit.data          # or annotate, script
/// ```
///
/// `perf` finds the file because the dump maps a page of it, executable, which
/// is recorded like the mapping of any library. So create the dump after `perf
/// record` has started, on a file system that is not mounted `noexec`. The file
/// remains when the program ends; until then that page and a descriptor stay, also
/// when all dumps are dropped.
///
/// In a forked child it is the child's own dump: a file with the child's number,
/// made when the child first adds to it.
///
/// ```
/// use jitfd::space::SpaceOptions;
/// use jitfd::tools::JitDump;
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir();
/// let dump = Arc::new(JitDump::create_in(&folder)?);
/// let options = SpaceOptions {
///     listeners: vec![dump.clone()],
///     ..Default::default()
/// };
/// // jit.space(options), and publish
/// assert_eq!(dump.lost(), 0);
/// # std::fs::remove_file(dump.path())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct JitDump {
    folder: PathBuf,
    /// In the process that made it.
    path: PathBuf,
    user: PerProcess<User>,
    lost: AtomicUsize,
}

/// What this process has made: the dumps of several code spaces are one file.
static FILES: OwnFiles<Out> = OwnFiles::new();

#[derive(Debug)]
struct Out {
    file: File,
    /// The length of the file: whole records.
    len: u64,
    /// Each piece of code has a number of its own.
    next: u64,
    users: usize,
    /// By this mapping `perf` finds the file. It is made once, or `perf` would
    /// read the file twice.
    _marker: Mapped,
}

impl Out {
    fn new(mut file: File) -> io::Result<Self> {
        own_file::append(&mut file, 0, &header(std::process::id(), now()))?;
        let marker = sys::map_code(file.as_fd(), None, crate::abi::PAGE_SIZE)?;
        Ok(Self {
            file,
            len: HEADER.into(),
            next: 0,
            users: 0,
            _marker: marker,
        })
    }

    /// Adds whole records, or nothing.
    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        own_file::append(&mut self.file, self.len, records)?;
        self.len += to_u64(records.len());
        Ok(())
    }

    /// Behind the last record, as long as nobody uses the file. It is not counted
    /// in the length, so it is cut off when somebody does.
    fn close(&mut self) {
        let mut record = Vec::new();
        prefix(&mut record, CODE_CLOSE, PREFIX, now());
        // A dump without it is read as well.
        let _ = own_file::append(&mut self.file, self.len, &record);
    }
}

/// A user of a file. When there is none, no more code comes.
#[derive(Debug)]
struct User(Arc<OwnFile<Out>>);

impl User {
    fn new(path: &Path) -> io::Result<Self> {
        let file = FILES.open(path, Out::new)?;
        let mut out = file.lock();
        if out.users == 0 {
            out.file.set_len(out.len)?;
        }
        out.users += 1;
        drop(out);
        Ok(Self(file))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut out = self.0.lock();
        out.users -= 1;
        if out.users == 0 {
            out.close();
        }
    }
}

impl JitDump {
    /// The dump in `folder`. If this process has made it already, records are added
    /// to it; one of an earlier process with the same number is replaced.
    ///
    /// # Errors
    /// If the file can't be created, written or mapped executable.
    pub fn create_in(folder: &Path) -> io::Result<Self> {
        let mut dump = Self {
            folder: folder.to_owned(),
            path: PathBuf::new(),
            user: PerProcess::new(),
            lost: AtomicUsize::new(0),
        };
        dump.path = dump.file()?.path().to_owned();
        Ok(dump)
    }

    fn file(&self) -> io::Result<&OwnFile<Out>> {
        let name = || format!("jit-{}.dump", std::process::id());
        let open = || User::new(&self.folder.join(name()));
        Ok(&self.user.get_or_make(open)?.0)
    }

    /// Where the file is. In a forked child that has added nothing yet: where its
    /// parent's is.
    ///
    /// See the example of [`add`](Self::add).
    #[must_use]
    pub fn path(&self) -> &Path {
        self.user.get().map_or(&self.path, |user| user.0.path())
    }

    /// Adds functions. What is in a name after a zero byte is lost.
    ///
    /// # Errors
    /// If they can't be written; the dump is as it was then: also if it would become
    /// longer than the process may have files (`RLIMIT_FSIZE`). Or if a forked child
    /// can't create its file.
    ///
    /// # Example
    /// ```
    /// use jitfd::space::Symbol;
    /// use jitfd::tools::JitDump;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let dump = JitDump::create_in(&std::env::temp_dir())?;
    /// // Code that no code space has published, as by `jit_create_code`.
    /// dump.add(&[Symbol { name: "trampoline", address: 0x7f00_0000_1000, bytes: &[0x90, 0xc3] }])?;
    /// println!("perf inject --jit will read {}", dump.path().display());
    /// # std::fs::remove_file(dump.path())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn add(&self, codes: &[Symbol<'_>]) -> io::Result<()> {
        // A panic can't leave half a record: the batch is one write.
        let mut out = self.file()?.lock();
        let (time, thread) = (now(), sys::thread_id());
        let mut records = Vec::new();
        for (code, number) in codes.iter().zip(out.next..) {
            load(&mut records, code, number, time, thread);
        }
        out.next += to_u64(codes.len());
        out.write(&records)
    }

    /// How many functions could not be written as a listener.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Listener for JitDump {
    fn published(&self, codes: &[Symbol<'_>]) {
        if self.add(codes).is_err() {
            self.lost.fetch_add(codes.len(), Ordering::Relaxed);
        }
    }
}

/// The time by the clock that `perf record -k mono` uses, in nanoseconds.
fn now() -> u64 {
    sys::monotonic_nanoseconds()
}

fn header(process: u32, time: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [MAGIC, VERSION, HEADER, MACHINE, 0, process] {
        bytes.extend(word.to_ne_bytes());
    }
    let flags = 0_u64;
    bytes.extend(time.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes
}

fn prefix(bytes: &mut Vec<u8>, id: u32, len: usize, time: u64) {
    bytes.extend(id.to_ne_bytes());
    bytes.extend(u32::try_from(len).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(time.to_ne_bytes());
}

/// Adds a `JIT_CODE_LOAD`.
fn load(bytes: &mut Vec<u8>, code: &Symbol<'_>, number: u64, time: u64, thread: u32) {
    let name = code.name.split('\0').next().unwrap_or_default();
    let len = PREFIX + LOAD + name.len() + 1 + code.bytes.len();
    prefix(bytes, CODE_LOAD, len, time);
    bytes.extend(std::process::id().to_ne_bytes());
    bytes.extend(thread.to_ne_bytes());
    let address = to_u64(code.address);
    for word in [address, address, to_u64(code.bytes.len()), number] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(name.as_bytes());
    bytes.push(0);
    bytes.extend(code.bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::fork::tests::{in_child, limit_files};
    use std::fs;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn long(bytes: &[u8], at: usize) -> u64 {
        u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn the_file_is_as_the_specification_says() {
        let folder = std::env::temp_dir().join(format!("jitfd-dump-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let dump = JitDump::create_in(&folder).unwrap();
        let path = dump.path().to_owned();
        dump.published(&[Symbol {
            name: "one",
            address: 0x1000,
            bytes: &[1, 2, 3],
        }]);
        dump.published(&[Symbol {
            name: "two\0x",
            address: 0x2000,
            bytes: &[4],
        }]);
        drop(dump);
        let bytes = fs::read(path).unwrap();
        fs::remove_dir_all(folder).unwrap();
        let pid = std::process::id();
        assert_eq!(
            [0, 4, 8, 12, 20].map(|at| word(&bytes, at)),
            [MAGIC, 1, 40, 62, pid]
        );
        let one = &bytes[40..];
        assert_eq!(
            [0, 4, 16].map(|at| word(one, at)),
            [CODE_LOAD, 16 + 40 + 4 + 3, pid]
        );
        assert_eq!(
            [24, 32, 40, 48].map(|at| long(one, at)),
            [0x1000, 0x1000, 3, 0]
        );
        assert_eq!(one[56..63], *b"one\0\x01\x02\x03");
        let two = &one[63..];
        assert_eq!((word(two, 4), long(two, 48)), (16 + 40 + 4 + 1, 1));
        let close = &two[61..];
        assert_eq!(
            (word(close, 0), word(close, 4), close.len()),
            (CODE_CLOSE, 16, 16)
        );
        assert!(long(close, 8) >= long(one, 8) && long(one, 8) >= long(&bytes, 24));
    }

    /// The kind of each record of a file, and of a load its name's first letter and
    /// its number.
    fn records(path: &Path) -> Vec<(u32, Option<(char, u64)>)> {
        let bytes = fs::read(path).unwrap();
        let mut rest = &bytes[40..];
        let mut records = Vec::new();
        while !rest.is_empty() {
            let (id, len) = (word(rest, 0), word(rest, 4) as usize);
            let load = (id == CODE_LOAD).then(|| (char::from(rest[56]), long(rest, 48)));
            records.push((id, load));
            rest = &rest[len..];
        }
        records
    }

    fn loads(codes: &[(char, u64)]) -> Vec<(u32, Option<(char, u64)>)> {
        codes.iter().map(|&code| (CODE_LOAD, Some(code))).collect()
    }

    #[test]
    fn a_limit_on_files_ends_no_program() {
        let folder = std::env::temp_dir().join(format!("jitfd-dump-limit-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let status = in_child(|| {
            limit_files(39);
            let refused = JitDump::create_in(&folder).is_err();
            // A header and two records of 60 bytes, and not their end.
            limit_files(170);
            let dump = JitDump::create_in(&folder).unwrap();
            for name in ["a", "b", "c", "d"] {
                dump.published(&[Symbol {
                    name,
                    address: 0x1000,
                    bytes: &[0, 1],
                }]);
            }
            let (lost, path) = (dump.lost(), dump.path().to_owned());
            drop(dump);
            let whole = records(&path) == loads(&[('a', 0), ('b', 1)]);
            u8::from(refused && whole && lost == 2)
        });
        fs::remove_dir_all(folder).unwrap();
        assert_eq!(status, 1);
    }

    #[test]
    fn dumps_of_one_process_are_one_file() {
        let folder = std::env::temp_dir().join(format!("jitfd-dumps-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let first = JitDump::create_in(&folder).unwrap();
        let path = first.path().to_owned();
        first.published(&[Symbol {
            name: "a",
            address: 0x1000,
            bytes: &[0],
        }]);
        let second = JitDump::create_in(&folder).unwrap();
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
        drop(first);
        let mut all = loads(&[('a', 0), ('b', 1), ('c', 2)]);
        assert_eq!(records(&path), all);
        drop(second);
        assert_eq!(records(&path)[3..], [(CODE_CLOSE, None)]);
        let third = JitDump::create_in(&folder).unwrap();
        assert_eq!(records(&path), all);
        third.published(&[Symbol {
            name: "d",
            address: 0x4000,
            bytes: &[0],
        }]);
        all.push((CODE_LOAD, Some(('d', 3))));
        assert_eq!(records(&path), all);
        drop(third);
        all.push((CODE_CLOSE, None));
        assert_eq!(records(&path), all);
        // One that was removed is not gone on with.
        fs::remove_file(&path).unwrap();
        let fourth = JitDump::create_in(&folder).unwrap();
        assert_eq!(records(fourth.path()), []);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_forked_child_has_a_dump_of_its_own() {
        let folder = std::env::temp_dir().join(format!("jitfd-dump-fork-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let dump = JitDump::create_in(&folder).unwrap();
        let path = dump.path().to_owned();
        dump.published(&[Symbol {
            name: "a",
            address: 0x1000,
            bytes: &[0],
        }]);
        let mut held = Some(dump);
        assert_eq!(in_child(|| u8::from(held.take().is_some())), 1);
        let dump = held.unwrap();
        // Another thread may be writing at the fork.
        let writing = dump.file().unwrap().lock();
        let status = in_child(|| {
            dump.published(&[Symbol {
                name: "b",
                address: 0x2000,
                bytes: &[0],
            }]);
            let name = format!("jit-{}.dump", std::process::id());
            let own = dump.path() == folder.join(name);
            u8::from(own && records(dump.path()) == loads(&[('b', 0)]))
        });
        drop(writing);
        assert_eq!(status, 1);
        dump.published(&[Symbol {
            name: "c",
            address: 0x3000,
            bytes: &[0],
        }]);
        assert_eq!(records(&path), loads(&[('a', 0), ('c', 1)]));
        fs::remove_dir_all(folder).unwrap();
    }
}
