// SPDX-License-Identifier: MIT OR Apache-2.0

//! A trampoline together with what it was made for: the table that it is in, and the
//! value whose address it carries.
#![expect(unsafe_code, reason = "this is the file for it")]

use crate::marshal::Handler;
use crate::table::Table;
use jitfd::{CodePointer, Entry, Error};
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

/// A table that is there as long as this.
#[derive(Clone, Debug)]
pub enum Held {
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

/// How panics come to go on in the caller of a trampoline.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unwinding {
    /// By this target instead of the one that it has, called in the same way.
    Target(*const c_void),
    /// By this handler: the value is a [`Marshalled`](crate::marshal::Marshalled).
    Handler(Handler),
}

/// # Invariants
/// `trampoline` is one of the table, not released, whose context is the address of
/// the value. What `unwinding` has does the same as what it replaces, but for panics.
#[derive(Debug)]
pub(crate) struct Bound<'f> {
    held: Held,
    trampoline: *const c_void,
    unwinding: Unwinding,
    value: Value<'f>,
}

impl<'f> Bound<'f> {
    /// # Safety
    /// `target`, entered as the callers of the trampoline will do that, takes the address
    /// of a `T` in the context register of the table. What `unwinding` says is right for
    /// such a `T`.
    pub(crate) unsafe fn new<T: 'f>(
        held: Held,
        target: *const c_void,
        unwinding: Unwinding,
        value: T,
    ) -> Result<Self, Error> {
        let value = Value::new(value);
        let context = value.pointer.as_ptr();
        // SAFETY: as promised by the caller; the value lives as long as the trampoline.
        let trampoline = unsafe { held.table().take(target, context) }?.as_ptr();
        // INVARIANT: as it was bound.
        Ok(Self {
            held,
            trampoline,
            unwinding,
            value,
        })
    }

    /// Has panics go on in the caller, from the next call on.
    ///
    /// # Safety
    /// Nobody calls it meanwhile, nor as a function through which no panic may pass.
    pub(crate) unsafe fn unwinding(self) -> Self {
        let context = self.value.pointer;
        match self.unwinding {
            // SAFETY: by the invariant it is one of this table, and has this context.
            Unwinding::Target(target) => unsafe {
                let table = self.held.table();
                table.retarget(self.trampoline, target, context.as_ptr());
            },
            // SAFETY: by the invariant it is a `Marshalled`, which begins with its
            // handler; nobody reads that meanwhile.
            Unwinding::Handler(handler) => unsafe { context.cast::<Handler>().write(handler) },
        }
        self
    }

    pub(crate) fn address(&self) -> usize {
        self.trampoline.expose_provenance()
    }

    /// The trampoline as a function.
    ///
    /// # Safety
    /// It can be called as an `F`.
    pub(crate) unsafe fn entry<F: CodePointer>(&self) -> Entry<'_, F> {
        // SAFETY: it is there as long as this; the rest is promised by the caller.
        unsafe { Entry::at(self.trampoline.cast()) }
    }

    /// It and its table stay for ever.
    ///
    /// # Safety
    /// As [`entry`](Self::entry).
    pub(crate) unsafe fn leak<F: CodePointer>(self) -> F {
        let leaked = std::mem::ManuallyDrop::new(self);
        // SAFETY: as promised by the caller.
        *unsafe { leaked.entry() }
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        // SAFETY: by the invariant it is one of this table; nobody calls it any more,
        // which who got a pointer to it has promised. The value is dropped after this.
        unsafe { self.held.table().release(self.trampoline) };
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
