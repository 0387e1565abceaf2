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
use crate::fork_sys::AddressSpace;
use crate::sys::{Mapped, Span};
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
        self.file()?
            .write_all_at(bytes, crate::cast::to_u64(offset))
    }

    pub(crate) fn read(&self, bytes: &mut [u8], offset: usize) -> io::Result<()> {
        self.file()?
            .read_exact_at(bytes, crate::cast::to_u64(offset))
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

/// `EFBIG` if `RLIMIT_FSIZE` does not let a file become `len` bytes long. The kernel
/// would not only refuse that, but end the process (SIGXFSZ).
pub(crate) fn may_become(len: usize) -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit is valid for writes.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) } == 0;
    // A filter of system calls that hides the limit is no reason to give up.
    if known && limit.rlim_cur < crate::cast::to_u64(len) {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    Ok(())
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

/// Pages with finished code, which become executable and may be moved.
///
/// # Invariants
/// The span is whole pages of private anonymous memory.
pub(crate) struct Pages(Span);

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
        Ok(Self(span))
    }

    /// Executable and no longer writable.
    pub(crate) fn turn(&mut self) -> io::Result<()> {
        protect(&self.0, 0..self.0.len(), READ_EXECUTE)
    }

    pub(crate) fn into_mapped(self, len: usize) -> Mapped {
        Mapped::part(&Arc::new(self.0), len)
    }

    /// Puts them in the place of the pages at `at`.
    ///
    /// # Safety
    /// The pages there are the caller's own, and nothing that Rust knows about
    /// is in them.
    pub(crate) unsafe fn move_to(self, at: *mut u8) -> io::Result<()> {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let (from, len) = (self.0.base().cast(), self.0.len());
        // SAFETY: the source is ours; the caller answers for what is replaced.
        if unsafe { libc::mremap(from, len, len, flags, at) } == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // The addresses are no longer ours.
        std::mem::forget(self);
        Ok(())
    }
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
/// * A page of `code` is readable and executable if it is live; else it can't be
///   accessed.
#[derive(Debug)]
pub(crate) struct Stage {
    code: Arc<Span>,
    /// Gone when the region is sealed.
    stage: Option<Span>,
    live: Vec<bool>,
}

fn bytes_of(pages: &Range<usize>) -> Range<usize> {
    pages.start * PAGE_SIZE..pages.end * PAGE_SIZE
}

impl Stage {
    /// The place is at `at`, as in [`Span::map`].
    pub(crate) fn new(at: Option<usize>, capacity: usize) -> io::Result<Self> {
        let code = Span::map(at, capacity, libc::PROT_NONE, OWN_MEMORY, None)?;
        let stage = Span::map(None, capacity, READ_WRITE, OWN_MEMORY, None)?;
        Ok(Self {
            code: Arc::new(code),
            stage: Some(stage),
            live: vec![false; capacity / PAGE_SIZE],
        })
    }

    fn stage(&self) -> io::Result<&Span> {
        self.stage
            .as_ref()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EROFS))
    }

    /// Writable copies of the newest versions of `run`; 0xCC where there is none.
    pub(crate) fn prepare(&mut self, run: Range<usize>) -> io::Result<&mut [u8]> {
        let bytes = bytes_of(&run);
        protect(self.stage()?, bytes.clone(), READ_WRITE)?;
        let live = self.live.get(run).ok_or_else(outside)?;
        let start = self.stage()?.base().wrapping_add(bytes.start);
        for (index, live) in live.iter().enumerate() {
            let offset = index * PAGE_SIZE;
            let page = start.wrapping_add(offset);
            let old = self.code.base().wrapping_add(bytes.start + offset);
            // SAFETY: `protect` has checked the bounds and made the page of the
            // stage writable; by the type invariant a live page is readable.
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
        let live = self.live.get_mut(run).ok_or_else(outside)?;
        let stage = self.stage.as_ref().ok_or_else(outside)?;
        let from = stage.base().wrapping_add(bytes.start);
        let to = self.code.base().wrapping_add(bytes.start);
        // The stage keeps its addresses: nobody else can get them meanwhile.
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        let len = bytes.len();
        // SAFETY: both ranges are ours, by the type invariant as long as `live`.
        let moved = unsafe { libc::mremap(from.cast(), len, len, flags, to) };
        if moved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        live.fill(true);
        Ok(())
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

    /// Gets what [`give_up`](Self::give_up) gave up.
    pub(crate) fn renew(&mut self) -> io::Result<()> {
        if self.stage.is_none() {
            self.stage = Some(Span::map(
                None,
                self.code.len(),
                READ_WRITE,
                OWN_MEMORY,
                None,
            )?);
        }
        Ok(())
    }

    /// No page will be prepared any more.
    pub(crate) fn give_up(&mut self) {
        self.stage = None;
    }
}
