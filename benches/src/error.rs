// SPDX-License-Identifier: GPL-2.0

//! Why a run ends early: one line.

use std::fmt::{self, Display};

/// What went wrong, in words.
#[derive(Debug)]
pub struct Error(pub String);

/// A result with it.
pub type Result<T> = std::result::Result<T, Error>;

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<jitfd::Error> for Error {
    fn from(error: jitfd::Error) -> Self {
        Error(error.to_string())
    }
}

/// The last failed system call, which was `what`.
pub fn last(what: &str) -> Error {
    Error(format!("{what}: {}", std::io::Error::last_os_error()))
}

/// An error of the standard library, with what was done.
pub fn doing<E: Display>(what: &str) -> impl Fn(E) -> Error + '_ {
    move |error| Error(format!("{what}: {error}"))
}
