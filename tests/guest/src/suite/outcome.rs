// SPDX-License-Identifier: GPL-2.0
//! What a test ends with, and the checks that end it.

use std::fmt::Debug;
use std::io;

/// Why a test did not pass.
#[derive(Debug)]
pub enum Stop {
    /// The claim does not hold.
    Failed(String),
    /// The claim can't be tested on this kernel. Debian's kernel has all that
    /// the tests need, so there this is a failure.
    Skipped(String),
    /// The claim can't be tested on this machine: it lacks a CPU, or a CPU
    /// feature.
    Inapplicable(String),
}

/// The result of a step of a test.
pub type Checked<T> = Result<T, Stop>;

/// The result of a test.
pub type Outcome = Checked<()>;

/// A failure.
pub fn failed<T>(why: impl Into<String>) -> Checked<T> {
    Err(Stop::Failed(why.into()))
}

/// A test for which this kernel lacks something.
pub fn skipped<T>(reason: impl Into<String>) -> Checked<T> {
    Err(Stop::Skipped(reason.into()))
}

/// A test for which this machine lacks something.
pub fn inapplicable<T>(reason: impl Into<String>) -> Checked<T> {
    Err(Stop::Inapplicable(reason.into()))
}

/// Fails unless `claim` is true.
pub fn holds(claim: bool, what: impl Into<String>) -> Outcome {
    if claim { Ok(()) } else { failed(what) }
}

/// Fails unless all claims are true, and then tells each that is not.
pub fn all_hold<const N: usize>(claims: [(bool, String); N]) -> Outcome {
    let broken = claims.into_iter().filter(|(holds, _)| !holds);
    let broken: Vec<String> = broken.map(|(_, what)| what).collect();
    holds(broken.is_empty(), broken.join("; "))
}

/// Fails unless both are the same.
pub fn equal<T: PartialEq + Debug>(what: &str, got: T, wanted: T) -> Outcome {
    if got == wanted {
        return Ok(());
    }
    failed(format!("{what}: got {got:x?}, wanted {wanted:x?}"))
}

/// Fails unless the call failed with `errno`.
pub fn refused<T: Debug>(what: &str, result: io::Result<T>, errno: i32) -> Outcome {
    match result {
        Ok(value) => failed(format!("{what}: succeeded with {value:x?}")),
        Err(error) if error.raw_os_error() == Some(errno) => Ok(()),
        Err(error) => failed(format!(
            "{what}: {error}, wanted {}",
            io::Error::from_raw_os_error(errno)
        )),
    }
}

/// Names the step that failed.
pub trait OrFail<T> {
    /// Turns an error into a failure of the step `what`.
    fn or_fail(self, what: &str) -> Checked<T>;
}

impl<T> OrFail<T> for io::Result<T> {
    fn or_fail(self, what: &str) -> Checked<T> {
        self.or_else(|error| failed(format!("{what}: {error}")))
    }
}

impl<T> OrFail<T> for Option<T> {
    fn or_fail(self, what: &str) -> Checked<T> {
        self.map_or_else(|| failed(what), Ok)
    }
}
