// SPDX-License-Identifier: GPL-2.0

//! `JIT_CREATE_CODE`: a new mapping that holds exactly the given code. It is
//! the `jit_create_code()` of the mail that this project was made from (28 July
//! 2020, by an x86 maintainer to the kernel's list, in the thread "[RFC]
//! Implement Trampoline File Descriptor").
//!
//! Each code is a small sealed region of its own, mapped at an offset of the
//! `/dev/jit` file that userspace can't ask for: the mmap() that this call
//! makes finds it in the file's list of codes about to be mapped.
//!
//! Lock order: mmap_lock → the list.

use kernel::{
    alloc::KVec,
    bindings, current,
    mm::virt::{flags, vm_flags_t},
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        new_spinlock, Arc, SpinLock,
    },
};

use crate::{
    error::errno,
    ffi,
    file_mapping::FileMapping,
    plan::{
        abi::{CreateCode, CREATE_CODE_FIXED, MAX_REGION, PAGE_SIZE},
        request,
    },
    publish,
    region::{Publishers, Region},
    vma,
};

/// The first page of a file that codes use: beyond any region.
const FIRST_PGOFF: usize = MAX_REGION as usize / PAGE_SIZE;

/// The codes of one file that are about to be mapped.
#[pin_data]
pub(crate) struct Codes {
    next: Atomic<usize>,
    #[pin]
    pending: SpinLock<KVec<Pending>>,
}

struct Pending {
    region: Arc<Region>,
    /// The thread whose call maps it, and so whose mmap() may take it.
    thread: Thread,
}

/// A thread's identity, as long as it is in a call.
#[derive(PartialEq)]
struct Thread(*const bindings::task_struct);

// SAFETY: The pointer is compared, never followed.
unsafe impl Send for Thread {}

impl Thread {
    fn current() -> Self {
        Thread(current!().as_ptr().cast_const())
    }
}

impl Codes {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            next: Atomic::new(FIRST_PGOFF),
            pending <- new_spinlock!(KVec::new(), "jit_codes"),
        })
    }

    /// Takes the code that the caller's mmap() at page `pgoff` is for.
    pub(crate) fn take(&self, pgoff: usize, pages: usize) -> Option<Arc<Region>> {
        let thread = Thread::current();
        let mut pending = self.pending.lock();
        let index = pending.iter().position(|code| {
            code.thread == thread
                && code.region.first_pgoff() == pgoff
                && code.region.covers(pgoff, pages)
                && !code.region.covers(pgoff, pages + 1)
        })?;
        let code = pending.remove(index).ok()?;
        Some(code.region)
    }

    fn announce(&self, region: Arc<Region>) -> Result {
        let thread = Thread::current();
        let mut more = KVec::new();
        loop {
            let mut pending = self.pending.lock();
            if pending.len() < pending.capacity() {
                let _ = pending.push_within_capacity(Pending { region, thread });
                return Ok(());
            }
            if more.capacity() > pending.len() {
                for code in pending.drain_all() {
                    let _ = more.push_within_capacity(code);
                }
                core::mem::swap(&mut *pending, &mut more);
                continue;
            }
            let wanted = pending.len() + 4;
            drop(pending);
            more = KVec::with_capacity(wanted, ffi::CHARGED)?;
        }
    }

    fn forget(&self, pgoff: usize) {
        let mut pending = self.pending.lock();
        let index = pending
            .iter()
            .position(|code| code.region.first_pgoff() == pgoff);
        let removed = index.and_then(|index| pending.remove(index).ok());
        drop(pending);
        drop(removed);
    }

    fn next_pgoff(&self, pages: usize) -> Result<usize> {
        let first = self.next.fetch_add(pages, Relaxed);
        // Offsets of a file are positive 64-bit numbers.
        let end = first.checked_add(pages).ok_or(EOVERFLOW)?;
        if end > i64::MAX as usize / PAGE_SIZE {
            return Err(EOVERFLOW);
        }
        Ok(first)
    }

    /// `JIT_CREATE_CODE` on `file`, whose mappings are in `space`. Returns the
    /// address.
    pub(crate) fn create(
        &self,
        file: *mut bindings::file,
        space: Arc<FileMapping>,
        arg: &CreateCode,
    ) -> Result<usize> {
        let len = usize::try_from(request::create_code(arg).map_err(errno)?)?;
        publish::check_not_stopped()?;
        let fixed = arg.flags & CREATE_CODE_FIXED != 0;
        let pgoff = self.next_pgoff(len / PAGE_SIZE)?;
        let mut region = Region::new(Some(space), pgoff, len as u64, Publishers::Nobody)?;
        publish::fill_new(region.as_mut(), arg.source, arg.len)?;
        let addr = usize::try_from(arg.addr)?;
        if fixed {
            check_replaceable(addr, len)?;
        }
        self.announce(region.into())?;
        let mut flags = ffi::MAP_SHARED;
        if fixed {
            flags |= ffi::MAP_FIXED;
        }
        // SAFETY: The file is open while its ioctl runs.
        let mapped = unsafe {
            bindings::vm_mmap(
                file,
                addr,
                len,
                ffi::PROT_READ_EXEC,
                flags,
                pgoff * PAGE_SIZE,
            )
        };
        if mapped > usize::MAX - bindings::MAX_ERRNO as usize {
            self.forget(pgoff);
            return Err(Error::from_errno(mapped as isize as c_int));
        }
        Ok(mapped)
    }
}

/// Only what is the caller's alone may be replaced: private memory, of a file or of none,
/// and earlier codes. Fails with `EINVAL`.
fn check_replaceable(addr: usize, len: usize) -> Result {
    let current = current!();
    let mm = current.mm().ok_or(EINVAL)?;
    let locked = mm.mmap_read_lock();
    let mut at = addr;
    while at < addr + len {
        let vma = locked.vma_lookup(at).ok_or(EINVAL)?;
        let is_code = vma::lookup(vma, at).is_some_and(|(region, _)| region.is_one_code());
        if !is_code && vma.flags() & SHARED_OR_SPECIAL != 0 {
            return Err(EINVAL);
        }
        at = vma.end();
    }
    Ok(())
}

/// Memory that others may use, too, or that belongs to a driver or to the kernel.
const SHARED_OR_SPECIAL: vm_flags_t = flags::MAYSHARE
    | flags::HUGETLB
    | flags::IO
    | flags::PFNMAP
    | flags::MIXEDMAP
    | flags::DONTEXPAND;

/// Removes the mapping of a code that userspace could not be told of.
pub(crate) fn undo(addr: usize, len: u64) {
    // SAFETY: The caller's own mapping, just made.
    unsafe { bindings::vm_munmap(addr, request::page_round(len) as usize) };
}
