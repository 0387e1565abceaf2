// SPDX-License-Identifier: GPL-2.0

//! One object that is kept for whoever needs it next, without a lock.
//!
//! Context: any.

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Full, Relaxed},
};

/// A box, or none.
///
/// # Invariants
///
/// A pointer that is not null is that of a box, which nobody else owns.
pub(crate) struct Kept<T>(Atomic<*mut T>);

// SAFETY: It only moves a box from one thread to another.
unsafe impl<T: Send> Send for Kept<T> {}
// SAFETY: As above.
unsafe impl<T: Send> Sync for Kept<T> {}

impl<T> Kept<T> {
    /// None.
    pub(crate) const fn none() -> Self {
        Kept(Atomic::new(core::ptr::null_mut()))
    }

    fn exchange(&self, new: *mut T) -> Option<KBox<T>> {
        let old = self.0.xchg(new, Full);
        // SAFETY: By the type invariants; it is ours from now on.
        (!old.is_null()).then(|| unsafe { KBox::from_raw(old) })
    }

    /// Takes what is kept.
    pub(crate) fn take(&self) -> Option<KBox<T>> {
        if self.0.load(Relaxed).is_null() {
            return None;
        }
        self.exchange(core::ptr::null_mut())
    }

    /// Keeps `object`. Returns what was kept instead.
    pub(crate) fn put(&self, object: KBox<T>) -> Option<KBox<T>> {
        // INVARIANT: The box is ours, and nobody else's from now on.
        self.exchange(KBox::into_raw(object))
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}
