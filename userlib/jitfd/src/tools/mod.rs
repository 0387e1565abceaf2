// SPDX-License-Identifier: MIT OR Apache-2.0

//! Generated code for profilers, debuggers and unwinders.
//!
//! Tools know a program's functions from the files it was loaded from. Code that
//! a compiler has made is in no file, so they must be told:
//!
//! | tool | needs | here |
//! |---|---|---|
//! | `perf report` while the program's host is the same | a text file in `/tmp` | [`PerfMap`] |
//! | `perf annotate`, reports elsewhere or later, code that comes and goes | a dump of the code | [`JitDump`] |
//! | gdb | an object file in memory | [`GdbJit`] |
//! | panics, C++ exceptions, backtraces | unwind tables | [`EhFrame`] |
//!
//! The first three are [`Listener`](crate::space::Listener)s: give them to
//! [`SpaceOptions::listeners`](crate::space::SpaceOptions::listeners), and every
//! function of the code space is known by its name. As listeners they can't
//! return an error; the two that write files count what they could not write.

mod eh_frame;
mod eh_section;
mod elf;
mod gdb;
mod gdb_sys;
mod jitdump;
mod own_file;
mod perf_map;
mod unwind;
mod unwind_sys;

pub use eh_frame::{EhFrame, Frame};
pub use gdb::GdbJit;
pub use jitdump::JitDump;
pub use perf_map::PerfMap;
pub use unwind::UnwindTable;
