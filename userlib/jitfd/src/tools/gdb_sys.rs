// SPDX-License-Identifier: MIT OR Apache-2.0

//! The two symbols of the GDB JIT interface and the list that hangs on them: all
//! `unsafe` of it.
//!
//! Locks: `LIST` guards the descriptor and all entries. The debugger reads them
//! while the thread that holds the lock stands in `__jit_debug_register_code`. A
//! forked child inherits the list, as it does the code, but has a lock of its own.
//!
//! Why it is sound:
//! * The descriptor and the entries are reached through `LIST` only.
//! * An entry is in a box of its own and does not move. It is taken off the list
//!   before the box is freed.
//! * Each change of a list takes effect by one store of `first` or of a `next`, so
//!   from `first` on the list is whole at any moment at which another thread may
//!   fork. A `previous` may be wrong then: who takes the lock first in an address
//!   space sets them all.
//! * Other code of the program may use the same list, by the same rules of the
//!   interface: add at the head, take off what it has added.
#![expect(unsafe_code, reason = "this is the file for it")]

use crate::num::to_u64;
use crate::os::fork::PerProcess;
use std::arch::global_asm;
use std::io;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

// Weak, so that another JIT compiler of the program can define them too; Rust has
// no word for that. The descriptor: version 1, no action, no entries.
global_asm!(
    ".pushsection .text.__jit_debug_register_code, \"ax\", @progbits",
    ".weak __jit_debug_register_code",
    ".type __jit_debug_register_code, @function",
    "__jit_debug_register_code:",
    "nop",
    "ret",
    ".size __jit_debug_register_code, . - __jit_debug_register_code",
    ".popsection",
    ".pushsection .data.__jit_debug_descriptor, \"aw\", @progbits",
    ".weak __jit_debug_descriptor",
    ".type __jit_debug_descriptor, @object",
    ".balign 8",
    "__jit_debug_descriptor:",
    ".long 1, 0",
    ".quad 0, 0",
    ".size __jit_debug_descriptor, . - __jit_debug_descriptor",
    ".popsection",
);

/// `struct jit_descriptor` of gdb's manual.
#[repr(C)]
struct Descriptor {
    version: u32,
    action: u32,
    relevant: *mut Entry,
    first: AtomicPtr<Entry>,
}

/// `struct jit_code_entry` of gdb's manual.
#[repr(C)]
struct Entry {
    next: AtomicPtr<Entry>,
    previous: AtomicPtr<Entry>,
    file: *const u8,
    len: u64,
}

const REGISTER: u32 = 1;
const UNREGISTER: u32 = 2;

unsafe extern "C" {
    #[link_name = "__jit_debug_register_code"]
    fn debugger_stops_here();
    #[link_name = "__jit_debug_descriptor"]
    static mut DESCRIPTOR: Descriptor;
}

/// Where the list begins.
fn first() -> &'static AtomicPtr<Entry> {
    // SAFETY: only its address is taken.
    let first = unsafe { &raw const DESCRIPTOR.first };
    // SAFETY: it is only accessed as this atomic.
    unsafe { &*first }
}

/// Whether the list is known to be whole in both directions.
static LIST: PerProcess<Mutex<bool>> = PerProcess::new();

/// Fails only if this address space has no memory for the lock.
fn lock() -> io::Result<MutexGuard<'static, bool>> {
    let list = LIST.get_or_make(|| Ok(Mutex::new(false)))?;
    // A panic can't happen while it is held.
    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
    if !*list {
        // SAFETY: the lock is held.
        unsafe { mend() };
        *list = true;
    }
    Ok(list)
}

/// Sets each `previous` by what the entries before say.
///
/// # Safety
/// `LIST` is held.
unsafe fn mend() {
    // SAFETY: the lock is held, and what is on the list is valid.
    unsafe {
        let mut previous = null_mut();
        let mut at = first().load(Ordering::Acquire);
        while let Some(entry) = at.as_ref() {
            entry.previous.store(previous, Ordering::Relaxed);
            previous = at;
            at = entry.next.load(Ordering::Acquire);
        }
    }
}

/// An object file that debuggers know of until it is dropped, in the forked
/// children of this process too.
///
/// # Invariants
/// `entry` came from a box and is on the list; its file is `file`.
#[derive(Debug)]
pub(super) struct Registered {
    entry: NonNull<Entry>,
    file: Box<[u8]>,
}

// SAFETY: the entry is only touched under `LIST`.
unsafe impl Send for Registered {}
// SAFETY: as above.
unsafe impl Sync for Registered {}

impl Registered {
    pub(super) fn new(file: Vec<u8>) -> io::Result<Self> {
        let list = lock()?;
        let file = file.into_boxed_slice();
        let entry = Box::new(Entry {
            next: AtomicPtr::default(),
            previous: AtomicPtr::default(),
            file: file.as_ptr(),
            len: to_u64(file.len()),
        });
        let entry = NonNull::from(Box::leak(entry));
        // INVARIANT: `link` puts it on the list.
        // SAFETY: the entry is new and on no list.
        unsafe { link(&list, entry) };
        Ok(Self { entry, file })
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let Ok(list) = lock() else {
            // A child without memory for a lock: all stays as it is, for ever.
            return std::mem::forget(std::mem::take(&mut self.file));
        };
        // SAFETY: by the type invariant the entry is on the list, and it came
        // from a box, which nobody refers to after that.
        unsafe {
            unlink(&list, self.entry);
            drop(Box::from_raw(self.entry.as_ptr()));
        }
        // The file is freed after the debugger has forgotten it.
        self.file = Box::default();
    }
}

/// Files that are registered until this is dropped, in this process or in a forked
/// child. It has no lock, as that could be held by another thread at the `fork()`.
///
/// # Invariants
/// `newest` and each `before` are null, or came from a box that is not freed before
/// this is dropped.
#[derive(Debug, Default)]
pub(super) struct Files {
    newest: AtomicPtr<Kept>,
}

#[derive(Debug)]
struct Kept {
    _file: Registered,
    before: *mut Kept,
}

// SAFETY: it owns its files; a file may be registered by one thread and dropped by
// another.
unsafe impl Send for Files {}
// SAFETY: as above; they are only added to through a shared reference.
unsafe impl Sync for Files {}

impl Files {
    pub(super) fn add(&self, file: Vec<u8>) -> io::Result<()> {
        let mut new = Box::new(Kept {
            _file: Registered::new(file)?,
            before: self.newest.load(Ordering::Acquire),
        });
        // INVARIANT: both come from boxes.
        loop {
            let before = new.before;
            let kept = Box::into_raw(new);
            let set =
                self.newest
                    .compare_exchange(before, kept, Ordering::AcqRel, Ordering::Acquire);
            let Err(newest) = set else { return Ok(()) };
            // SAFETY: nobody else knows of it.
            new = unsafe { Box::from_raw(kept) };
            new.before = newest;
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let mut at = *self.newest.get_mut();
        while !at.is_null() {
            // SAFETY: by the type invariant, and nobody else refers to it now.
            at = unsafe { Box::from_raw(at) }.before;
        }
    }
}

/// Tells the debugger.
///
/// # Safety
/// `LIST` is held, and `entry` valid.
unsafe fn tell(entry: NonNull<Entry>, action: u32) {
    // SAFETY: the lock is held; the function does nothing.
    unsafe {
        DESCRIPTOR.relevant = entry.as_ptr();
        DESCRIPTOR.action = action;
        debugger_stops_here();
        DESCRIPTOR.action = 0;
        DESCRIPTOR.relevant = null_mut();
    }
}

/// # Safety
/// `entry` is valid and on no list.
unsafe fn link(_list: &MutexGuard<'_, bool>, entry: NonNull<Entry>) {
    // SAFETY: the lock is held, and what is on the list is valid.
    unsafe {
        let next = first().load(Ordering::Relaxed);
        entry.as_ref().next.store(next, Ordering::Relaxed);
        if let Some(next) = next.as_ref() {
            next.previous.store(entry.as_ptr(), Ordering::Relaxed);
        }
        // Released: a child sees the entry whole.
        first().store(entry.as_ptr(), Ordering::Release);
        tell(entry, REGISTER);
    }
}

/// # Safety
/// `entry` is on the list.
unsafe fn unlink(_list: &MutexGuard<'_, bool>, entry: NonNull<Entry>) {
    // SAFETY: the lock is held, and what is on the list is valid.
    unsafe {
        let next = entry.as_ref().next.load(Ordering::Relaxed);
        let previous = entry.as_ref().previous.load(Ordering::Relaxed);
        match previous.as_ref() {
            Some(previous) => previous.next.store(next, Ordering::Release),
            None => first().store(next, Ordering::Release),
        }
        if let Some(next) = next.as_ref() {
            next.previous.store(previous, Ordering::Relaxed);
        }
        tell(entry, UNREGISTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::fork::tests::in_child;

    fn is_listed(entry: NonNull<Entry>) -> bool {
        let _list = lock().unwrap();
        let mut at = first().load(Ordering::Relaxed);
        while !at.is_null() && at != entry.as_ptr() {
            // SAFETY: the lock is held, and the entries on the list are valid.
            at = unsafe { (*at).next.load(Ordering::Relaxed) };
        }
        !at.is_null()
    }

    impl Registered {
        fn is_listed(&self) -> bool {
            // SAFETY: by the type invariant.
            let file = unsafe { self.entry.as_ref().file };
            is_listed(self.entry) && file == self.file.as_ptr()
        }
    }

    fn file(number: u8) -> Registered {
        Registered::new(vec![number]).unwrap()
    }

    #[test]
    fn files_come_and_go_in_any_order() {
        let mut files: Vec<_> = (0..10).map(file).collect();
        for at in [9, 0, 4, 4, 0] {
            assert!(files.iter().all(Registered::is_listed));
            files.remove(at);
        }
        assert!(files.iter().all(Registered::is_listed));
    }

    #[test]
    fn a_child_waits_for_no_thread_of_its_parent() {
        let (kept, mut dropped) = (file(0), Some(file(1)));
        let held = lock().unwrap();
        let status = in_child(|| {
            let own = file(2);
            let all = [&kept, dropped.as_ref().unwrap(), &own].map(Registered::is_listed);
            dropped = None;
            u8::from(all == [true; 3] && kept.is_listed() && own.is_listed())
        });
        assert_eq!(status, 1);
        drop(held);
        assert!(kept.is_listed());
    }

    #[test]
    fn a_child_mends_a_list_that_was_being_changed() {
        let (other, mut changed) = (file(0), Some(file(1)));
        let entry = changed.as_ref().unwrap().entry;
        let held = lock().unwrap();
        // What `link` does before its last store, for an entry that the child does
        // not see.
        // SAFETY: the lock is held, and the entry is valid.
        let previous = unsafe { &entry.as_ref().previous };
        let was = previous.swap(other.entry.as_ptr(), Ordering::Relaxed);
        let status = in_child(|| {
            changed = None;
            u8::from(!is_listed(entry) && other.is_listed())
        });
        previous.store(was, Ordering::Relaxed);
        drop(held);
        assert_eq!(status, 1);
    }

    #[test]
    fn a_child_takes_back_what_it_has_inherited() {
        let mut files = Some(Files::default());
        files.as_ref().unwrap().add(vec![0]).unwrap();
        // SAFETY: the file is there, as it is not dropped here.
        let entry = unsafe {
            (*files.as_ref().unwrap().newest.load(Ordering::Relaxed))
                ._file
                .entry
        };
        assert_eq!(
            in_child(|| {
                let inherited = is_listed(entry);
                files = None;
                u8::from(inherited && !is_listed(entry))
            }),
            1
        );
        assert!(is_listed(entry));
        drop(files);
        assert!(!is_listed(entry));
    }

    #[test]
    fn the_descriptor_is_what_debuggers_expect() {
        assert_eq!((size_of::<Descriptor>(), size_of::<Entry>()), (24, 32));
        let _list = lock().unwrap();
        // SAFETY: the lock is held.
        assert_eq!(unsafe { (DESCRIPTOR.version, DESCRIPTOR.action) }, (1, 0));
    }
}
