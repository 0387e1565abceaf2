// SPDX-License-Identifier: MIT OR Apache-2.0

//! Regions and code in the process's own memory, for systems without
//! `/dev/jit`.
//!
//! ```text
//!  dispatch.rs -> ProcessRegion -> ledger.rs           what goes where, what is refused
//!                         -> dual_mapping.rs  a memory file, mapped twice   \ sys.rs:
//!                         -> mprotect.rs      pages prepared, then moved    / all unsafe
//! ```
//!
//! Locks: one mutex per region, the state's: one publication at a time. Nothing of
//! the caller runs under it. A forked child never takes it, because another
//! thread of the parent may have held it.

mod dual_mapping;
mod holes;
mod image;
mod ledger;
mod memory;
mod mprotect;
mod sys;

pub(crate) use dual_mapping::finished;
pub(crate) use image::{create_code, create_code_at, make_writable};
pub(crate) use sys::{MemoryFile, membarrier_works};

use crate::abi;
use crate::backend::segment::Segment;
use crate::backend_name::Backend;
use crate::error::{Call, Error, failed, refused};
use crate::os::fork::{FORKED_MEANWHILE, Owner};
use crate::os::sys::Mapped;
use crate::os::window::Window;

use crate::os::fallible::{no_memory, room};
use jitfd_code::Align;
use jitfd_code::internal::Mode;
use ledger::Ledger;
use memory::{Memory, Write};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// A region in the process's own memory.
#[derive(Debug)]
pub(crate) struct ProcessRegion {
    backend: Backend,
    capacity: usize,
    owner: Owner,
    state: Mutex<PublishState>,
}

#[derive(Debug)]
struct PublishState {
    ledger: Ledger,
    memory: Box<dyn Memory>,
}

/// Each piece at its offset; `None` without memory for the list.
fn placed<'a>(
    offsets: impl Iterator<Item = usize>,
    pieces: &[Segment<'a>],
) -> Option<Vec<Write<'a>>> {
    let mut writes = room(pieces.len())?;
    writes.extend(offsets.zip(pieces).map(|(offset, piece)| Write {
        offset,
        bytes: piece.bytes,
    }));
    Some(writes)
}

impl ProcessRegion {
    /// A region of `capacity` bytes, which are whole pages. `window` is where it
    /// will be mapped.
    pub(crate) fn new(
        backend: Backend,
        capacity: usize,
        window: Option<Window>,
    ) -> Result<Self, Error> {
        let owner = Owner::new().map_err(failed(Call::Owner))?;
        let memory: Box<dyn Memory> = match backend {
            Backend::ProtectFlips => Box::new(mprotect::Mprotect::new(capacity, window)?),
            _ => Box::new(dual_mapping::DualMapping::new(capacity)?),
        };
        let ledger = Ledger::new(capacity);
        Ok(Self {
            backend,
            capacity,
            owner,
            state: Mutex::new(PublishState { ledger, memory }),
        })
    }

    pub(crate) const fn backend(&self) -> Backend {
        self.backend
    }

    /// The state, if this is the process that made the region.
    fn state(&self, call: Call) -> Result<MutexGuard<'_, PublishState>, Error> {
        if !self.owner.is_current() {
            return Err(refused(call)(libc::EPERM));
        }
        // A panic can't leave the ledger half changed: they are noted in one go.
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn append(
        &self,
        pieces: &[Segment<'_>],
        expect: Option<usize>,
        mode: Mode,
    ) -> Result<usize, Error> {
        let refused = |errno| match (errno, expect) {
            (libc::ESTALE, Some(expected)) => Error::Stale { expected },
            _ => refused(Call::Append)(errno),
        };
        ledger::check_pieces(pieces, self.capacity).map_err(refused)?;
        let mut state = self.state(Call::Append)?;
        let fresh = mode == Mode::Fresh;
        let plan = state.ledger.plan_append(pieces, expect, fresh);
        let plan = plan.map_err(refused)?;
        let writes = placed(plan.offsets.iter().copied(), pieces);
        let writes = writes.ok_or(no_memory(Call::Append))?;
        let from = state.ledger.cursor();
        state.memory.extend(from..plan.end)?;
        let effects = state.memory.publish(&writes)?;
        state.ledger.append(&plan, &writes, effects);
        Ok(writes.first().map_or(from, |write| write.offset))
    }

    pub(crate) fn fill(&self, pieces: &[Segment<'_>]) -> Result<(), Error> {
        let refused = refused(Call::Fill);
        ledger::check_pieces(pieces, self.capacity).map_err(&refused)?;
        ledger::check_order(pieces).map_err(&refused)?;
        let mut state = self.state(Call::Fill)?;
        state.ledger.plan_fill(pieces).map_err(&refused)?;
        let writes = placed(pieces.iter().map(|piece| piece.offset), pieces);
        let writes = writes.ok_or(no_memory(Call::Fill))?;
        let effects = state.memory.publish(&writes)?;
        state.ledger.fill(&writes, effects);
        Ok(())
    }

    pub(crate) fn reserve(&self, len: usize, align: Align) -> Result<usize, Error> {
        let mut state = self.state(Call::Reserve)?;
        let range = state.ledger.plan_reserve(len, align);
        let range = range.map_err(refused(Call::Reserve))?;
        let from = state.ledger.cursor();
        state.memory.extend(from..range.end)?;
        state.ledger.reserve(&range);
        Ok(range.start)
    }

    pub(crate) fn seal(&self) -> Result<(), Error> {
        let mut state = self.state(Call::Seal)?;
        state.ledger.seal();
        state.memory.seal();
        Ok(())
    }

    /// Makes the region, whose mapping is `mapped`, this process's own: a copy.
    pub(crate) fn adopt(&self, mapped: &Mapped) -> Result<(), Error> {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(FORKED_MEANWHILE),
        };
        let free = state.ledger.free();
        state.memory.adopt(mapped, &free)?;
        state.ledger.adopt();
        self.owner.change().map_err(failed(Call::Owner))
    }

    pub(crate) fn stats(&self) -> Result<abi::Stats, Error> {
        self.state(Call::Stats).map(|state| state.ledger.stats())
    }

    /// Maps the first `len` bytes, inside of `window`.
    pub(crate) fn map(&self, window: Option<Window>, len: usize) -> Result<Mapped, Error> {
        if len == 0 || len > self.capacity {
            return Err(refused(Call::Map)(libc::EINVAL));
        }
        self.state(Call::Map)?.memory.map(window, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This is not a lack of memory.
    #[test]
    fn a_turn_that_somebody_holds_is_said_to_be_held() {
        let region = ProcessRegion::new(Backend::DualMapping, abi::PAGE_SIZE, None).unwrap();
        let mapped = region.map(None, abi::PAGE_SIZE).unwrap();
        let state = region.state(Call::Append).unwrap();
        assert_eq!(region.adopt(&mapped), Err(FORKED_MEANWHILE));
        drop(state);
        assert_eq!(region.adopt(&mapped), Ok(()));
    }
}
