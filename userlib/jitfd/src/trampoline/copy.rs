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

use super::frame::{Cover, Known};
use super::stub::{STUB, Shape, TRAP};
use crate::abi;
use crate::backend::Backend;
use crate::error::{Call, Error};
use crate::handle::{self, MapHandle};
use crate::own::{self, MemoryFile};
use crate::region::RegionOptions;
use crate::sys::{self, Span};
use jitfd_code::Validated;
use std::ffi::c_void;
use std::ptr::{NonNull, without_provenance_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

/// Where the code of the copies comes from. Nothing can be added to it.
#[derive(Debug)]
pub(super) enum Source {
    /// A sealed region of the kernel's.
    Region(MapHandle),
    /// A sealed memory file.
    File(MemoryFile),
    /// To be turned executable, for each copy anew.
    Bytes(Validated),
}

impl Source {
    pub(super) fn new(backend: Backend, code: &Validated) -> Result<Self, Error> {
        match backend {
            Backend::Kernel => region_of(code).map(Self::Region),
            Backend::DualMapping => own::finished(code.bytes()).map(Self::File),
            Backend::ProtectFlips => Ok(Self::Bytes(code.clone())),
        }
    }

    /// Maps the first `len` bytes over what is at `at`.
    ///
    /// # Safety
    /// As [`sys::map_code_over`]; the memory is private and of no file.
    unsafe fn map_over(&self, at: *mut u8, len: usize) -> Result<(), Error> {
        let failed = |call| move |error| Error::system(call, &error);
        // SAFETY: as promised by the caller.
        unsafe {
            match self {
                Self::Region(handle) => {
                    sys::map_code_over(handle.fd()?, at, len).map_err(failed(Call::Map))
                }
                Self::File(file) => {
                    let fd = file.as_fd().map_err(failed(Call::OwnMap))?;
                    sys::map_code_over(fd, at, len).map_err(failed(Call::OwnMap))
                }
                Self::Bytes(code) => own::create_code_at(Backend::ProtectFlips, code.bytes(), at),
            }
        }
    }
}

/// Nobody keeps the handle by which more could be published.
fn region_of(code: &Validated) -> Result<MapHandle, Error> {
    let len = code.len().next_multiple_of(abi::PAGE_SIZE);
    let (map, append) = handle::create(Backend::Kernel, len, RegionOptions::new())?;
    append.append(&[code], Some(0))?;
    append.seal()?;
    Ok(map)
}

/// What a stub loads.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Slot {
    context: AtomicPtr<c_void>,
    target: AtomicPtr<c_void>,
}

impl Slot {
    /// The target comes last: who finds it there finds its context, too.
    #[inline]
    pub(super) fn bind(&self, target: *const c_void, context: *mut c_void) {
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

    pub(super) fn context(&self) -> *mut c_void {
        self.context.load(Ordering::Acquire)
    }
}

/// The address of a stub.
///
/// # Invariants
/// It was made by [`Copy::stub`], or somebody has promised so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stub(NonNull<u8>);

impl Stub {
    /// # Safety
    /// `address` is that of a stub, from [`as_ptr`](Self::as_ptr).
    #[inline]
    pub(super) unsafe fn from_ptr(address: *const c_void) -> Self {
        // INVARIANT: as promised by the caller.
        // SAFETY: the address of a mapping is not null.
        Self(unsafe { NonNull::new_unchecked(address.cast_mut().cast()) })
    }

    #[inline]
    pub(super) fn as_ptr(self) -> *const c_void {
        self.0.as_ptr().cast()
    }

    /// # Safety
    /// Its copy has this shape, and is mapped for as long as the slot is used.
    #[inline]
    pub(super) unsafe fn slot<'a>(self, shape: Shape) -> &'a Slot {
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
    pub(super) unsafe fn clear(self, shape: Shape) -> bool {
        let trap = self.0.as_ptr().wrapping_add(TRAP);
        // SAFETY: as promised by the caller.
        unsafe { self.slot(shape) }.clear(trap.cast())
    }

    /// The number of its copy, and its own number in that.
    ///
    /// # Safety
    /// As [`slot`](Self::slot).
    pub(super) unsafe fn numbers(self, shape: Shape) -> (usize, usize) {
        let offset = shape.offset(self.0.as_ptr().addr());
        let first = self.0.as_ptr().wrapping_sub(offset);
        // SAFETY: the copy starts with a stub, and is mapped.
        let owner = unsafe { Stub(NonNull::new_unchecked(first)).slot(shape) };
        (owner.context().addr(), offset / STUB)
    }

    /// A pointer to it as a function pointer; `None` if `F` has not the size of one.
    ///
    /// # Safety
    /// `F` is a function pointer type.
    pub(super) unsafe fn function<F: std::marker::Copy>(self) -> Option<F> {
        let function = self.as_ptr();
        // SAFETY: the sizes are equal, and a non-null address is a value of a
        // function pointer type.
        (size_of::<F>() == size_of_val(&function))
            .then(|| unsafe { std::mem::transmute_copy(&function) })
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
pub(super) struct Copy {
    /// Goes first: what is told of the code is true until it is unmapped.
    known: Option<Known>,
    span: Span,
    start: usize,
    shape: Shape,
}

impl Copy {
    pub(super) fn new(
        source: &Source,
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
            cover.register(room, code)
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
    pub(super) fn stub(&self, number: usize) -> Stub {
        assert!(number < self.shape.capacity(), "a slot of the copy");
        let stub = self.base().wrapping_add(number * STUB);
        // SAFETY: inside a mapping. INVARIANT: as the type says.
        Stub(unsafe { NonNull::new_unchecked(stub) })
    }
}
