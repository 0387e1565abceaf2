// SPDX-License-Identifier: MIT OR Apache-2.0

//! The interface by which gdb learns of generated code: a list of object files
//! in memory, and a function in which it sets a breakpoint.
//!
//! Locks: that of the list, in `gdb_sys.rs`.

use super::elf;
use super::gdb_sys::Files;
use crate::space::{Listener, Symbol};

/// Code that gdb knows by name, also if it attaches later. Dropping it takes the
/// names back.
///
/// One object file of some hundred bytes stays in memory for each publication.
/// With a debugger attached each publication stops the program for a moment and
/// costs it time in proportion to what was registered before; without one it
/// costs a microsecond. So a program does well to use it on demand only.
///
/// gdb 7 and newer and lldb (`settings set plugin.jit-loader.gdb.enable on`) know
/// the interface. The two symbols that it needs are weak, so a program can
/// contain other JIT compilers that define them. The list has no lock that such
/// compilers would know: two that register at once can spoil it.
///
/// A forked child inherits what is registered, as it does the code. What it adds or
/// takes back from then on is its own; it waits for no thread of its parent.
///
/// Without unwind tables gdb finds a caller only through code that begins with
/// `push rbp; mov rbp, rsp`; [`add`](Self::add) takes tables.
///
/// ```
/// use jitfd::space::SpaceOptions;
/// use jitfd::tools::GdbJit;
/// use std::sync::Arc;
///
/// let options = SpaceOptions {
///     listeners: vec![Arc::new(GdbJit::default())],
///     ..Default::default()
/// };
/// ```
#[derive(Debug, Default)]
pub struct GdbJit {
    files: Files,
}

impl GdbJit {
    /// Registers functions that were published, and a table that says how to
    /// unwind them: one of an [`EhFrame`](super::EhFrame), or an empty one. The
    /// addresses in it must be absolute.
    ///
    /// ```
    /// use jitfd::space::Symbol;
    /// use jitfd::tools::{EhFrame, Frame, GdbJit};
    /// use jitfd::{Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let space = jit.space(jitfd::space::SpaceOptions::default())?;
    /// // push rbp; mov rbp, rsp; pop rbp; ret
    /// let chunk = validate(&[0x55, 0x48, 0x89, 0xe5, 0x5d, 0xc3], &Rules::new())?;
    /// let function = space.publish("framed", &chunk)?;
    /// let mut table = EhFrame::default();
    /// table.add(function.address, function.len, &Frame::pointer())?;
    /// let gdb = GdbJit::default();
    /// gdb.add(&[Symbol { name: "framed", address: function.address, bytes: chunk.bytes() }], table.bytes());
    /// # Ok(())
    /// # }
    /// ```
    pub fn add(&self, codes: &[Symbol<'_>], eh_frame: &[u8]) {
        // Without memory for a lock the code stays nameless.
        let _ = self.files.add(elf::object(codes, eh_frame));
    }
}

impl Listener for GdbJit {
    fn published(&self, codes: &[Symbol<'_>]) {
        self.add(codes, &[]);
    }
}
