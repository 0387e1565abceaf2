// SPDX-License-Identifier: MIT OR Apache-2.0

//! The way out of every exported function: errors become `errno`, a text and perhaps
//! a reason why code was refused, of this thread; and a panic becomes an error.

use rust::{CodeError, Error, Reason};
use std::cell::RefCell;
use std::ffi::{c_char, c_int};
use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

/// Why an exported function fails.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library says why.
    Library(Error),
    /// The C interface refuses something.
    Refused(c_int, &'static str),
    /// A file for tools can't be made; says which.
    NoFile(c_int, &'static str),
    /// A function of the caller has failed, and left everything that tells why.
    Callers(c_int),
}

impl Failure {
    /// A null pointer where there must be an object.
    pub(crate) const NULL: Self = Self::Refused(libc::EINVAL, "a pointer is null");

    fn errno(&self) -> c_int {
        match self {
            // A fault of the chunk as a whole: its length, its data ranges.
            Self::Library(Error::Code(fault))
                if fault.item.is_none()
                    && matches!(
                        fault.reason,
                        Reason::Empty | Reason::TooLong { .. } | Reason::DataRange { .. }
                    ) =>
            {
                libc::EINVAL
            }
            Self::Library(error) => error.errno(),
            Self::Refused(errno, _) | Self::NoFile(errno, _) | Self::Callers(errno) => *errno,
        }
    }

    fn into_code_error(self) -> Option<CodeError> {
        match self {
            Self::Library(Error::Code(error)) => Some(error),
            _ => None,
        }
    }

    fn write(&self, text: &mut Text) -> fmt::Result {
        match self {
            Self::Library(error) => write!(text, "{error}"),
            Self::Refused(_, refusal) => text.write_str(refusal),
            Self::NoFile(errno, what) => {
                let error = std::io::Error::from_raw_os_error(*errno);
                write!(text, "{what} can't be made: {error}")
            }
            Self::Callers(_) => Ok(()),
        }
    }
}

/// A C string, which ends where there is no memory for more: that may be what it
/// tells of.
///
/// # Invariants
/// It is empty, or ends with its only zero byte.
struct Text(Vec<u8>);

impl fmt::Write for Text {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = more.len().saturating_add(1);
        self.0.try_reserve(room).map_err(|_| fmt::Error)?;
        self.0.pop();
        self.0.extend(more.bytes().filter(|&byte| byte != 0));
        self.0.push(0);
        Ok(())
    }
}

impl Text {
    fn as_ptr(&self) -> *const c_char {
        if self.0.is_empty() {
            return c"".as_ptr();
        }
        self.0.as_ptr().cast()
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Library(error.into())
    }
}

const PANIC: Failure = Failure::Refused(
    libc::ENOTRECOVERABLE,
    "the library has met a bug of its own; what it printed to standard error tells more",
);

thread_local! {
    /// What `jitfd_error` returns.
    static TEXT: RefCell<Text> = const { RefCell::new(Text(Vec::new())) };
    /// Why code was refused, if the last failure was that.
    static CODE_ERROR: RefCell<Option<CodeError>> = const { RefCell::new(None) };
}

/// Sets `errno`.
pub(crate) fn set_errno(errno: c_int) {
    // SAFETY: the C library's errno is valid for this thread.
    unsafe { *libc::__errno_location() = errno };
}

/// `errno` of this thread.
pub(crate) fn errno() -> c_int {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() }
}

/// Runs the work of a function that returns `int`.
pub(crate) fn status(work: impl FnOnce() -> Result<(), Failure>) -> c_int {
    run(work).map_or(-1, |()| 0)
}

/// Runs the work of a function that returns an `int` of its own, or -1.
pub(crate) fn number(work: impl FnOnce() -> Result<c_int, Failure>) -> c_int {
    run(work).unwrap_or(-1)
}

/// Runs the work of a function that returns a new object.
pub(crate) fn object<T>(work: impl FnOnce() -> Result<T, Failure>) -> *mut T {
    run(work).map_or(null_mut(), |value| Box::into_raw(Box::new(value)))
}

/// Runs the work of a function that returns an address.
pub(crate) fn address<T>(work: impl FnOnce() -> Result<*mut T, Failure>) -> *mut T {
    run(work).unwrap_or(null_mut())
}

/// Runs the work of a function that gives an object back, and can't fail.
pub(crate) fn quietly(work: impl FnOnce()) {
    let _ = run(|| {
        work();
        Ok(())
    });
}

fn run<T>(work: impl FnOnce() -> Result<T, Failure>) -> Option<T> {
    // What C can still see after a panic are objects whose locks survive it
    // (region.rs of the library), so no broken invariant is seen.
    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(PANIC));
    result.map_err(report).ok()
}

fn report(failure: Failure) {
    if let Failure::Callers(errno) = failure {
        return set_errno(errno);
    }
    let mut text = Text(Vec::new());
    // Without memory it is shorter; errno says that there is none.
    let _ = failure.write(&mut text);
    // A thread that is ending has no text any more; it still has errno.
    let _ = TEXT.try_with(|last| last.replace(text));
    let errno = failure.errno();
    let _ = CODE_ERROR.try_with(|last| last.replace(failure.into_code_error()));
    set_errno(errno);
}

/// Why code was refused, if the last failure of this thread was that.
pub(crate) fn last_code_error<T>(read: impl FnOnce(&CodeError) -> Option<T>) -> Option<T> {
    let last = CODE_ERROR.try_with(|last| last.borrow().as_ref().and_then(read));
    last.ok().flatten()
}

/// What went wrong in the last call of this thread that failed, in words: which
/// call, why, and what to do. Empty if none has failed.
///
/// The text is valid until the next failing call of this thread.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_error() -> *const c_char {
    TEXT.try_with(|last| last.borrow().as_ptr())
        .unwrap_or(c"".as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn last() -> (c_int, String) {
        // SAFETY: errno is valid, and the text is a C string until the next failure.
        unsafe {
            let text = CStr::from_ptr(jitfd_error());
            (*libc::__errno_location(), text.to_str().unwrap().to_owned())
        }
    }

    #[test]
    fn a_panic_is_an_errno() {
        assert_eq!(status(|| panic!("planted")), -1);
        let (errno, text) = last();
        assert_eq!(errno, libc::ENOTRECOVERABLE);
        assert!(text.contains("bug of its own"), "{text}");
    }

    #[test]
    fn the_text_is_that_of_the_thread() {
        assert!(object::<u8>(|| Err(Failure::NULL)).is_null());
        assert_eq!(last(), (libc::EINVAL, "a pointer is null".to_owned()));
        std::thread::spawn(|| assert_eq!(last().1, ""))
            .join()
            .unwrap();
        let stale = Error::Stale { expected: 4096 };
        assert_eq!(status(|| Err(stale.clone().into())), -1);
        assert_eq!(last(), (libc::ESTALE, stale.to_string()));
    }

    #[test]
    fn success_is_no_error() {
        assert_eq!(status(|| Ok(())), 0);
        assert_eq!(number(|| Ok(7)), 7);
    }
}
