// SPDX-License-Identifier: MIT OR Apache-2.0

//! Files that this process has made and whose names have its number: all users of
//! such a file share what is known about it.
//!
//! Locks: one for each kind of files, while a file is made; one for each file,
//! while it is written; the latter is never held when the former is taken. A
//! forked child takes neither of its parent's.

use crate::num::to_usize;
use crate::os::fork::PerProcess;
use crate::os::sys;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All files of one kind. They stay open until the process ends, or until others
/// of their names are made: no other file can get the number of one.
pub(super) struct OwnFiles<S>(PerProcess<Mutex<Vec<Arc<OwnFile<S>>>>>);

/// One file. The state has the descriptor.
#[derive(Debug)]
pub(super) struct OwnFile<S> {
    path: PathBuf,
    identity: (u64, u64),
    state: Mutex<S>,
}

impl<S> OwnFiles<S> {
    pub(super) const fn new() -> Self {
        Self(PerProcess::new())
    }

    /// The file at `path` if this process has made it, or else a new one in the
    /// place of what is there, with the state that `make` makes.
    pub(super) fn open(
        &self,
        path: &Path,
        make: impl FnOnce(File) -> io::Result<S>,
    ) -> io::Result<Arc<OwnFile<S>>> {
        let files = self.0.get_or_make(|| Ok(Mutex::default()))?;
        // A panic can't leave anything half done: a file is added last.
        let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
        let here = fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()));
        let own = here
            .ok()
            .and_then(|here| files.iter().find(|own| own.identity == here));
        if let Some(own) = own {
            return Ok(own.clone());
        }
        // Users of a file that was removed go on with it.
        files.retain(|own| own.path != path);
        let own = Arc::new(OwnFile::create(path, make)?);
        files.push(own.clone());
        Ok(own)
    }
}

/// Adds all of `record` to a file of `len` bytes that is written to at its end, or
/// nothing. A limit on its length is an error: the kernel would end the process.
pub(super) fn append(file: &mut File, len: u64, record: &[u8]) -> io::Result<()> {
    sys::may_become(to_usize(len).saturating_add(record.len()))?;
    let written = file.write_all(record);
    if written.is_err() {
        file.set_len(len)?;
    }
    written
}

impl<S> OwnFile<S> {
    fn create(path: &Path, make: impl FnOnce(File) -> io::Result<S>) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Nobody else's file is opened, nor what a link of this name points to.
        let mut options = File::options();
        let options = options.read(true).append(true).create_new(true);
        let file = options.open(path)?;
        let made = file.metadata()?;
        let state = make(file).inspect_err(|_| {
            let _ = fs::remove_file(path);
        })?;
        Ok(Self {
            path: path.to_owned(),
            identity: (made.dev(), made.ino()),
            state: Mutex::new(state),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The callers leave nothing half done if they panic.
    pub(super) fn lock(&self) -> MutexGuard<'_, S> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::fork::tests::in_child;
    use std::os::fd::{AsRawFd, RawFd};

    #[test]
    fn files_that_were_removed_are_closed() {
        static FILES: OwnFiles<File> = OwnFiles::new();
        let path = std::env::temp_dir().join(format!("jitfd-own-file-{}", std::process::id()));
        let open = || FILES.open(&path, Ok).unwrap();
        let number = |file: &OwnFile<File>| -> RawFd { file.lock().as_raw_fd() };
        let kept = open();
        assert_eq!(number(&open()), number(&kept));
        let target = || fs::read_link(format!("/proc/self/fd/{}", number(&kept))).unwrap();
        assert_eq!(target(), path);
        let mut all = Vec::new();
        for _ in 0..3 {
            fs::remove_file(&path).unwrap();
            all.push(Arc::downgrade(&open()));
        }
        // The last one is there for whoever comes next.
        let open_still: Vec<_> = all.iter().map(|file| file.strong_count()).collect();
        assert_eq!(open_still, [0, 0, 1]);
        assert!(number(&kept) >= 0);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_child_waits_for_no_thread_of_its_parent() {
        static FILES: OwnFiles<File> = OwnFiles::new();
        let path = std::env::temp_dir().join(format!("jitfd-own-lock-{}", std::process::id()));
        let make = |file| {
            // Both locks are held by others at the fork.
            let status = in_child(|| {
                let name = format!("{}-{}", path.display(), std::process::id());
                let opened = FILES.open(Path::new(&name), Ok);
                let removed = fs::remove_file(name).is_ok();
                u8::from(opened.is_ok() && removed)
            });
            assert_eq!(status, 1);
            Ok(file)
        };
        FILES.open(&path, make).unwrap();
        fs::remove_file(&path).unwrap();
    }
}
