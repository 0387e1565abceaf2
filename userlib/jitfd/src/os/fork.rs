// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a forked child does not share with its parent: which address space this
//! is, and values of which each address space has one of its own. All `unsafe`
//! code for that is here.
//!
//! Locks: none, as a lock that another thread held at the `fork()` is never
//! released in the child.
#![expect(unsafe_code, reason = "this is the file for it")]

use crate::error::Error;
use crate::os::sys::Span;
use jitfd_code::internal::PAGE_SIZE;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::{fmt, io};

/// Why a child can't take a region over.
pub(crate) const FORKED_MEANWHILE: Error =
    Error::Argument("another thread publishes in the region, or did when the process was forked");

/// The number of an address space: threads share it, a forked child has
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressSpace(u64);

/// A number in a page that a forked child finds zeroed; made on first use, and
/// there for ever.
static CELL: AtomicPtr<Cell> = AtomicPtr::new(null_mut());
/// The next number. A child starts with its parent's, so no number is used twice
/// in one line of descent.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// # Invariants
/// The span is a page that can be read and written.
struct Cell(Span);

impl Cell {
    fn new() -> io::Result<Self> {
        let (access, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        let span = Span::map(None, PAGE_SIZE, access, flags, None)?;
        // SAFETY: the page is ours and empty.
        let wiped = unsafe { libc::madvise(span.base().cast(), PAGE_SIZE, libc::MADV_WIPEONFORK) };
        if wiped != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(span))
    }

    fn get() -> io::Result<&'static Self> {
        // SAFETY: it is null, or came from a box that is never freed.
        if let Some(cell) = unsafe { CELL.load(Ordering::Acquire).as_ref() } {
            return Ok(cell);
        }
        let new = Box::into_raw(Box::new(Self::new()?));
        let set = CELL.compare_exchange(null_mut(), new, Ordering::AcqRel, Ordering::Acquire);
        // SAFETY: if another thread was first, nobody else knows of `new`; what is
        // set is never freed.
        unsafe {
            if set.is_err() {
                drop(Box::from_raw(new));
            }
            Ok(&*set.map_or_else(|first| first, |_| new))
        }
    }

    fn number(&self) -> &AtomicU64 {
        // SAFETY: by the type invariant; a page is aligned for it, and is only
        // accessed as this atomic.
        unsafe { AtomicU64::from_ptr(self.0.base().cast()) }
    }
}

impl AddressSpace {
    /// That of the caller.
    pub(crate) fn current() -> io::Result<Self> {
        let cell = Cell::get()?;
        let seen = cell.number().load(Ordering::Acquire);
        if seen != 0 {
            return Ok(Self(seen));
        }
        let new = NEXT.fetch_add(1, Ordering::Relaxed);
        let set = cell
            .number()
            .compare_exchange(0, new, Ordering::AcqRel, Ordering::Acquire);
        Ok(Self(set.map_or_else(|other| other, |_| new)))
    }

    /// Not 0.
    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    pub(crate) fn is_current(self) -> bool {
        Self::current().is_ok_and(|current| current == self)
    }
}

/// The address space that something belongs to.
#[derive(Debug)]
pub(crate) struct Owner(AtomicU64);

impl Owner {
    /// That of the caller.
    pub(crate) fn new() -> io::Result<Self> {
        AddressSpace::current().map(|owner| Self(AtomicU64::new(owner.0)))
    }

    pub(crate) fn is_current(&self) -> bool {
        AddressSpace(self.0.load(Ordering::Relaxed)).is_current()
    }

    /// It belongs to the caller's from now on.
    pub(crate) fn change(&self) -> io::Result<()> {
        self.0.store(AddressSpace::current()?.0, Ordering::Relaxed);
        Ok(())
    }
}

/// A value that each address space makes for itself when it first needs it. A
/// forked child never touches its parent's, which another thread may have been
/// changing at the `fork()`: it forgets that.
///
/// # Invariants
/// `newest` is null, or came from a box whose content does not change and which is
/// not freed before this is.
pub struct PerProcess<T> {
    newest: AtomicPtr<Own<T>>,
}

struct Own<T> {
    owner: AddressSpace,
    value: T,
}

// SAFETY: it owns its values, and gives out shared references only.
unsafe impl<T: Send> Send for PerProcess<T> {}
// SAFETY: as above; a value may be made by one thread and dropped by another.
unsafe impl<T: Send + Sync> Sync for PerProcess<T> {}

impl<T> PerProcess<T> {
    /// No address space has one yet.
    #[expect(clippy::new_without_default, reason = "for statics")]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            newest: AtomicPtr::new(null_mut()),
        }
    }

    /// This address space's value, if it has made one.
    pub fn get(&self) -> Option<&T> {
        self.own(self.newest.load(Ordering::Acquire))
    }

    fn own(&self, newest: *mut Own<T>) -> Option<&T> {
        // SAFETY: by the type invariant; the callers have read it from there.
        let own = unsafe { newest.as_ref() }?;
        own.owner.is_current().then_some(&own.value)
    }

    /// This address space's value, or what `make` makes for it. If several threads
    /// make one at once, the first is taken, and the others are dropped.
    ///
    /// # Errors
    /// That of `make`, or of the system if it does not tell a child from its parent.
    pub fn get_or_make(&self, make: impl FnOnce() -> io::Result<T>) -> io::Result<&T> {
        let newest = self.newest.load(Ordering::Acquire);
        if let Some(value) = self.own(newest) {
            return Ok(value);
        }
        let (owner, value) = (AddressSpace::current()?, make()?);
        let new = Box::into_raw(Box::new(Own { owner, value }));
        // Whatever was there is of another address space.
        let set = self
            .newest
            .compare_exchange(newest, new, Ordering::AcqRel, Ordering::Acquire);
        // SAFETY: if another thread was first, nobody else knows of `new`; what is
        // set is not freed before `self`, by the type invariant.
        unsafe {
            if set.is_err() {
                drop(Box::from_raw(new));
            }
            Ok(&(*set.map_or_else(|first| first, |_| new)).value)
        }
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let newest = *self.newest.get_mut();
        if self.own(newest).is_some() {
            // SAFETY: it came from a box, and nobody refers to it any more.
            drop(unsafe { Box::from_raw(newest) });
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for PerProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PerProcess").field(&self.get()).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::Mutex;

    /// The status of a forked child that does `work`, which must not panic. A
    /// child that hangs dies, which counts as -1; its work takes milliseconds.
    pub(crate) fn in_child(work: impl FnOnce() -> u8) -> i32 {
        // SAFETY: the child does `work` and ends.
        unsafe {
            let pid = libc::fork();
            assert!(pid >= 0, "fork");
            if pid == 0 {
                libc::alarm(300);
                libc::_exit(work().into());
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
            if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                -1
            }
        }
    }

    /// No file of this process, a child, becomes longer.
    pub(crate) fn limit_files(bytes: u64) {
        let limit = libc::rlimit {
            rlim_cur: bytes,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: the limit is valid for reads.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) }, 0);
    }

    /// This process, a child, gets so many bytes of addresses more.
    pub(crate) fn limit_addresses(more: u64) {
        let sizes = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = sizes.split(' ').next().unwrap().parse().unwrap();
        let limit = libc::rlimit {
            rlim_cur: pages * 4096 + more,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: the limit is valid for reads.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
    }

    #[test]
    fn a_child_has_values_of_its_own_and_no_lock_of_its_parents() {
        let value = PerProcess::<Mutex<u8>>::new();
        assert!(value.get().is_none());
        let lock = || {
            let made = value.get_or_make(|| Ok(Mutex::new(0))).unwrap();
            made.lock().unwrap()
        };
        *lock() = 5;
        let held = lock();
        let in_grandchild = || in_child(|| *lock() + 1);
        let status = in_child(|| {
            let none = value.get().is_none();
            *lock() += 2;
            let held = lock();
            if none && in_grandchild() == 1 {
                *held
            } else {
                100
            }
        });
        assert_eq!(status, 2);
        drop(held);
        assert_eq!(*lock(), 5);
    }

    #[test]
    fn a_value_is_dropped_where_it_was_made() {
        struct Counts<'a>(&'a Mutex<u8>);
        impl Drop for Counts<'_> {
            fn drop(&mut self) {
                *self.0.lock().unwrap() += 1;
            }
        }
        let dropped = Mutex::new(0);
        let make = |value: &PerProcess<_>| {
            value.get_or_make(|| Ok(Counts(&dropped))).unwrap();
        };
        let mut value = Some(PerProcess::new());
        make(value.as_ref().unwrap());
        let status = in_child(|| {
            value = None;
            let other = PerProcess::new();
            make(&other);
            drop(other);
            *dropped.lock().unwrap()
        });
        assert_eq!((status, *dropped.lock().unwrap()), (1, 0));
        drop(value);
        assert_eq!(*dropped.lock().unwrap(), 1);
    }
}
