// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory for libffi's closures, whose code is an entry of a table.
//!
//! ```text
//!   caller --> entry --> forward --> libffi's marshalling
//!              r10 =     jmp [r10 + 24]
//!              closure
//!
//!   allocation: | header: entry, length | ffi_closure ...      |
//!                                         ^ r10   ^ + 24: where libffi goes on
//! ```
//!
//! What `ffi_prep_closure_loc` writes at the start of an `ffi_closure` on x86-64 is
//! code that loads its own address into `r10` and jumps to what it finds 24 bytes
//! behind, in memory that was to be executable. Here nothing executes it: the entry
//! and `forward` do the same. Where the closure goes is known only when it is
//! prepared, so an entry can't have it as its target.
#![expect(unsafe_code, reason = "this is the file for it")]

use crate::table::Table;
use jitfd::{Error, Jit, Register};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::arch::global_asm;
use std::ffi::c_void;
use std::ptr::NonNull;

/// `sizeof(ffi_closure)` since libffi 3.4: 32 bytes of code and destination, the
/// call interface, the function, its data. Before, it was 48.
const CLOSURE: usize = 56;

/// Where in a closure its destination is, since libffi 3.4.
const DESTINATION: usize = 24;

global_asm!(
    ".pushsection .text.jitfd_trampoline_libffi, \"ax\", @progbits",
    ".p2align 4",
    // Another copy of this library in the program has the same.
    ".weak jitfd_trampoline_libffi",
    ".hidden jitfd_trampoline_libffi",
    ".type jitfd_trampoline_libffi, @function",
    "jitfd_trampoline_libffi:",
    ".cfi_startproc",
    "endbr64",
    "jmp qword ptr [r10 + {destination}]",
    ".cfi_endproc",
    ".size jitfd_trampoline_libffi, . - jitfd_trampoline_libffi",
    ".popsection",
    destination = const DESTINATION,
);

unsafe extern "C" {
    /// Goes where the closure in `r10` says.
    fn jitfd_trampoline_libffi();
}

/// In front of each closure.
#[repr(C, align(16))]
struct Header {
    entry: *const c_void,
    layout: Layout,
}

/// What libffi's `ffi_closure_alloc` and `ffi_closure_free` do, with the code in
/// `jitfd`: for libffi 3.4 or newer on x86-64, unchanged, in processes where no
/// memory may become executable.
///
/// ```
/// use jitfd::{Fallback, Jit};
/// use jitfd_trampoline::LibffiClosures;
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let closures = LibffiClosures::new(&Jit::open(Fallback::Any)?)?;
/// // 56 is `sizeof(ffi_closure)`.
/// let (closure, code) = closures.alloc(56)?;
/// // ffi_prep_closure_loc(closure, &cif, function, data, code);
/// // ... and `code` is the function pointer.
/// assert_ne!(closure.cast_const(), code);
/// // SAFETY: it is from `closures`, and nobody calls its code.
/// unsafe { closures.free(closure) };
/// # Ok(())
/// # }
/// ```
///
/// The C functions `jitfd_ffi_closure_alloc()` and `jitfd_ffi_closure_free()` of
/// `libjitfd` have one for the process; a program that is to stay as it is runs with
/// `LD_PRELOAD=libjitfd_ffi.so`, which has them under libffi's names.
///
/// # How it works
///
/// An entry of a [`Table`] brings the address of the closure in `r10`, where libffi's
/// own code brings it. Making a closure is an allocation of memory and an entry of
/// the table: no system call, mostly. libffi notices that the memory is not its own,
/// and does not use the static trampolines that it may be built with.
///
/// # What does not work
///
/// * libffi before 3.4, where a closure has 48 bytes: [`alloc`](Self::alloc) refuses
///   that.
/// * `ffi_prep_closure()` and `ffi_prep_raw_closure()`, which are told no code
///   address: libffi takes the closure itself for executable. Raw closures with a
///   code address do not work either; libffi's static trampolines have the same limit.
/// * What is written over the code in a closure has no effect: it is not executed.
#[derive(Debug)]
pub struct LibffiClosures {
    /// Its targets are all `jitfd_trampoline_libffi`, its contexts closures that
    /// this has allocated.
    table: Table,
}

impl LibffiClosures {
    /// Without a closure yet.
    ///
    /// # Errors
    /// As [`Table::create`].
    pub fn new(jit: &Jit) -> Result<Self, Error> {
        let table = Table::create(jit, Register::R10)?;
        Ok(Self { table })
    }

    /// Memory for a closure of `size` bytes, which are
    /// `sizeof(ffi_closure)` or more. Returns the `ffi_closure *`, which is writable,
    /// zeroed and aligned to 16 bytes, and the address of its code: what is to be called,
    /// once `ffi_prep_closure_loc` has been. Until then calling it is a call of address 0.
    ///
    /// # Errors
    /// [`Error::Argument`] if `size` is less than 56, or there is no memory of this
    /// size; else as [`Table::bind`].
    pub fn alloc(&self, size: usize) -> Result<(*mut c_void, *const c_void), Error> {
        let layout = layout(size).ok_or(NO_SIZE)?;
        // SAFETY: the layout has room for a header, so it is not empty.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(NO_SIZE)?;
        let header = start.cast::<Header>();
        // SAFETY: the layout has the closure right behind the header.
        let closure = unsafe { header.add(1) }.cast::<c_void>().as_ptr();
        let target = jitfd_trampoline_libffi as *const c_void;
        // SAFETY: the target wants a closure in r10, and goes where that says: to
        // libffi, after it was prepared, which is right to be called as the caller
        // prepared it.
        let code = unsafe { self.table.bind(target, closure) };
        let code = code.map(crate::table::Trampoline::into_raw);
        let code = code.inspect_err(|_| {
            // SAFETY: it was allocated above with this layout, and nobody has it.
            unsafe { dealloc(start.as_ptr(), layout) };
        })?;
        let entry = code;
        // SAFETY: it is there, aligned, and this function's alone.
        unsafe { header.write(Header { entry, layout }) };
        Ok((closure, code))
    }

    /// Gives a closure back. Null is allowed.
    ///
    /// # Safety
    /// `closure` is null, or from [`alloc`](Self::alloc) of this and was not given
    /// back. Nobody calls its code from now on, and nobody uses its memory; calls
    /// that libffi has begun to marshal still do.
    pub unsafe fn free(&self, closure: *mut c_void) {
        let Some(closure) = NonNull::new(closure.cast::<Header>()) else {
            return;
        };
        // SAFETY: as promised by the caller, its header is in front of it.
        let header = unsafe { closure.sub(1) };
        // SAFETY: as above; the entry was bound for it, and is not called.
        unsafe {
            let Header { entry, layout } = header.read();
            self.table.release(entry);
            dealloc(header.as_ptr().cast(), layout);
        }
    }
}

const NO_SIZE: Error =
    Error::Argument("a closure of libffi 3.4 or newer has 56 bytes or more, and fits the memory");

/// A header and a closure.
fn layout(size: usize) -> Option<Layout> {
    if size < CLOSURE {
        return None;
    }
    let size = size.checked_add(size_of::<Header>())?;
    Layout::from_size_align(size, align_of::<Header>()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closures() -> LibffiClosures {
        LibffiClosures::new(&Jit::open(jitfd::Fallback::Any).unwrap()).unwrap()
    }

    type Made = (*mut c_void, *const c_void);

    /// What libffi does with a closure, as far as it concerns this file.
    fn prepare(made: Made, destination: *const c_void, data: usize) {
        let words = made.0.cast::<usize>();
        // SAFETY: a closure has seven words.
        unsafe {
            words.add(DESTINATION / 8).write(destination.addr());
            words.add(6).write(data);
        }
    }

    fn call(made: Made) -> usize {
        // SAFETY: the tests prepare it to be such a function.
        let function: extern "C" fn() -> usize = unsafe { std::mem::transmute(made.1) };
        function()
    }

    global_asm!(
        ".pushsection .text.jitfd_test_libffi, \"ax\", @progbits",
        ".globl jitfd_test_libffi_data",
        ".hidden jitfd_test_libffi_data",
        "jitfd_test_libffi_data:",
        "mov rax, [r10 + 48]",
        "ret",
        ".popsection",
    );

    unsafe extern "C" {
        /// Returns the data of the closure in `r10`.
        fn jitfd_test_libffi_data();
    }

    #[test]
    fn the_closure_comes_in_r10() {
        let closures = closures();
        let all: Vec<_> = (0..5000)
            .map(|number| {
                let made = closures.alloc(CLOSURE + number % 100).unwrap();
                prepare(made, jitfd_test_libffi_data as *const c_void, number);
                assert_eq!(made.0.addr() % 16, 0);
                made
            })
            .collect();
        for (&made, number) in all.iter().zip(0..) {
            assert_eq!(call(made), number);
        }
        for made in all {
            // SAFETY: it is from there, and not called.
            unsafe { closures.free(made.0) };
        }
        // What was given back is used again.
        closures.table.trim();
        assert_eq!(closures.table.stats().copies, 1);
    }

    #[test]
    fn the_size_of_older_versions_is_refused() {
        let closures = closures();
        for size in [0, 48, CLOSURE - 1, usize::MAX, usize::MAX - 15] {
            assert_eq!(closures.alloc(size), Err(NO_SIZE));
        }
        // SAFETY: null is allowed.
        unsafe { closures.free(std::ptr::null_mut()) };
    }
}
