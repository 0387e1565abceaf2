// SPDX-License-Identifier: MIT OR Apache-2.0

//! Unwind tables that the program's own unwinder knows.

use super::eh_frame::EhFrame;
use super::eh_section;
use super::unwind_sys::Registered;
use crate::error::Error;

/// Unwind tables by which panics, C++ exceptions and backtraces find their way
/// through generated code. Dropping it takes them back.
///
/// See the example of [`UnwindTable::from_bytes`]; a compiler without tables of its
/// own uses [`EhFrame::register`].
///
/// # One table for many functions
/// Register one table for all functions of a publication, not one for each
/// function. What the program's unwinder costs depends on the number of tables
/// (measured for 40,000 functions by `benches/src/bin/unwind_cost.rs`; see
/// Documentation/library.rst):
///
/// * libgcc up to version 12 keeps a list of tables. The first unwinding after
///   registering sorts all new tables into it, which takes time in proportion to
///   the square of their number, and each further one walks the list, under a
///   lock of the whole process.
/// * libgcc from version 13 on keeps a tree of tables that is read without a
///   lock.
/// * LLVM's libunwind keeps a list of functions, whichever way they come.
///
/// # Forks
/// A forked child has its parent's tables. If another thread of the parent was
/// registering one, or taking one back, at the `fork()`, the unwinder's own lock may be
/// held for ever in the child: what the child registers then is not known to the
/// unwinder, for which unwinding ends there.
#[derive(Debug)]
pub struct UnwindTable {
    _registered: Registered,
}

impl UnwindTable {
    /// Registers the content of an `.eh_frame` section, such as Cranelift's or
    /// LLVM's, with the zero at its end. It must be relocated for the place where
    /// the bytes lie, from which they are not moved.
    ///
    /// # Errors
    /// [`Error::Argument`] if the records do not follow each other up to a zero of
    /// four bytes, which is the end of the bytes, if one is in the 64-bit form of
    /// DWARF, which libgcc does not read, or if a function's record does not refer
    /// to a common one (CIE) before it. Nothing is registered then.
    ///
    /// # Safety
    /// The records must be well formed, and must describe the code at these
    /// addresses truly as long as this value lives.
    ///
    /// # Example
    /// ```
    /// use jitfd::tools::{EhFrame, Frame, UnwindTable};
    /// use jitfd::{Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let space = jit.space(jitfd::space::SpaceOptions::default())?;
    /// let chunk = validate(&[0x90, 0xc3], &Rules::new())?;
    /// let function = space.publish("leaf", &chunk)?;
    /// // In place of the section that the compiler has made.
    /// let mut section = EhFrame::default();
    /// section.add(function.address, function.len, &Frame::leaf())?;
    /// let section = section.bytes().into();
    /// // SAFETY: the function never moves the stack pointer, and `table` is dropped
    /// // before `space`.
    /// let table: UnwindTable = unsafe { UnwindTable::from_bytes(section)? };
    /// # Ok(())
    /// # }
    /// ```
    #[expect(unsafe_code, reason = "the caller vouches for the table")]
    pub unsafe fn from_bytes(bytes: Box<[u8]>) -> Result<Self, Error> {
        eh_section::check(&bytes)?;
        // SAFETY: the records were checked; the rest is promised by the caller.
        let registered = unsafe { Registered::new(bytes) };
        Ok(Self {
            _registered: registered,
        })
    }
}

impl EhFrame {
    /// Registers the table with the program's unwinder.
    ///
    /// ```
    /// use jitfd::tools::{EhFrame, Frame};
    ///
    /// # use jitfd::{Error, Rules, space::SpaceOptions, validate};
    /// # fn main() -> Result<(), Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let space = jit.space(jitfd::space::SpaceOptions::default())?;
    /// // push rbp; mov rbp, rsp; pop rbp; ret
    /// let code = validate(&[0x55, 0x48, 0x89, 0xe5, 0x5d, 0xc3], &Rules::new())?;
    /// let mut table = EhFrame::default();
    /// for function in space.publish_all(&[("one", &code), ("two", &code)])? {
    ///     table.add(function.address, function.len, &Frame::pointer())?;
    /// }
    /// // SAFETY: both functions begin with `push rbp; mov rbp, rsp`, and the table
    /// // is dropped before the code.
    /// let table = unsafe { table.register() };
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Safety
    /// The table must describe the code at these addresses truly as long as the
    /// result lives.
    #[expect(unsafe_code, reason = "the caller vouches for the table")]
    #[must_use]
    pub unsafe fn register(self) -> UnwindTable {
        // SAFETY: the table is well formed; the rest is promised by the caller.
        let registered = unsafe { Registered::new(self.into_bytes().into_boxed_slice()) };
        UnwindTable {
            _registered: registered,
        }
    }
}
