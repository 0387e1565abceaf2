// SPDX-License-Identifier: MIT OR Apache-2.0

//! The two symbols of the GDB JIT interface and the list that hangs on them: all
//! `unsafe` of it.
//!
//! Locks: `LIST` guards the descriptor and all entries. The debugger reads them
//! while the thread that holds the lock stands in `__jit_debug_register_code`.
//!
//! Why it is sound:
//! * The descriptor and the entries are reached through `LIST` only.
//! * An entry is in a box of its own and does not move. It is taken off the list
//!   before the box is freed.
//! * Other code of the program may use the same list, by the same rules of the
//!   interface: add at the head, take off what it has added.
#![expect(unsafe_code, reason = "this is the file for it")]

use crate::cast::to_u64;
use std::arch::global_asm;
use std::ptr::{NonNull, null_mut};
use std::sync::{Mutex, PoisonError};

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
    first: *mut Entry,
}

/// `struct jit_code_entry` of gdb's manual.
#[repr(C)]
struct Entry {
    next: *mut Entry,
    previous: *mut Entry,
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

static LIST: Mutex<()> = Mutex::new(());

/// An object file that debuggers know of until it is dropped.
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
    pub(super) fn new(file: Vec<u8>) -> Self {
        let file = file.into_boxed_slice();
        let entry = Box::new(Entry {
            next: null_mut(),
            previous: null_mut(),
            file: file.as_ptr(),
            len: to_u64(file.len()),
        });
        let entry = NonNull::from(Box::leak(entry));
        // INVARIANT: `link` puts it on the list.
        // SAFETY: the entry is new and on no list.
        unsafe { link(entry) };
        Self { entry, file }
    }

    #[cfg(test)]
    fn is_listed(&self) -> bool {
        let _list = LIST.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the lock is held, and the entries on the list are valid.
        unsafe {
            let mut at = DESCRIPTOR.first;
            while !at.is_null() && at != self.entry.as_ptr() {
                at = (*at).next;
            }
            !at.is_null() && (*at).file == self.file.as_ptr()
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: by the type invariant the entry is on the list, and it came
        // from a box, which nobody refers to after that.
        unsafe {
            unlink(self.entry);
            drop(Box::from_raw(self.entry.as_ptr()));
        }
        // The file is freed after the debugger has forgotten it.
        self.file = Box::default();
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
unsafe fn link(entry: NonNull<Entry>) {
    // A panic can't happen in between.
    let _list = LIST.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the lock is held, and what is on the list is valid.
    unsafe {
        let first = DESCRIPTOR.first;
        (*entry.as_ptr()).next = first;
        if let Some(first) = first.as_mut() {
            first.previous = entry.as_ptr();
        }
        DESCRIPTOR.first = entry.as_ptr();
        tell(entry, REGISTER);
    }
}

/// # Safety
/// `entry` is on the list.
unsafe fn unlink(entry: NonNull<Entry>) {
    let _list = LIST.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the lock is held, and what is on the list is valid.
    unsafe {
        let Entry { next, previous, .. } = *entry.as_ptr();
        match previous.as_mut() {
            Some(previous) => previous.next = next,
            None => DESCRIPTOR.first = next,
        }
        if let Some(next) = next.as_mut() {
            next.previous = previous;
        }
        tell(entry, UNREGISTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_and_go_in_any_order() {
        let mut files: Vec<_> = (0..10)
            .map(|number| Registered::new(vec![number]))
            .collect();
        for at in [9, 0, 4, 4, 0] {
            assert!(files.iter().all(Registered::is_listed));
            files.remove(at);
        }
        assert!(files.iter().all(Registered::is_listed));
    }

    #[test]
    fn the_descriptor_is_what_debuggers_expect() {
        assert_eq!((size_of::<Descriptor>(), size_of::<Entry>()), (24, 32));
        let _list = LIST.lock().unwrap();
        // SAFETY: the lock is held.
        assert_eq!(unsafe { (DESCRIPTOR.version, DESCRIPTOR.action) }, (1, 0));
    }
}
