// SPDX-License-Identifier: MIT OR Apache-2.0

//! One mapped copy of a table's stubs, with data pages of its own: the mapping,
//! and all accesses to slots.
//!
//! A copy is a reservation of data pages, over whose first part the code is mapped.
//! Neither is ever both writable and executable. The kernel's region and a memory
//! file are mapped again for each copy, so all copies share the physical pages of
//! the code; pages that were turned executable in place can't be shared, and each
//! copy has its own.
#![expect(unsafe_code, reason = "this is the file for it")]

use crate::frame::{Cover, Known};
use crate::stub::{STUB, Shape, TRAP};
use jitfd::Error;
use jitfd::internal::Call;
use jitfd::internal::{SharedCode, Span};
use std::ffi::c_void;
use std::ptr::{NonNull, without_provenance_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

/// What a stub loads.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Slot {
    context: AtomicPtr<c_void>,
    target: AtomicPtr<c_void>,
}

impl Slot {
    /// The target comes last: who finds it there finds its context, too.
    #[inline]
    pub(crate) fn bind(&self, target: *const c_void, context: *mut c_void) {
        self.context.store(context, Ordering::Relaxed);
        self.target.store(target.cast_mut(), Ordering::Release);
    }

    /// The target goes first: nobody finds it without its context. Returns whether it
    /// had another target than the trap.
    #[inline]
    fn clear(&self, trap: *mut c_void) -> bool {
        if self.target.load(Ordering::Relaxed) == trap {
            return false;
        }
        self.target.store(trap, Ordering::Relaxed);
        self.context.store(std::ptr::null_mut(), Ordering::Release);
        true
    }

    pub(crate) fn context(&self) -> *mut c_void {
        self.context.load(Ordering::Acquire)
    }
}

/// The address of a stub.
///
/// # Invariants
/// It was made by [`Copy::stub`], or somebody has promised so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stub(NonNull<u8>);

impl Stub {
    /// # Safety
    /// `address` is that of a stub, from [`as_ptr`](Self::as_ptr).
    #[inline]
    pub(crate) unsafe fn from_ptr(address: *const c_void) -> Self {
        // INVARIANT: as promised by the caller.
        // SAFETY: the address of a mapping is not null.
        Self(unsafe { NonNull::new_unchecked(address.cast_mut().cast()) })
    }

    #[inline]
    pub(crate) fn as_ptr(self) -> *const c_void {
        self.0.as_ptr().cast()
    }

    /// # Safety
    /// Its copy has this shape, and is mapped for as long as the slot is used.
    #[inline]
    pub(crate) unsafe fn slot<'a>(self, shape: Shape) -> &'a Slot {
        let stub = shape.offset(self.0.as_ptr().addr());
        let slot = self.0.as_ptr().wrapping_sub(stub);
        let slot = slot.wrapping_add(shape.slot(stub)).cast();
        // SAFETY: by the invariants it is a slot of the copy, in memory that is
        // readable and writable, zeroed at first, aligned, and accessed by atomics
        // only.
        unsafe { &*slot }
    }

    /// Nobody's from now on: a call ends in its trap. Returns whether it was
    /// somebody's: nothing is changed in what was cleared before.
    ///
    /// # Safety
    /// As [`slot`](Self::slot).
    #[inline]
    pub(crate) unsafe fn clear(self, shape: Shape) -> bool {
        let trap = self.0.as_ptr().wrapping_add(TRAP);
        // SAFETY: as promised by the caller.
        unsafe { self.slot(shape) }.clear(trap.cast())
    }

    /// The number of its copy, and its own number in that.
    ///
    /// # Safety
    /// As [`slot`](Self::slot).
    pub(crate) unsafe fn numbers(self, shape: Shape) -> (usize, usize) {
        let offset = shape.offset(self.0.as_ptr().addr());
        let first = self.0.as_ptr().wrapping_sub(offset);
        // SAFETY: the copy starts with a stub, and is mapped.
        let owner = unsafe { Stub(NonNull::new_unchecked(first)).slot(shape) };
        (owner.context().addr(), offset / STUB)
    }
}

// SAFETY: an address; using it is unsafe.
unsafe impl Send for Stub {}
// SAFETY: as above.
unsafe impl Sync for Stub {}

/// One copy; unmapped on drop.
///
/// # Invariants
/// * From `start` on the span has the code and the slots of a copy of this shape,
///   at a multiple of its alignment. Only atomics access the slots.
/// * The context of slot 0 is the number of the copy.
#[derive(Debug)]
pub(crate) struct Copy {
    /// Goes first: what is told of the code is true until it is unmapped.
    known: Option<Known>,
    span: Span,
    start: usize,
    shape: Shape,
}

impl Copy {
    pub(crate) fn new(
        source: &SharedCode,
        shape: Shape,
        cover: &Cover,
        number: usize,
    ) -> Result<Self, Error> {
        let room = cover.prepare()?;
        let (span, start) = Span::aligned_data(shape.len(), shape.align())
            .map_err(|error| Error::system(Call::MapData, &error))?;
        let known = None;
        let mut copy = Self {
            known,
            span,
            start,
            shape,
        };
        // SAFETY: the pages are the span's own, new, and of no file.
        unsafe { source.map_over(copy.base(), shape.code_len()) }?;
        let owner = copy.stub(0);
        // SAFETY: the copy is mapped. INVARIANT: this is the number.
        unsafe {
            owner.clear(shape);
            let context = without_provenance_mut(number);
            owner.slot(shape).context.store(context, Ordering::Release);
        }
        // SAFETY: the code is mapped as long as the copy lives, and is what the cover
        // is about. Nobody reads it by the slice.
        copy.known = Some(unsafe {
            let code = std::slice::from_raw_parts(copy.base(), shape.code_len());
            cover.register(room, code)?
        });
        Ok(copy)
    }

    fn base(&self) -> *mut u8 {
        self.span.base().wrapping_add(self.start)
    }

    /// The stub of a slot.
    ///
    /// # Panics
    /// If there is no such slot.
    pub(crate) fn stub(&self, number: usize) -> Stub {
        assert!(number < self.shape.capacity(), "a slot of the copy");
        let stub = self.base().wrapping_add(number * STUB);
        // SAFETY: inside a mapping. INVARIANT: as the type says.
        Stub(unsafe { NonNull::new_unchecked(stub) })
    }
}
