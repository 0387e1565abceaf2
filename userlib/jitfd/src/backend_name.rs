// SPDX-License-Identifier: MIT OR Apache-2.0

//! The backends by name: what errors and choices speak of.

use std::fmt;

/// What makes code executable.
///
/// | | [`Kernel`](Self::Kernel) | [`DualMapping`](Self::DualMapping) | [`ProtectFlips`](Self::ProtectFlips) |
/// |---|---|---|---|
/// | a writable view of the code | never | one, at an address of its own | never of a page that is executable |
/// | a publication costs | a system call | interrupts of all CPUs that run the process | three system calls, and interrupts as before |
/// | access to a page without code | `SIGBUS` | `SIGBUS`, or 0xCC if it is reserved | `SIGSEGV` |
/// | works under `PR_SET_MDWE` | yes | yes | no |
/// | handles for other processes | yes | no | no |
/// | a forked child sees later code | yes | yes | no |
/// | memory used by a reservation | none | all of it | none |
///
/// In all three unpublished bytes are 0xCC (`int3`), a publication is done as a
/// whole or not at all, and threads may execute the region while code is
/// published beside what they execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// `/dev/jit`. No part of the program can write to code.
    Kernel,
    /// A memory file mapped twice, once for writing and once for executing.
    /// Whoever finds the writable view can change all code.
    DualMapping,
    /// Pages are prepared in writable memory, turned executable (`mprotect`) and
    /// then moved to their place, so that no page is writable while it can be
    /// executed.
    ProtectFlips,
}

impl Backend {
    /// Every backend, the best first.
    ///
    /// ```
    /// use jitfd::{Backend, Fallback, Jit};
    ///
    /// // The tests of a compiler run over every backend that this system has.
    /// for backend in Backend::ALL {
    ///     match Jit::open(Fallback::Only(backend)) {
    ///         Ok(jit) => assert_eq!(jit.backend(), backend),
    ///         Err(error) => println!("without {backend}: {error}"),
    ///     }
    /// }
    /// ```
    pub const ALL: [Self; 3] = [Self::Kernel, Self::DualMapping, Self::ProtectFlips];
}

/// A name for messages.
impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kernel => "/dev/jit",
            Self::DualMapping => "dual mapping",
            Self::ProtectFlips => "mprotect flips",
        })
    }
}
