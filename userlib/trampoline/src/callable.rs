// SPDX-License-Identifier: MIT OR Apache-2.0

//! How a closure is called through a shared reference: as often as wanted and by all
//! threads at once, by one at a time, or once.

use std::sync::{Mutex, PoisonError, TryLockError};

/// What can be called through a shared reference: an `Fn`, or one of those below.
pub trait Invoke<Arguments, Returned> {
    /// Calls it.
    fn invoke(&self, arguments: Arguments) -> Returned;
}

/// An `FnMut`, and whether it is running.
#[derive(Debug)]
pub struct Exclusive<F>(Mutex<F>);

/// An `FnOnce` that was not called yet.
#[derive(Debug)]
pub struct Once<F>(Mutex<Option<F>>);

impl<F> Exclusive<F> {
    pub(crate) const fn new(function: F) -> Self {
        Self(Mutex::new(function))
    }

    fn with<R>(&self, call: impl FnOnce(&mut F) -> R) -> R {
        match self.0.try_lock() {
            Ok(mut function) => call(&mut function),
            // It has panicked before, which is its own affair.
            Err(TryLockError::Poisoned(function)) => call(&mut function.into_inner()),
            Err(TryLockError::WouldBlock) => panic!("a closure that changes was called by two"),
        }
    }
}

impl<F> Once<F> {
    pub(crate) const fn new(function: F) -> Self {
        Self(Mutex::new(Some(function)))
    }

    fn take(&self) -> F {
        let mut function = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let function = function.take();
        function.unwrap_or_else(|| panic!("a closure that can be called once was called again"))
    }
}

macro_rules! invoke {
    ($($A:ident)*) => {
        impl<F: Fn($($A),*) -> R, $($A,)* R> Invoke<($($A,)*), R> for F {
            #[allow(non_snake_case, reason = "an argument is named like its type")]
            fn invoke(&self, ($($A,)*): ($($A,)*)) -> R {
                self($($A),*)
            }
        }

        impl<F: FnMut($($A),*) -> R, $($A,)* R> Invoke<($($A,)*), R> for Exclusive<F> {
            #[allow(non_snake_case, reason = "an argument is named like its type")]
            fn invoke(&self, ($($A,)*): ($($A,)*)) -> R {
                self.with(|function| function($($A),*))
            }
        }

        impl<F: FnOnce($($A),*) -> R, $($A,)* R> Invoke<($($A,)*), R> for Once<F> {
            #[allow(non_snake_case, reason = "an argument is named like its type")]
            fn invoke(&self, ($($A,)*): ($($A,)*)) -> R {
                self.take()($($A),*)
            }
        }
    };
}

invoke!();
invoke!(A);
invoke!(A B);
invoke!(A B C);
invoke!(A B C D);
invoke!(A B C D E);
invoke!(A B C D E G);
invoke!(A B C D E G H);
invoke!(A B C D E G H I);
invoke!(A B C D E G H I J);
invoke!(A B C D E G H I J K);
invoke!(A B C D E G H I J K L);
invoke!(A B C D E G H I J K L M);
