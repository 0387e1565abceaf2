// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]

use cranelift_jit::{BranchProtection, JITMemoryKind, JITMemoryProvider};
use cranelift_module::{ModuleError, ModuleResult};
use jitfd::Jit;
use memmap2::{MmapMut, MmapOptions};
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;

/// The size of a page, which is what can be made executable.
const PAGE: usize = 4096;

/// Memory for the functions and data of one `JITModule`.
///
/// # Invariants
/// The parts do not overlap, and are whole pages of `memory`.
pub struct CodeMemory {
    jit: Jit,
    /// It stays when this is dropped: there may be function pointers.
    memory: ManuallyDrop<MmapMut>,
    code: Part,
    constants: Part,
    data: Part,
}

impl CodeMemory {
    /// With room for `capacity` bytes of code, as much of constants, and as much of other
    /// data. Only what is used takes memory.
    ///
    /// # Errors
    /// Those of `mmap`; `InvalidInput` if `capacity` is 0 or above 512 MiB: code reaches
    /// no further.
    pub fn new(jit: Jit, capacity: usize) -> io::Result<Self> {
        if !(1..=512 << 20).contains(&capacity) {
            let why = "a capacity is from 1 byte to 512 MiB";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let len = capacity.next_multiple_of(PAGE);
        let memory = MmapOptions::new()
            .len(3 * len)
            .no_reserve_swap()
            .map_anon()?;
        // INVARIANT: one third each.
        Ok(Self {
            jit,
            memory: ManuallyDrop::new(memory),
            code: Part::new(0..len),
            constants: Part::new(len..2 * len),
            data: Part::new(2 * len..3 * len),
        })
    }

    fn at(&mut self, offset: usize) -> *mut u8 {
        self.memory.as_mut_ptr().wrapping_add(offset)
    }

    fn make_executable(&mut self, pages: &Range<usize>) -> Result<(), jitfd::Error> {
        let at = self.at(pages.start);
        // SAFETY: the pages are ours and are given out to nobody but the module, which
        // does not write to them after `finalize`. It executes what it has compiled.
        unsafe { self.jit.make_executable(at, pages.len()) }
    }

    fn make_read_only(&mut self, pages: &Range<usize>) -> region::Result<()> {
        let at = self.at(pages.start);
        // SAFETY: as above; these the module only reads.
        unsafe { region::protect(at, pages.len(), region::Protection::READ) }
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> ModuleError {
    ModuleError::Backend(error.into())
}

impl JITMemoryProvider for CodeMemory {
    fn allocate(&mut self, size: usize, align: u64, kind: JITMemoryKind) -> io::Result<*mut u8> {
        let part = match kind {
            JITMemoryKind::Executable => &mut self.code,
            JITMemoryKind::ReadOnly => &mut self.constants,
            JITMemoryKind::Writable => &mut self.data,
        };
        let offset = part.take(size, align)?;
        Ok(self.at(offset))
    }

    /// On x86-64 there is no other branch protection to apply: `endbr64` is the
    /// compiler's.
    fn finalize(&mut self, _: BranchProtection) -> ModuleResult<()> {
        let pages = self.code.unfinished();
        self.make_executable(&pages).map_err(failed)?;
        self.code.finish(&pages);
        let pages = self.constants.unfinished();
        if !pages.is_empty() {
            self.make_read_only(&pages).map_err(failed)?;
        }
        self.constants.finish(&pages);
        Ok(())
    }

    unsafe fn free_memory(&mut self) {
        for part in [&mut self.code, &mut self.constants, &mut self.data] {
            // Nothing is given out any more.
            *part = Part::new(0..0);
        }
        if let Ok(empty) = MmapMut::map_anon(PAGE) {
            let whole = std::mem::replace(&mut self.memory, ManuallyDrop::new(empty));
            // Unmaps it: by the caller's promise nobody uses it.
            drop(ManuallyDrop::into_inner(whole));
        }
    }
}

/// A range of the memory, in bytes, that is given out from its start on.
struct Part {
    range: Range<usize>,
    /// What is before it is given out.
    next: usize,
    /// What is before it is finished: code, or constants. The start of a page.
    finished: usize,
}

impl Part {
    fn new(range: Range<usize>) -> Self {
        Self {
            next: range.start,
            finished: range.start,
            range,
        }
    }

    fn take(&mut self, size: usize, align: u64) -> io::Result<usize> {
        let taken = || {
            let start = self
                .next
                .checked_next_multiple_of(usize::try_from(align).ok()?)?;
            let end = start.checked_add(size)?;
            (end <= self.range.end).then_some((start, end))
        };
        let (start, end) = taken().ok_or_else(|| {
            let why = "the capacity of the module's memory is used up";
            io::Error::new(io::ErrorKind::OutOfMemory, why)
        })?;
        self.next = end;
        Ok(start)
    }

    /// The pages that hold what was given out since the last time.
    fn unfinished(&self) -> Range<usize> {
        self.finished..self.next.next_multiple_of(PAGE)
    }

    fn finish(&mut self, pages: &Range<usize>) {
        self.finished = pages.end;
        self.next = pages.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jitfd::Fallback;

    fn memory(capacity: usize) -> CodeMemory {
        CodeMemory::new(Jit::open(Fallback::Any).unwrap(), capacity).unwrap()
    }

    fn code(memory: &mut CodeMemory, bytes: &[u8]) -> io::Result<*mut u8> {
        let at = memory.allocate(bytes.len(), 16, JITMemoryKind::Executable)?;
        // SAFETY: it was just given out.
        unsafe { at.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(at)
    }

    #[test]
    fn code_runs_once_it_is_finished() {
        let mut memory = memory(1 << 20);
        for value in 1..20 {
            let first = code(&mut memory, &[0xb8, value, 0, 0, 0, 0xc3]).unwrap();
            let second = code(&mut memory, &[0xb8, value + 100, 0, 0, 0, 0xc3]).unwrap();
            memory.finalize(BranchProtection::None).unwrap();
            let call = |at: *mut u8| {
                // SAFETY: the code is such a function.
                unsafe { jitfd::Entry::<extern "C" fn() -> i32>::at(at)() }
            };
            assert_eq!(call(first), i32::from(value));
            assert_eq!(call(second), i32::from(value) + 100);
        }
        memory.finalize(BranchProtection::None).unwrap();
        // SAFETY: nobody uses it any more.
        unsafe { memory.free_memory() };
        assert!(code(&mut memory, &[0xc3]).is_err());
    }

    #[test]
    fn a_full_module_says_so() {
        let mut memory = memory(PAGE);
        memory.allocate(PAGE, 1, JITMemoryKind::Executable).unwrap();
        let error = memory
            .allocate(1, 1, JITMemoryKind::Executable)
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        memory.allocate(PAGE, 1, JITMemoryKind::Writable).unwrap();
        for (size, align) in [(usize::MAX, 1), (1, u64::MAX), (1, 0)] {
            assert!(
                memory
                    .allocate(size, align, JITMemoryKind::ReadOnly)
                    .is_err()
            );
        }
        for capacity in [0, (512 << 20) + 1] {
            let jit = Jit::open(Fallback::Any).unwrap();
            assert!(CodeMemory::new(jit, capacity).is_err());
        }
    }
}
