// SPDX-License-Identifier: GPL-2.0
//! What keeps the runner from running anything: always one line for a person.

use std::fmt;
use std::io;
use std::path::Path;

/// One line that says what is wrong.
#[derive(Debug)]
pub struct Error(pub String);

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Error {
    /// An I/O error with the path that it is about.
    pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |error| Error(format!("{}: {error}", path.display()))
    }

    /// An I/O error with what was being done.
    pub fn doing(what: &str) -> impl FnOnce(io::Error) -> Error {
        move |error| Error(format!("{what}: {error}"))
    }
}
