// SPDX-License-Identifier: MIT OR Apache-2.0

//! DualMapping mapping: a memory file, mapped once for writing and as often as wanted
//! for executing.
//!
//! The file ends with the page of the cursor, so that access to a page without
//! code is a SIGBUS, as with the kernel's regions. Bytes up to there are 0xCC
//! until they are published.
//!
//! Publishing changes code that other CPUs may be about to execute. Intel's and
//! AMD's manuals ask for this order (Intel SDM volume 3, "Handling Self- and
//! Cross-Modifying Code"; the kernel does the same in `text_poke_bp`):
//!
//! 1. The old bytes are 0xCC: a CPU that comes here too early gets a trap.
//! 2. Everything but the first byte of each chunk is written.
//! 3. All CPUs that run this process execute a serializing instruction
//!    (`membarrier`), so none has old bytes of it in its pipeline.
//! 4. The first bytes are written.
//! 5. All CPUs serialize again: none has the 0xCC in its pipeline when the call
//!    returns.
//!
//! What is not covered: a branch to the middle of a chunk, executed before the
//! publication has returned, may meet an instruction that is half written. With
//! the kernel's regions it traps or is whole.

use super::memory::{Effects, Memory, Write};
use super::sys::{Alias, MemoryFile, barrier, register_barrier};
use crate::abi;
use crate::error::{Call, Error, failed, refused};
use crate::os::near;
use crate::os::sys::{Mapped, map_code, may_become};
use crate::os::window::Window;
use jitfd_code::Align;
use std::ops::Range;

/// The memory of one region.
#[derive(Debug)]
pub(crate) struct DualMapping {
    file: MemoryFile,
    /// The length of the file in bytes, whole pages.
    len: usize,
    /// The writable view; gone when the region is sealed.
    alias: Option<Alias>,
}

impl DualMapping {
    pub(crate) fn new(capacity: usize) -> Result<Self, Error> {
        register_barrier().map_err(failed(Call::Barrier))?;
        // Found out now, and not when the region is half full.
        may_become(capacity).map_err(failed(Call::MemoryFile))?;
        let file = MemoryFile::new().map_err(failed(Call::MemoryFile))?;
        let alias = Alias::new(&file, capacity).map_err(failed(Call::OwnMap))?;
        file.seal_views().map_err(failed(Call::MemoryFile))?;
        Ok(Self {
            file,
            len: 0,
            alias: Some(alias),
        })
    }

    fn alias(&mut self) -> Result<&mut Alias, Error> {
        let sealed = || refused(Call::Append)(libc::EROFS);
        self.alias.as_mut().ok_or_else(sealed)
    }

    /// Steps 2 to 5 above.
    fn write(&mut self, writes: &[Write<'_>]) -> Result<(), Error> {
        let alias = self.alias()?;
        for write in writes {
            alias.write(write.offset + 1, write.bytes.get(1..).unwrap_or_default());
        }
        barrier().map_err(failed(Call::Barrier))?;
        for write in writes {
            alias.write(write.offset, write.bytes.get(..1).unwrap_or_default());
        }
        barrier().map_err(failed(Call::Barrier))
    }

    /// Copies the first `len` bytes of `file`. Nobody executes them here yet.
    fn copy(&mut self, file: &MemoryFile, len: usize) -> Result<(), Error> {
        let mut page = [0; abi::PAGE_SIZE];
        for offset in (0..len).step_by(abi::PAGE_SIZE) {
            let read = file.read(&mut page, offset);
            read.map_err(failed(Call::MemoryFile))?;
            self.alias()?.write(offset, &page);
        }
        Ok(())
    }

    /// Takes back what was written. Nobody was told of it.
    fn erase(&mut self, writes: &[Write<'_>]) {
        if let Ok(alias) = self.alias() {
            for write in writes {
                alias.fill(write.offset..write.offset + write.bytes.len());
            }
        }
    }
}

impl Memory for DualMapping {
    fn extend(&mut self, range: Range<usize>) -> Result<(), Error> {
        let end = Align::PAGE.up(range.end).unwrap_or(range.end);
        if end <= self.len {
            return Ok(());
        }
        let new = self.len..end;
        let grown = self.file.grow(new.clone());
        grown.map_err(failed(Call::MemoryFile))?;
        self.alias()?.fill(new);
        self.len = end;
        Ok(())
    }

    fn publish(&mut self, writes: &[Write<'_>]) -> Result<Effects, Error> {
        self.write(writes).inspect_err(|_| self.erase(writes))?;
        let pages: usize = writes.iter().map(|write| write.pages().len()).sum();
        Ok(Effects {
            in_place: crate::num::to_u64(pages),
            flushes: 2,
            swaps: 0,
        })
    }

    fn map(&self, window: Option<Window>, len: usize) -> Result<Mapped, Error> {
        near::map(window, len, Call::OwnMap, |at| {
            map_code(self.file.as_fd()?, at, len)
        })
    }

    fn adopt(&mut self, mapped: &Mapped, free: &[Range<usize>]) -> Result<(), Error> {
        let mut copy = Self::new(mapped.len())?;
        copy.extend(0..self.len)?;
        copy.copy(&self.file, self.len)?;
        for range in free {
            copy.alias()?.fill(range.start..range.end.min(self.len));
        }
        let replaced = copy.file.as_fd().and_then(|file| mapped.replace(file));
        replaced.map_err(failed(Call::OwnMap))?;
        *self = copy;
        Ok(())
    }

    fn seal(&mut self) {
        self.alias = None;
        // Other processes may hold mappings of the file: nothing is promised
        // about those.
        let _ = self.file.seal_content();
    }
}

/// A finished code: the file never has a writable view.
pub(crate) fn create_code(bytes: &[u8]) -> Result<Mapped, Error> {
    let file = finished(bytes)?;
    let mapped = file.as_fd().and_then(|fd| map_code(fd, None, bytes.len()));
    mapped.map_err(failed(Call::OwnMap))
}

/// What a page ends with.
const FILL: &[u8] = &[abi::FILL; abi::PAGE_SIZE];

/// A sealed file with these bytes and 0xCC up to the end of the last page.
pub(crate) fn finished(bytes: &[u8]) -> Result<MemoryFile, Error> {
    let make = || {
        let len = bytes.len().next_multiple_of(abi::PAGE_SIZE);
        may_become(len)?;
        let file = MemoryFile::new()?;
        file.write(bytes, 0)?;
        let rest = len - bytes.len();
        file.write(FILL.get(..rest).unwrap_or_default(), bytes.len())?;
        file.seal_content()?;
        Ok(file)
    };
    make().map_err(failed(Call::MemoryFile))
}
