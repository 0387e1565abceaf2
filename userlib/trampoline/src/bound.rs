// SPDX-License-Identifier: MIT OR Apache-2.0

//! A trampoline together with what it was made for: the table that it is in, and the
//! value whose address it carries.
#![expect(unsafe_code, reason = "this is the file for it")]

use crate::copy::Stub;
use crate::table::Table;
use jitfd::Error;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

/// A table that is there as long as this.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// One of the process.
    Common(&'static Table),
    /// One that somebody has made.
    Own(Arc<Table>),
}

impl Held {
    pub(crate) fn table(&self) -> &Table {
        match self {
            Self::Common(table) => table,
            Self::Own(table) => table,
        }
    }
}

/// # Invariants
/// `entry` is an entry of the table, not released, whose context is the address of
/// the value.
#[derive(Debug)]
pub(crate) struct Bound<'f> {
    held: Held,
    entry: *const c_void,
    _value: Value<'f>,
}

impl<'f> Bound<'f> {
    /// # Safety
    /// `target`, entered as the callers of the entry will do that, takes the address
    /// of a `T` in the context register of the table.
    pub(crate) unsafe fn new<T: 'f>(
        held: Held,
        target: *const c_void,
        value: T,
    ) -> Result<Self, Error> {
        let value = Value::new(value);
        let context = value.pointer.as_ptr();
        // SAFETY: as promised by the caller; the value lives as long as the entry.
        let entry = unsafe { held.table().bind_raw(target, context) }?;
        // INVARIANT: as it was bound.
        Ok(Self {
            held,
            entry,
            _value: value,
        })
    }

    pub(crate) fn entry(&self) -> *const c_void {
        self.entry
    }

    /// The address of the entry as a function pointer; `None` if `F` has not the size
    /// of one.
    ///
    /// # Safety
    /// `F` is a function pointer type.
    pub(crate) unsafe fn function<F: Copy>(&self) -> Option<F> {
        // SAFETY: the entry is one of a table; the rest is promised by the caller.
        unsafe { Stub::from_ptr(self.entry).function() }
    }

    /// It and its table stay for ever.
    pub(crate) fn leak(self) -> *const c_void {
        std::mem::ManuallyDrop::new(self).entry
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        // SAFETY: by the invariant it is one of this table; nobody calls it any more:
        // every pointer to it says so. The value is dropped after this.
        unsafe { self.held.table().release(self.entry) };
    }
}

/// A boxed value of a type that is forgotten.
///
/// # Invariants
/// `pointer` is from a `Box<T>`, and `drop` frees such a box.
#[derive(Debug)]
struct Value<'f> {
    pointer: NonNull<c_void>,
    drop: unsafe fn(NonNull<c_void>),
    of: PhantomData<&'f ()>,
}

impl<'f> Value<'f> {
    fn new<T: 'f>(value: T) -> Self {
        /// # Safety
        /// The pointer is from a `Box<T>`, and not used again.
        unsafe fn free<T>(pointer: NonNull<c_void>) {
            // SAFETY: as promised by the caller.
            drop(unsafe { Box::from_raw(pointer.cast::<T>().as_ptr()) });
        }
        // INVARIANT: as the type says.
        Self {
            pointer: NonNull::from(Box::leak(Box::new(value))).cast(),
            drop: free::<T>,
            of: PhantomData,
        }
    }
}

impl Drop for Value<'_> {
    fn drop(&mut self) {
        // SAFETY: by the type invariant; it is not used again.
        unsafe { (self.drop)(self.pointer) };
    }
}
