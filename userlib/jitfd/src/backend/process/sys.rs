// SPDX-License-Identifier: MIT OR Apache-2.0

//! All `unsafe` of regions in our own memory: system calls on memory that the
//! types here own, and accesses to it.
//!
//! Why it is sound: every address comes from a [`Span`] that its type owns, is
//! checked against that span's length, and nothing that Rust knows about is in
//! it. Writes need `&mut`, so they do not race; CPUs that execute the memory are
//! no accesses that Rust knows of.
#![expect(unsafe_code, reason = "this is the file for it")]

use crate::abi::{FILL, PAGE_SIZE};
use crate::os::fork::AddressSpace;
use crate::os::sys::{Mapped, Span, may_become};
use std::ffi::{c_int, c_long, c_uint};
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

const READ_WRITE: c_int = libc::PROT_READ | libc::PROT_WRITE;
const READ_EXECUTE: c_int = libc::PROT_READ | libc::PROT_EXEC;
const OWN_MEMORY: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

fn outcome(value: c_int) -> io::Result<()> {
    if value == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn outside() -> io::Error {
    io::Error::from_raw_os_error(libc::EFAULT)
}

fn no_memory() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOMEM)
}

/// A file in memory, without a name.
///
/// A program that closes descriptors by their number can close this one, and then
/// get the number for a file of its own. That file is left alone.
#[derive(Debug)]
pub(crate) struct MemoryFile {
    file: ManuallyDrop<File>,
    /// Its device and inode.
    id: (u64, u64),
}

fn id_of(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|data| (data.dev(), data.ino()))
}

/// `MFD_NOEXEC_SEAL`: nobody can make it a program to be started (Linux 6.3).
/// It can be mapped executable all the same.
const NOEXEC_SEAL: c_uint = 8;

impl MemoryFile {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        Self::with(flags | NOEXEC_SEAL).or_else(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => Self::with(flags),
            _ => Err(error),
        })
    }

    fn with(flags: c_uint) -> io::Result<Self> {
        // SAFETY: the name is a C string; the call touches no other memory.
        let fd = unsafe { libc::memfd_create(c"jitfd".as_ptr(), flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, so nobody else owns it.
        let file = unsafe { File::from_raw_fd(fd) };
        let id = id_of(&file)?;
        let file = ManuallyDrop::new(file);
        Ok(Self { file, id })
    }

    /// `EBADF` if the program has closed it, whatever has its number now.
    fn file(&self) -> io::Result<&File> {
        if id_of(&self.file)? == self.id {
            Ok(&self.file)
        } else {
            Err(io::Error::from_raw_os_error(libc::EBADF))
        }
    }

    pub(crate) fn as_fd(&self) -> io::Result<BorrowedFd<'_>> {
        self.file().map(File::as_fd)
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: usize) -> io::Result<()> {
        self.file()?.write_all_at(bytes, crate::num::to_u64(offset))
    }

    pub(crate) fn read(&self, bytes: &mut [u8], offset: usize) -> io::Result<()> {
        self.file()?
            .read_exact_at(bytes, crate::num::to_u64(offset))
    }

    /// Gets memory for `range`, which starts at the end of the file.
    pub(crate) fn grow(&self, range: Range<usize>) -> io::Result<()> {
        may_become(range.end)?;
        let file = self.file()?;
        let too_large = |_| io::Error::from_raw_os_error(libc::EFBIG);
        let start = libc::off_t::try_from(range.start).map_err(too_large)?;
        let len = libc::off_t::try_from(range.len()).map_err(too_large)?;
        // SAFETY: the call touches no memory of ours.
        outcome(unsafe { libc::fallocate(file.as_raw_fd(), 0, start, len) })
    }

    /// No further writable view, and no page taken away.
    pub(crate) fn seal_views(&self) -> io::Result<()> {
        self.seal(libc::F_SEAL_SHRINK | libc::F_SEAL_FUTURE_WRITE)
    }

    /// Nothing changes any more. Fails while there is a writable view.
    pub(crate) fn seal_content(&self) -> io::Result<()> {
        self.seal(libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL)
    }

    fn seal(&self, seals: c_int) -> io::Result<()> {
        // SAFETY: the call touches no memory.
        outcome(unsafe { libc::fcntl(self.file()?.as_raw_fd(), libc::F_ADD_SEALS, seals) })
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        if self.file().is_ok() {
            // SAFETY: not used again.
            unsafe { ManuallyDrop::drop(&mut self.file) };
        }
    }
}

/// The writable view of a memory file. Forked children do not inherit it.
///
/// # Invariants
/// In the address space of `owner` the span is mapped, readable and writable, and
/// nothing that Rust knows about is in it.
#[derive(Debug)]
pub(crate) struct Alias {
    span: ManuallyDrop<Span>,
    owner: AddressSpace,
}

impl Alias {
    /// A view of the first `len` bytes, of which those beyond the end of the file
    /// must not be written until it has grown (SIGBUS).
    pub(crate) fn new(file: &MemoryFile, len: usize) -> io::Result<Self> {
        let owner = AddressSpace::current()?;
        let span = Span::map(None, len, READ_WRITE, libc::MAP_SHARED, Some(file.as_fd()?))?;
        // SAFETY: the memory is ours.
        outcome(unsafe { libc::madvise(span.base().cast(), len, libc::MADV_DONTFORK) })?;
        let span = ManuallyDrop::new(span);
        Ok(Self { span, owner })
    }

    fn place(&mut self, offset: usize, len: usize) -> Option<*mut u8> {
        let fits = offset
            .checked_add(len)
            .is_some_and(|end| end <= self.span.len());
        (fits && self.owner.is_current()).then(|| self.span.base().wrapping_add(offset))
    }

    /// Writes `bytes`, if they fit. All of them are visible to other CPUs before
    /// what is written later.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(place) = self.place(offset, bytes.len()) {
            // SAFETY: by the type invariant; `place` has checked the bounds.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        }
    }

    /// Writes 0xCC to a range, if that is one.
    pub(crate) fn fill(&mut self, range: Range<usize>) {
        if let Some(place) = self.place(range.start, range.len()) {
            // SAFETY: as above.
            unsafe { std::ptr::write_bytes(place, FILL, range.len()) };
        }
    }
}

impl Drop for Alias {
    fn drop(&mut self) {
        // Where a child was forked, something else may be at these addresses.
        if self.owner.is_current() {
            // SAFETY: not used again.
            unsafe { ManuallyDrop::drop(&mut self.span) };
        }
    }
}

const PRIVATE_EXPEDITED_SYNC_CORE: c_int = 1 << 5;
const REGISTER_PRIVATE_EXPEDITED_SYNC_CORE: c_int = 1 << 6;

fn membarrier(command: c_int) -> io::Result<c_int> {
    let none: c_long = 0;
    // SAFETY: the call touches no memory of ours. It is a compiler barrier, as
    // every call of unknown code.
    let value = unsafe { libc::syscall(libc::SYS_membarrier, c_long::from(command), none, none) };
    if value < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(c_int::try_from(value).unwrap_or(c_int::MAX))
}

/// Whether [`barrier`] can be announced.
pub(crate) fn membarrier_works() -> io::Result<()> {
    const QUERY: c_int = 0;
    match membarrier(QUERY)? {
        known if known & PRIVATE_EXPEDITED_SYNC_CORE != 0 => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// Announces [`barrier`]; needed once in each address space.
pub(crate) fn register_barrier() -> io::Result<()> {
    membarrier(REGISTER_PRIVATE_EXPEDITED_SYNC_CORE).map(drop)
}

/// When it returns, each CPU that runs a thread of this process has executed a
/// serializing instruction, after all writes before the call.
pub(crate) fn barrier() -> io::Result<()> {
    membarrier(PRIVATE_EXPEDITED_SYNC_CORE).map(drop)
}

/// Pages that are prepared in one place and put in that of others.
///
/// # Invariants
/// The span is whole pages of private anonymous memory, readable, with this access.
pub(crate) struct Pages {
    span: Span,
    access: c_int,
}

impl Pages {
    /// Writable pages with `bytes` and 0xCC behind them.
    pub(crate) fn new(bytes: &[u8]) -> io::Result<Self> {
        let len = bytes.len().next_multiple_of(PAGE_SIZE);
        let span = Span::map(None, len, READ_WRITE, OWN_MEMORY, None)?;
        // SAFETY: the memory is new, writable, and at least as long as `bytes`.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), span.base(), bytes.len());
            let rest = span.base().wrapping_add(bytes.len());
            std::ptr::write_bytes(rest, FILL, len - bytes.len());
        }
        Ok(Self {
            span,
            access: READ_WRITE,
        })
    }

    /// Executable and no longer writable.
    pub(crate) fn turn(&mut self) -> io::Result<()> {
        protect(&self.span, 0..self.span.len(), READ_EXECUTE)?;
        self.access = READ_EXECUTE;
        Ok(())
    }

    pub(crate) fn into_mapped(self, len: usize) -> Mapped {
        Mapped::part(&Arc::new(self.span), len)
    }

    /// Puts them in the place of the pages at `at`. If it fails these are as they
    /// were, but for a kernel that has no memory for its own tables: they may be gone.
    ///
    /// # Safety
    /// The pages there are the caller's own, and nothing that Rust knows about
    /// is in them.
    pub(crate) unsafe fn move_to(self, at: *mut u8) -> io::Result<()> {
        // SAFETY: the source is ours, and readable; the caller answers for what is
        // replaced.
        match unsafe { move_pages(self.span.base(), at, self.span.len(), self.access) } {
            Moved::Whole => {
                // The addresses are no longer ours.
                std::mem::forget(self);
                Ok(())
            }
            Moved::Copied => Ok(()),
            Moved::Refused(error) | Moved::Lost(error) => Err(error),
        }
    }
}

/// What became of pages that were to be moved, and of those in whose place.
enum Moved {
    /// Nothing is where they were.
    Whole,
    /// They are in both places.
    Copied,
    /// Nothing has changed.
    Refused(io::Error),
    /// Nothing of the caller's is in the place any more: the addresses are free, or
    /// somebody else's.
    Lost(io::Error),
}

/// Puts pages with this access in the place of others.
///
/// `mremap` unmaps what is in the place before it has all the memory that it needs
/// for the rest. (With `MREMAP_DONTUNMAP` also before it looks at `RLIMIT_AS` and the
/// overcommit limit, which is why that is not used here.)
///
/// # Safety
/// Both ranges, whole pages, are the caller's own, and nothing that Rust knows about
/// is in them. Those at `from` are readable.
unsafe fn move_pages(from: *mut u8, to: *mut u8, len: usize, access: c_int) -> Moved {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: as promised by the caller.
    if unsafe { libc::mremap(from.cast(), len, len, flags, to) } != libc::MAP_FAILED {
        return Moved::Whole;
    }
    let error = io::Error::last_os_error();
    // SAFETY: the source is as it was.
    unsafe { copy_to_gap(from, to, len, access, error) }
}

/// After a move that failed with `error`: copies the pages, if those in whose place
/// they were to be are gone.
///
/// # Safety
/// The `len` bytes at `from` are readable.
unsafe fn copy_to_gap(
    from: *const u8,
    to: *mut u8,
    len: usize,
    access: c_int,
    error: io::Error,
) -> Moved {
    let gap = match Span::map(Some(to.addr()), len, READ_WRITE, OWN_MEMORY, None) {
        Ok(gap) => gap,
        // There was no gap. Another thread could only have mapped something there
        // since the call above.
        Err(exists) if exists.raw_os_error() == Some(libc::EEXIST) => {
            return Moved::Refused(error);
        }
        Err(_) => return Moved::Lost(error),
    };
    // SAFETY: as promised by the caller; the pages of `gap` are new and writable.
    unsafe { std::ptr::copy_nonoverlapping(from, gap.base(), len) };
    if protect(&gap, 0..len, access).is_err() {
        return Moved::Lost(error);
    }
    // The place is the caller's.
    std::mem::forget(gap);
    Moved::Copied
}

/// Changes the access to `range`, in bytes, of `span`.
fn protect(span: &Span, range: Range<usize>, access: c_int) -> io::Result<()> {
    if range.end > span.len() || range.is_empty() {
        return Err(outside());
    }
    let start = span.base().wrapping_add(range.start);
    // SAFETY: the memory is the span's own.
    outcome(unsafe { libc::mprotect(start.cast(), range.len(), access) })
}

/// Where versions of pages are prepared, and the place that they are moved to.
/// Ranges are numbers of pages.
///
/// # Invariants
/// * Both spans have the same length, `live.len()` pages.
/// * Unless `lost`, a page of `code` is readable and executable if it is live; else
///   it can't be accessed.
#[derive(Debug)]
pub(crate) struct Staging {
    code: Arc<Span>,
    /// Gone when the region is sealed, or when somebody else has got addresses of it.
    stage: Option<Span>,
    live: Vec<bool>,
    /// The addresses of some pages of `code` are free, or somebody else's.
    lost: bool,
}

fn bytes_of(pages: &Range<usize>) -> Range<usize> {
    pages.start * PAGE_SIZE..pages.end * PAGE_SIZE
}

impl Staging {
    /// The place is at `at`, as in [`Span::map`].
    pub(crate) fn new(at: Option<usize>, capacity: usize) -> io::Result<Self> {
        let code = Span::map(at, capacity, libc::PROT_NONE, OWN_MEMORY, None)?;
        let stage = Span::map(None, capacity, READ_WRITE, OWN_MEMORY, None)?;
        Ok(Self {
            code: Arc::new(code),
            stage: Some(stage),
            live: vec![false; capacity / PAGE_SIZE],
            lost: false,
        })
    }

    fn stage(&self) -> io::Result<&Span> {
        self.stage.as_ref().ok_or_else(no_memory)
    }

    /// Writable copies of the newest versions of `run`; 0xCC where there is none.
    pub(crate) fn prepare(&mut self, run: Range<usize>) -> io::Result<&mut [u8]> {
        self.renew()?;
        let bytes = bytes_of(&run);
        protect(self.stage()?, bytes.clone(), READ_WRITE)?;
        let live = self.live.get(run).ok_or_else(outside)?;
        let start = self.stage()?.base().wrapping_add(bytes.start);
        for (index, live) in live.iter().enumerate() {
            let offset = index * PAGE_SIZE;
            let page = start.wrapping_add(offset);
            let old = self.code.base().wrapping_add(bytes.start + offset);
            // SAFETY: `protect` has checked the bounds and made the page of the
            // stage writable; by the type invariant, as nothing is lost (`renew`), a
            // live page is readable.
            unsafe {
                if *live {
                    std::ptr::copy_nonoverlapping(old, page, PAGE_SIZE);
                } else {
                    std::ptr::write_bytes(page, FILL, PAGE_SIZE);
                }
            }
        }
        // SAFETY: as above; the borrow of `self` keeps everyone else away.
        Ok(unsafe { std::slice::from_raw_parts_mut(start, bytes.len()) })
    }

    /// Makes prepared pages executable, and no longer writable.
    pub(crate) fn turn(&mut self, run: Range<usize>) -> io::Result<()> {
        protect(self.stage()?, bytes_of(&run), READ_EXECUTE)
    }

    /// Puts pages that were turned in the place of the old versions, in one step.
    pub(crate) fn place(&mut self, run: Range<usize>) -> io::Result<()> {
        let bytes = bytes_of(&run);
        self.live.get(run.clone()).ok_or_else(outside)?;
        let from = self.stage()?.base().wrapping_add(bytes.start);
        let to = self.code.base().wrapping_add(bytes.start);
        // SAFETY: both ranges are ours, by the type invariant as long as `live`; who
        // has turned the pages has found nothing lost (`prepare`).
        match unsafe { move_pages(from, to, bytes.len(), READ_EXECUTE) } {
            Moved::Whole => self.close_gap(bytes),
            Moved::Copied => {}
            Moved::Refused(error) => return Err(error),
            Moved::Lost(error) => {
                self.lose();
                return Err(error);
            }
        }
        if let Some(live) = self.live.get_mut(run) {
            live.fill(true);
        }
        Ok(())
    }

    /// Gets the addresses of the stage back from which pages were moved. If that is
    /// refused, or if another thread was faster, the next version is prepared
    /// elsewhere.
    fn close_gap(&mut self, bytes: Range<usize>) {
        let Some(stage) = self.stage.take() else {
            return;
        };
        let at = stage.base().wrapping_add(bytes.start).addr();
        match Span::map(Some(at), bytes.len(), READ_WRITE, OWN_MEMORY, None) {
            Ok(gap) => {
                std::mem::forget(gap);
                // INVARIANT: it is whole again.
                self.stage = Some(stage);
            }
            Err(_) => stage.unmap_around(bytes),
        }
    }

    /// The span is left to itself, as it would unmap what may be somebody else's.
    fn lose(&mut self) {
        self.lost = true;
        std::mem::forget(Arc::clone(&self.code));
    }

    /// How many pages of `run` have a version.
    pub(crate) fn live_pages(&self, run: Range<usize>) -> usize {
        let live = self.live.get(run).unwrap_or_default();
        live.iter().filter(|live| **live).count()
    }

    /// The first `len` bytes of the code.
    pub(crate) fn code(&self, len: usize) -> Mapped {
        Mapped::part(&self.code, len)
    }

    /// Gets a stage if there is none; an error if part of the code is lost.
    pub(crate) fn renew(&mut self) -> io::Result<()> {
        if self.lost {
            return Err(no_memory());
        }
        if self.stage.is_none() {
            let len = self.code.len();
            self.stage = Some(Span::map(None, len, READ_WRITE, OWN_MEMORY, None)?);
        }
        Ok(())
    }

    /// No page will be prepared any more.
    pub(crate) fn abandon(&mut self) {
        self.stage = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::fork::tests::in_child;

    const LEN: usize = 3 * PAGE_SIZE;

    /// The second page has a version that begins with 1, and the next one, with 2, is
    /// turned.
    fn stage() -> Staging {
        let mut stage = Staging::new(None, LEN).unwrap();
        for number in 1..3 {
            stage.prepare(1..2).unwrap()[0] = number;
            stage.turn(1..2).unwrap();
            if number == 1 {
                stage.place(1..2).unwrap();
            }
        }
        stage
    }

    fn pages(stage: &Staging) -> (*mut u8, *mut u8) {
        let page = |span: &Span| span.base().wrapping_add(PAGE_SIZE);
        (page(stage.stage().unwrap()), page(&stage.code))
    }

    fn unmap(at: *mut u8) {
        // SAFETY: the page is the test's own.
        assert_eq!(unsafe { libc::munmap(at.cast(), PAGE_SIZE) }, 0);
    }

    fn copy_to_gap(from: *mut u8, to: *mut u8) -> Moved {
        // SAFETY: a page of the stage is readable.
        unsafe { super::copy_to_gap(from, to, PAGE_SIZE, READ_EXECUTE, no_memory()) }
    }

    fn first_byte(at: *mut u8) -> u8 {
        // SAFETY: what is there is readable.
        unsafe { at.read() }
    }

    /// In a process of its own, where no other thread maps anything.
    fn alone(test: fn()) {
        let work = || u8::from(std::panic::catch_unwind(test).is_ok());
        assert_eq!(in_child(work), 1);
    }

    /// As a move that fails too late leaves it.
    #[test]
    fn what_a_failed_move_has_unmapped_is_put_there() {
        alone(|| {
            let stage = stage();
            let (from, to) = pages(&stage);
            assert!(matches!(copy_to_gap(from, to), Moved::Refused(_)));
            assert_eq!(first_byte(to), 1);
            unmap(to);
            assert!(matches!(copy_to_gap(from, to), Moved::Copied));
            assert_eq!((first_byte(from), first_byte(to)), (2, 2));
        });
    }

    /// Nobody unmaps it, reads it or publishes it.
    #[test]
    fn what_others_have_mapped_in_a_place_that_was_lost_is_left_alone() {
        alone(|| {
            let mut stage = stage();
            let (_, to) = pages(&stage);
            unmap(to);
            stage.lose();
            let other = Span::map(Some(to.addr()), PAGE_SIZE, READ_WRITE, OWN_MEMORY, None);
            let other = other.unwrap();
            let error = stage.prepare(1..2).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
            drop(stage);
            assert_eq!(first_byte(other.base()), 0);
        });
    }

    #[test]
    fn what_others_have_mapped_in_the_stage_is_left_alone() {
        alone(|| {
            let mut stage = stage();
            let (from, to) = pages(&stage);
            // Another thread, between the move and the mapping that closes the gap.
            unmap(from);
            let other = Span::map(Some(from.addr()), PAGE_SIZE, READ_WRITE, OWN_MEMORY, None);
            let other = other.unwrap();
            stage.close_gap(bytes_of(&(1..2)));
            assert!(stage.stage.is_none());
            // Both pages around it are gone, and it is not.
            for page in [from.wrapping_sub(PAGE_SIZE), from.wrapping_add(PAGE_SIZE)] {
                let free = Span::map(Some(page.addr()), PAGE_SIZE, READ_WRITE, OWN_MEMORY, None);
                drop(free.unwrap());
            }
            assert_eq!(first_byte(other.base()), 0);
            // The next version is prepared elsewhere.
            assert_eq!(stage.prepare(1..2).unwrap()[0], 1);
            stage.turn(1..2).unwrap();
            stage.place(1..2).unwrap();
            assert_eq!(first_byte(to), 1);
        });
    }
}
