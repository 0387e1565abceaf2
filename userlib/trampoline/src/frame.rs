// SPDX-License-Identifier: MIT OR Apache-2.0

//! What unwinders and debuggers are told of the code of trampolines, for as long as
//! that is mapped.
//!
//! A trampoline has no frame of its own while its target runs: it jumps there. So its
//! unwind table matters to those who look at a thread in the middle of one: signal
//! handlers, profilers, debuggers.

use jitfd::Error;
use jitfd::space::Symbol;
use jitfd::tools::{EhFrame, Frame, GdbJit, UnwindTable};

/// What is known of the code of a kind of trampolines.
#[derive(Clone, Debug)]
pub(crate) struct Cover {
    /// For debuggers.
    pub(crate) name: &'static str,
    /// True of each address in the code.
    pub(crate) frame: Frame,
    /// Whether debuggers are told, too.
    pub(crate) debuggers: bool,
}

/// That the unwinder, and debuggers, know some code. They forget it on drop.
#[derive(Debug)]
pub(crate) struct Known {
    _unwinder: UnwindTable,
    _debuggers: Option<GdbJit>,
}

/// Memory that the allocator gets back, and so has, when code is told of. The unwinder's
/// function takes some and can't say that there was none; and a process whose mappings
/// are used up, by the code perhaps, can't have its heap grow.
#[derive(Debug)]
pub(crate) struct Room(Vec<u8>);

/// More than an entry of the unwinder's and a debugger's image of the code.
const ROOM: usize = 16 << 10;

impl Room {
    /// To be made before the code is mapped; `None` if there is no memory.
    fn new() -> Option<Self> {
        let mut room = Vec::new();
        room.try_reserve_exact(ROOM).ok()?;
        Some(Self(room))
    }
}

impl Cover {
    /// What [`register`](Self::register) will need.
    pub(crate) fn prepare(&self) -> Result<Room, Error> {
        Room::new().ok_or_else(Error::no_memory)
    }

    /// Tells of the code. Fails with [`Error::no_memory`].
    ///
    /// # Safety
    /// The code is at its address, with this frame, as long as the result lives.
    #[expect(unsafe_code, reason = "the caller vouches for the table")]
    pub(crate) unsafe fn register(&self, Room(room): Room, code: &[u8]) -> Result<Known, Error> {
        drop(room);
        let (address, len) = (code.as_ptr().expose_provenance(), code.len());
        let mut table = EhFrame::default();
        table.add(address, len, &self.frame)?;
        let debuggers = self.debuggers.then(|| {
            let gdb = GdbJit::default();
            let code = Symbol {
                name: self.name,
                address,
                bytes: code,
            };
            gdb.add(&[code], table.bytes());
            gdb
        });
        Ok(Known {
            // SAFETY: as promised by the caller.
            _unwinder: unsafe { table.register() },
            _debuggers: debuggers,
        })
    }
}
