// SPDX-License-Identifier: MIT OR Apache-2.0

//! The system's files below a root: tests have a folder in its place.

use std::path::PathBuf;
use std::{fs, io};

/// Where the files are.
pub(super) struct Files {
    pub(super) root: PathBuf,
}

impl Files {
    /// A file as text, without the last line's end.
    pub(super) fn text(&self, path: &str) -> io::Result<String> {
        let text = fs::read_to_string(self.path(path))?;
        Ok(text.trim_end().to_owned())
    }

    /// The same for a file that may be absent.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        self.text(path).ok()
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Whether a seccomp filter watches this process, or may.
    pub(super) fn is_filtered(&self) -> bool {
        let status = self.text("/proc/self/status");
        status.map_or(true, |status| {
            !matches!(field(&status, "Seccomp"), None | Some("0"))
        })
    }
}

/// The value of a line "name:\tvalue".
pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key == name).then(|| value.trim())
    })
}
