// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a forked child needs that has one thread of a busy parent: a lock that it does
//! not wait for in vain, and values that are made once without any.
#![expect(
    unsafe_code,
    reason = "values that are forgotten, and made once, by hand"
)]

use crate::os::fork::{AddressSpace, PerProcess};
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::{fmt, io};

/// A value that one thread uses at a time, also in a forked child.
///
/// The threads of a process take turns by a lock of that process. So who has the turn
/// and finds the value's own lock held knows by whom: by a thread of the parent, at the
/// `fork()`. It will never be released here, and the value may be half changed.
pub struct ForkLock<T> {
    turns: PerProcess<Mutex<()>>,
    /// Not dropped where it may be half changed.
    value: Mutex<ManuallyDrop<T>>,
}

/// The value, and the turn. They are given back in this order.
pub struct Held<'a, T> {
    value: MutexGuard<'a, ManuallyDrop<T>>,
    _turn: MutexGuard<'a, ()>,
}

impl<T> ForkLock<T> {
    /// Around `value`, which nobody holds.
    pub const fn new(value: T) -> Self {
        Self {
            turns: PerProcess::new(),
            value: Mutex::new(ManuallyDrop::new(value)),
        }
    }

    /// Waits for the other threads of this process. `None` if one of the parent had the
    /// value at the `fork()`: nobody will ever get it here. A panic of who has it does
    /// not make it unusable.
    ///
    /// # Errors
    /// The system does not tell a child from its parent.
    pub fn lock(&self) -> io::Result<Option<Held<'_, T>>> {
        let turns = self.turns.get_or_make(|| Ok(Mutex::new(())))?;
        let turn = turns.lock().unwrap_or_else(PoisonError::into_inner);
        let value = match self.value.try_lock() {
            Ok(value) => value,
            Err(TryLockError::Poisoned(value)) => value.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(None),
        };
        Ok(Some(Held { value, _turn: turn }))
    }
}

impl<T> Drop for ForkLock<T> {
    fn drop(&mut self) {
        let mut value = match self.value.try_lock() {
            Ok(value) => value,
            Err(TryLockError::Poisoned(value)) => value.into_inner(),
            // As it was at the fork.
            Err(TryLockError::WouldBlock) => return,
        };
        // SAFETY: not used again.
        unsafe { ManuallyDrop::drop(&mut value) };
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> fmt::Debug for ForkLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForkLock").finish_non_exhaustive()
    }
}

/// A value that is made once and stays for ever, also in forked children: those find
/// it, or make it, and wait for nobody.
///
/// # Invariants
/// It is null, or came from a box that is never freed.
pub struct First<T: 'static>(AtomicPtr<T>);

impl<T: Send + Sync> First<T> {
    /// Nothing made yet.
    #[expect(clippy::new_without_default, reason = "for statics")]
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    /// The value, if there is one.
    pub fn get(&self) -> Option<&'static T> {
        // SAFETY: by the type invariant.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// The value that was first: `new`, or another thread's. Then `new` is dropped.
    pub fn get_or_set(&self, new: T) -> &'static T {
        let new = Box::into_raw(Box::new(new));
        let set = self
            .0
            .compare_exchange(null_mut(), new, Ordering::AcqRel, Ordering::Acquire);
        // SAFETY: by the type invariant; if another thread was first, nobody else knows
        // of `new`.
        unsafe {
            if set.is_err() {
                drop(Box::from_raw(new));
            }
            &*set.map_or_else(|first| first, |_| new)
        }
    }
}

/// What another library makes at its first use, under a lock of its own that a child
/// would wait for in vain if its parent was forked meanwhile.
pub struct FirstUse {
    /// The address space that has begun with it; 0 if none has.
    by: AtomicU64,
    done: AtomicBool,
}

impl FirstUse {
    /// Nothing made yet.
    #[expect(clippy::new_without_default, reason = "for statics")]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            by: AtomicU64::new(0),
            done: AtomicBool::new(false),
        }
    }

    /// Has it made by `work`, if it is not yet. Returns whether it may be used: not if
    /// a thread of the parent was in the middle of that at the `fork()`.
    ///
    /// # Errors
    /// The system does not tell a child from its parent; inside, that of `work`.
    pub fn made<E>(&self, work: impl FnOnce() -> Result<(), E>) -> io::Result<Result<bool, E>> {
        if self.done.load(Ordering::Acquire) {
            return Ok(Ok(true));
        }
        let own = AddressSpace::current()?.number();
        let begun = self
            .by
            .compare_exchange(0, own, Ordering::AcqRel, Ordering::Acquire);
        if begun.is_err_and(|by| by != own) {
            return Ok(Ok(false));
        }
        let made = work();
        self.done.fetch_or(made.is_ok(), Ordering::Release);
        Ok(made.map(|()| true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::fork::tests::in_child;

    #[test]
    fn one_thread_at_a_time() {
        let lock = ForkLock::new(0_u32);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let mut held = lock.lock().unwrap().unwrap();
                        let seen = *held;
                        std::hint::spin_loop();
                        *held = seen + 1;
                    }
                });
            }
        });
        assert_eq!(*lock.lock().unwrap().unwrap(), 4000);
    }

    #[test]
    fn what_was_held_at_the_fork_is_nobodys_in_the_child() {
        let lock = ForkLock::new(());
        let free = || u8::from(lock.lock().unwrap().is_some());
        assert_eq!(in_child(free), 1);
        let held = lock.lock().unwrap();
        let status = in_child(|| {
            let grandchild = in_child(|| 10 + free());
            free() + u8::from(grandchild == 10)
        });
        assert_eq!(status, 1);
        drop(held);
        assert_eq!(free(), 1);
    }

    #[test]
    fn a_value_that_is_half_changed_is_not_dropped() {
        struct Counts<'a>(&'a Mutex<u8>);
        impl Drop for Counts<'_> {
            fn drop(&mut self) {
                *self.0.lock().unwrap() += 1;
            }
        }
        let dropped = Mutex::new(0);
        let lock = ForkLock::new(Counts(&dropped));
        let held = lock.lock().unwrap();
        let status = in_child(|| {
            // SAFETY: the child's copy, which ends without dropping it again.
            drop(unsafe { std::ptr::read(&raw const lock) });
            *dropped.lock().unwrap()
        });
        assert_eq!((status, *dropped.lock().unwrap()), (0, 0));
        drop(held);
        drop(lock);
        assert_eq!(*dropped.lock().unwrap(), 1);
    }

    #[test]
    fn what_was_begun_at_the_fork_is_not_waited_for() {
        let first = FirstUse::new();
        let use_it = || u8::from(first.made(|| Ok::<_, ()>(())).unwrap().unwrap());
        assert_eq!(in_child(use_it), 1);
        assert_eq!(first.made(|| Err(7)).unwrap(), Err(7));
        let done = first.made(|| {
            assert_eq!(in_child(|| 10 + use_it()), 10);
            Ok::<_, ()>(())
        });
        assert_eq!(done.unwrap(), Ok(true));
        assert_eq!(in_child(use_it), 1);
    }

    #[test]
    fn the_first_value_stays() {
        static FIRST: First<u8> = First::new();
        assert_eq!(FIRST.get(), None);
        assert_eq!(FIRST.get_or_set(1), &1);
        assert_eq!(FIRST.get_or_set(2), &1);
        assert_eq!(in_child(|| FIRST.get().copied().unwrap_or(0)), 1);
    }
}
