// SPDX-License-Identifier: MIT OR Apache-2.0

//! The dump of generated code that `perf inject --jit` reads.
//!
//! The format is that of the kernel's
//! `tools/perf/Documentation/jitdump-specification.txt`, version 1: a header,
//! then records, all in the machine's byte order.
//!
//! Locks: one for the file and the number of the next record, held while records
//! are written.

use crate::cast::to_u64;
use crate::space::{Listener, NewCode};
use crate::sys::{self, Mapped};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

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
/// remains when the program ends. A forked child needs a dump of its own.
///
/// ```
/// use jitfd::space::SpaceOptions;
/// use jitfd::tools::JitDump;
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir();
/// let dump = Arc::new(JitDump::create_in(&folder)?);
/// let options = SpaceOptions::new().listener(dump.clone());
/// // options.create(), and publish
/// assert_eq!(dump.lost(), 0);
/// # std::fs::remove_file(dump.path())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct JitDump {
    path: PathBuf,
    out: Mutex<Out>,
    lost: AtomicUsize,
    /// By this mapping `perf` finds the file.
    _marker: Mapped,
}

#[derive(Debug)]
struct Out {
    file: File,
    /// The length of the file: whole records.
    len: u64,
    /// Each piece of code has a number of its own.
    next: u64,
}

impl Out {
    /// Adds whole records, or nothing.
    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(records) {
            self.file.set_len(self.len)?;
            return Err(error);
        }
        self.len += to_u64(records.len());
        Ok(())
    }
}

impl JitDump {
    /// An empty dump in `folder`. One of an earlier process with the same number
    /// is replaced.
    ///
    /// # Errors
    /// If the file can't be created, written or mapped executable.
    pub fn create_in(folder: &Path) -> io::Result<Self> {
        let path = folder.join(format!("jit-{}.dump", std::process::id()));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = File::options();
        let mut file = options
            .read(true)
            .append(true)
            .create_new(true)
            .open(&path)?;
        file.write_all(&header(std::process::id(), now()))?;
        let marker = sys::map_code(file.as_fd(), None, crate::abi::PAGE_SIZE)?;
        Ok(Self {
            path,
            out: Mutex::new(Out {
                file,
                len: HEADER.into(),
                next: 0,
            }),
            lost: AtomicUsize::new(0),
            _marker: marker,
        })
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds functions. What is in a name after a zero byte is lost.
    ///
    /// # Errors
    /// If they can't be written; the dump is as it was then.
    pub fn add(&self, codes: &[NewCode<'_>]) -> io::Result<()> {
        // A panic can't leave half a record: the batch is one write.
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn published(&self, codes: &[NewCode<'_>]) {
        if self.add(codes).is_err() {
            self.lost.fetch_add(codes.len(), Ordering::Relaxed);
        }
    }
}

/// No more code comes.
impl Drop for JitDump {
    fn drop(&mut self) {
        let out = self.out.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut record = Vec::new();
        prefix(&mut record, CODE_CLOSE, PREFIX, now());
        // A dump without it is read as well.
        let _ = out.write(&record);
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
fn load(bytes: &mut Vec<u8>, code: &NewCode<'_>, number: u64, time: u64, thread: u32) {
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
        dump.published(&[NewCode::new("one", 0x1000, &[1, 2, 3])]);
        dump.published(&[NewCode::new("two\0x", 0x2000, &[4])]);
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
}
