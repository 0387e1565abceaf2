// SPDX-License-Identifier: MIT OR Apache-2.0

//! Regions and code in the process's own memory, for systems without
//! `/dev/jit`.
//!
//! ```text
//!  access.rs -> OwnRegion -> books.rs    what goes where, what is refused
//!                         -> dual.rs     a memory file, mapped twice   \ sys.rs:
//!                         -> flips.rs    pages prepared, then moved    / all unsafe
//! ```
//!
//! Locks: one mutex per region, the turn: one publication at a time. Nothing of
//! the caller runs under it. A forked child never takes it, because another
//! thread of the parent may have held it.

mod books;
mod code;
mod dual;
mod flips;
mod holes;
mod memory;
mod sys;

pub(crate) use code::{create_code, create_code_at};
pub(crate) use dual::finished;
pub(crate) use sys::{MemoryFile, may_become, membarrier_works};

use crate::abi;
use crate::backend::Backend;
use crate::error::{Call, Error, SystemError};
use crate::fork_sys::Owner;
use crate::piece::Piece;
use crate::region::FORKED_MEANWHILE;
use crate::room::{no_memory, room};
use crate::space::Window;
use crate::sys::Mapped;
use books::Books;
use jitfd_code::Align;
use jitfd_code::internal::Mode;
use memory::{Memory, Write};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// A region in the process's own memory.
#[derive(Debug)]
pub(crate) struct OwnRegion {
    backend: Backend,
    capacity: usize,
    owner: Owner,
    turn: Mutex<Turn>,
}

#[derive(Debug)]
struct Turn {
    books: Books,
    memory: Box<dyn Memory>,
}

fn refused(call: Call) -> impl Fn(i32) -> Error {
    move |errno| SystemError::new(call, errno).into()
}

fn failed(call: Call) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::system(call, &error)
}

/// Each piece at its offset; `None` without memory for the list.
fn placed<'a>(
    offsets: impl Iterator<Item = usize>,
    pieces: &[Piece<'a>],
) -> Option<Vec<Write<'a>>> {
    let mut writes = room(pieces.len())?;
    writes.extend(offsets.zip(pieces).map(|(offset, piece)| Write {
        offset,
        bytes: piece.bytes,
    }));
    Some(writes)
}

impl OwnRegion {
    /// A region of `capacity` bytes, which are whole pages. `window` is where it
    /// will be mapped.
    pub(crate) fn new(
        backend: Backend,
        capacity: usize,
        window: Option<Window>,
    ) -> Result<Self, Error> {
        let owner = Owner::new().map_err(failed(Call::Owner))?;
        let memory: Box<dyn Memory> = match backend {
            Backend::ProtectFlips => Box::new(flips::Flips::new(capacity, window)?),
            _ => Box::new(dual::Dual::new(capacity)?),
        };
        let books = Books::new(capacity);
        Ok(Self {
            backend,
            capacity,
            owner,
            turn: Mutex::new(Turn { books, memory }),
        })
    }

    pub(crate) const fn backend(&self) -> Backend {
        self.backend
    }

    /// The turn, if this is the process that made the region.
    fn turn(&self, call: Call) -> Result<MutexGuard<'_, Turn>, Error> {
        if !self.owner.is_current() {
            return Err(refused(call)(libc::EPERM));
        }
        // A panic can't leave the books half changed: they are noted in one go.
        Ok(self.turn.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn append(
        &self,
        pieces: &[Piece<'_>],
        expect: Option<usize>,
        mode: Mode,
    ) -> Result<usize, Error> {
        let refused = |errno| match (errno, expect) {
            (libc::ESTALE, Some(expected)) => Error::Stale { expected },
            _ => refused(Call::Append)(errno),
        };
        books::check_pieces(pieces, self.capacity).map_err(refused)?;
        let mut turn = self.turn(Call::Append)?;
        let fresh = mode == Mode::Fresh;
        let plan = turn.books.plan_append(pieces, expect, fresh);
        let plan = plan.map_err(refused)?;
        let writes = placed(plan.offsets.iter().copied(), pieces);
        let writes = writes.ok_or(no_memory(Call::Append))?;
        let from = turn.books.cursor();
        turn.memory.extend(from..plan.end)?;
        let effects = turn.memory.publish(&writes)?;
        turn.books.append(&plan, &writes, effects);
        Ok(writes.first().map_or(from, |write| write.offset))
    }

    pub(crate) fn fill(&self, pieces: &[Piece<'_>]) -> Result<(), Error> {
        let refused = refused(Call::Fill);
        books::check_pieces(pieces, self.capacity).map_err(&refused)?;
        books::check_order(pieces).map_err(&refused)?;
        let mut turn = self.turn(Call::Fill)?;
        turn.books.plan_fill(pieces).map_err(&refused)?;
        let writes = placed(pieces.iter().map(|piece| piece.offset), pieces);
        let writes = writes.ok_or(no_memory(Call::Fill))?;
        let effects = turn.memory.publish(&writes)?;
        turn.books.fill(&writes, effects);
        Ok(())
    }

    pub(crate) fn reserve(&self, len: usize, align: Align) -> Result<usize, Error> {
        let mut turn = self.turn(Call::Reserve)?;
        let range = turn.books.plan_reserve(len, align);
        let range = range.map_err(refused(Call::Reserve))?;
        let from = turn.books.cursor();
        turn.memory.extend(from..range.end)?;
        turn.books.reserve(&range);
        Ok(range.start)
    }

    pub(crate) fn seal(&self) -> Result<(), Error> {
        let mut turn = self.turn(Call::Seal)?;
        turn.books.seal();
        turn.memory.seal();
        Ok(())
    }

    /// Makes the region, whose mapping is `mapped`, this process's own: a copy.
    pub(crate) fn adopt(&self, mapped: &Mapped) -> Result<(), Error> {
        let mut turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(FORKED_MEANWHILE),
        };
        let free = turn.books.free();
        turn.memory.adopt(mapped, &free)?;
        turn.books.adopt();
        self.owner.change().map_err(failed(Call::Owner))
    }

    pub(crate) fn stats(&self) -> Result<abi::Stats, Error> {
        self.turn(Call::Stats).map(|turn| turn.books.stats())
    }

    /// Maps the first `len` bytes, inside of `window`.
    pub(crate) fn map(&self, window: Option<Window>, len: usize) -> Result<Mapped, Error> {
        if len == 0 || len > self.capacity {
            return Err(refused(Call::Map)(libc::EINVAL));
        }
        self.turn(Call::Map)?.memory.map(window, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That is no lack of memory.
    #[test]
    fn a_turn_that_somebody_holds_is_said_to_be_held() {
        let region = OwnRegion::new(Backend::DualMapping, abi::PAGE_SIZE, None).unwrap();
        let mapped = region.map(None, abi::PAGE_SIZE).unwrap();
        let turn = region.turn(Call::Append).unwrap();
        assert_eq!(region.adopt(&mapped), Err(FORKED_MEANWHILE));
        drop(turn);
        assert_eq!(region.adopt(&mapped), Ok(()));
    }
}
