// SPDX-License-Identifier: GPL-2.0

//! A mutex whose waiters can be killed, which the kernel crate's can't.
//!
//! Context: process. Held over one publication of one region.

use core::{
    cell::UnsafeCell,
    ops::{Deref, DerefMut},
};

use kernel::{
    bindings,
    prelude::*,
    sync::LockClassKey,
    types::{NotThreadSafe, Opaque},
};

use pin_init::Wrapper;

use crate::ffi;

/// A mutex.
///
/// # Invariants
///
/// `inner` is initialised, and guards `data`.
#[pin_data]
pub(crate) struct PublishState<T> {
    #[pin]
    inner: Opaque<bindings::mutex>,
    #[pin]
    data: UnsafeCell<T>,
}

// SAFETY: The mutex lets one thread at a time to the data.
unsafe impl<T: Send> Send for PublishState<T> {}
// SAFETY: As above.
unsafe impl<T: Send> Sync for PublishState<T> {}

impl<T> PublishState<T> {
    /// An unlocked one. The data is made in its place: it may be large.
    pub(crate) fn new(
        data: impl Init<T>,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(PublishState {
            // INVARIANT: Initialised here.
            // SAFETY: `slot` is memory for a mutex; name and key live for ever.
            inner <- Opaque::ffi_init(|slot| unsafe {
                bindings::__mutex_init(slot, name.as_char_ptr(), key.as_ptr())
            }),
            data <- UnsafeCell::pin_init(data),
        })
    }

    /// Waits for it. Fails with `EINTR` if the caller is killed meanwhile.
    pub(crate) fn lock(&self) -> Result<Guard<'_, T>> {
        // SAFETY: By the type invariants.
        match unsafe { ffi::jit_mutex_lock_killable(self.inner.get()) } {
            0 => Ok(Guard(self, NotThreadSafe)),
            _ => Err(EINTR),
        }
    }
}

/// A [`PublishState`] that is locked.
///
/// # Invariants
///
/// This thread holds the mutex, and gives it back.
pub(crate) struct Guard<'a, T>(&'a PublishState<T>, NotThreadSafe);

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariants nobody else uses the data.
        unsafe { &*self.0.data.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: As above.
        unsafe { &mut *self.0.data.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: Held by the type invariants.
        unsafe { bindings::mutex_unlock(self.0.inner.get()) };
    }
}
