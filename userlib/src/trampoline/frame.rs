// SPDX-License-Identifier: MIT OR Apache-2.0

//! What unwinders and debuggers are told of the code of trampolines, for as long as
//! that is mapped.
//!
//! A trampoline has no frame of its own while its target runs: it jumps there. So its
//! unwind table matters to those who look at a thread in the middle of one: signal
//! handlers, profilers, debuggers.

use crate::space::NewCode;
use crate::tools::{EhFrame, Frame, GdbJit, UnwindTable};

/// What is known of the code of a kind of trampolines.
#[derive(Clone, Debug)]
pub(super) struct Cover {
    /// For debuggers.
    pub(super) name: &'static str,
    /// True of each address in the code.
    pub(super) frame: Frame,
    /// Whether debuggers are told, too.
    pub(super) debuggers: bool,
}

/// That the unwinder, and debuggers, know some code. They forget it on drop.
#[derive(Debug)]
pub(super) struct Known {
    _unwinder: UnwindTable,
    _debuggers: Option<GdbJit>,
}

impl Cover {
    /// # Safety
    /// The code is at its address, with this frame, as long as the result lives.
    #[expect(unsafe_code, reason = "the caller vouches for the table")]
    pub(super) unsafe fn register(&self, code: &[u8]) -> Known {
        let (address, len) = (code.as_ptr().expose_provenance(), code.len());
        let mut table = EhFrame::new();
        table.add(address, len, &self.frame);
        let debuggers = self.debuggers.then(|| {
            let gdb = GdbJit::new();
            let code = NewCode::new(self.name, address, code);
            gdb.add(&[code], &table.clone().into_bytes());
            gdb
        });
        Known {
            // SAFETY: as promised by the caller.
            _unwinder: unsafe { table.register() },
            _debuggers: debuggers,
        }
    }
}
