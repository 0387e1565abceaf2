// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rust closures as C function pointers.
#![expect(unsafe_code, reason = "binds trampolines to what they were made for")]

use crate::bound::{Bound, Unwinding};
use crate::callable::{Exclusive, Once};
use crate::kind::Kind;
use crate::marshal::{self, Marshalled};
use crate::place::Place;
use crate::register::ContextRegister;
use crate::registers::Registers;
use crate::signature::{Aborting, Callback, Handler};
use jitfd::{CodePointer, Entry, Error};
use std::fmt;
use std::marker::PhantomData;

/// A Rust closure that C can call: it is a function of the type `P`.
///
/// That type is found from the closure's arguments, whose types must be written out:
/// what a [`Callback`] is. Annotate diverging closures `-> ()`.
///
/// ```
/// use jitfd::{Fallback, Jit};
/// use jitfd_trampoline::Closure;
/// use std::ffi::{c_int, c_void};
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let jit = Jit::open(Fallback::Any)?;
/// let mut numbers = [5, 2, 9, 1];
/// let comparisons = AtomicUsize::new(0);
/// let compare = Closure::new(&jit, |a: *const c_void, b: *const c_void| -> c_int {
///     comparisons.fetch_add(1, Ordering::Relaxed);
///     // SAFETY: qsort passes the addresses of two elements.
///     let (a, b) = unsafe { (*a.cast::<i32>(), *b.cast::<i32>()) };
///     a.cmp(&b) as c_int
/// })?;
/// // SAFETY: these are four elements of four bytes, and qsort does not keep the pointer.
/// unsafe { libc::qsort(numbers.as_mut_ptr().cast(), 4, 4, Some(*compare.entry())) };
/// assert_eq!(numbers, [1, 2, 5, 9]);
/// drop(compare);
/// assert!(comparisons.into_inner() >= 3);
/// # Ok(())
/// # }
/// ```
///
/// # Which closures
///
/// | made by | takes | may be called |
/// |---|---|---|
/// | [`new`](Self::new) | `Fn + Send + Sync` | by any thread, by many at once, by itself |
/// | [`new_mut`](Self::new_mut) | `FnMut + Send` | by any thread, by one at a time |
/// | [`new_once`](Self::new_once) | `FnOnce + Send` | by any thread, once |
/// | [`new_local`](Self::new_local) | `Fn` | by the thread that has made it |
/// | [`with_registers`](Self::with_registers) | `Fn(&mut Registers) + Send + Sync` | as by `new` |
///
/// Two mistakes are found: a closure of `new_mut` that is called while it runs, by
/// another thread or by itself, and one of `new_once` that is called again, panic.
///
/// # In which table
///
/// Each of these takes a [`Jit`](jitfd::Jit), for the tables that the process has, or an
/// `Arc<`[`Table`](crate::Table)`>`, which is kept as long as the closure. The context
/// register of that table must be the first in which the closure has no integer
/// argument, or `r10`, which serves all types: the registers are saved, and the
/// arguments read from there.
///
/// ```
/// use jitfd::{Fallback, Jit, Register};
/// use jitfd_trampoline::{Closure, Table};
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let jit = Jit::open(Fallback::Any)?;
/// // For closures without integer arguments.
/// let table = Arc::new(Table::create(&jit, Register::Rdi)?);
/// let half = Closure::new(&table, |number: f64| number / 2.0)?;
/// assert!(Closure::new(&table, |number: i32| number / 2).is_err());
/// # drop(half);
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// A closure that panics ends the program, as every `extern "C"` function does.
/// [`unwinding`](Self::unwinding) makes it one of the type `extern "C-unwind" fn(...)`,
/// through which panics and C++ exceptions pass.
///
/// # What it costs
///
/// A closure is a box with what it captures and a slot of a [`Table`](crate::Table) which
/// the process creates at first use; there is one for each context register. Making one
/// needs no system call, and a call costs the trampoline's three instructions. Only with
/// six or more integer arguments all registers are saved and the arguments read from
/// there.
/// The type `T` says whether it may go to other threads: `()` may, `*const ()`, what
/// [`new_local`](Self::new_local) makes, may not.
pub struct Closure<'f, P: CodePointer, T = ()> {
    bound: Bound<'f>,
    of: PhantomData<(P, T)>,
}

// SAFETY: what was bound is `Send`, or is only reached by who calls the pointer. If it
// must stay in its thread, `T` is not `Send`.
unsafe impl<P: CodePointer, T: Send> Send for Closure<'_, P, T> {}
// SAFETY: what was bound is `Sync`, or `T` is not; nothing here changes.
unsafe impl<P: CodePointer, T: Sync> Sync for Closure<'_, P, T> {}

impl<'f, P: CodePointer> Closure<'f, P> {
    /// A closure that can be called by all threads at once.
    ///
    /// # Errors
    /// As [`Table::create`](crate::Table::create) and
    /// [`Table::bind`](crate::Table::bind); [`Error::Argument`] if it is to be in a table
    /// with another context register.
    ///
    /// # Example
    /// ```
    /// use jitfd::{Fallback, Jit};
    /// use jitfd_trampoline::Closure;
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let times = 2.5;
    /// let closure = Closure::new(&Jit::open(Fallback::Any)?, |number: f64| number * times)?;
    /// // SAFETY: every number is right.
    /// let function = unsafe { closure.entry() };
    /// assert_eq!(function(4.0), 10.0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new<F>(place: &impl Place, function: F) -> Result<Self, Error>
    where
        F: Callback<P> + Send + Sync + 'f,
    {
        bind(place, function).map(Self::of)
    }

    /// A closure that this thread alone can call, also while it runs: what it captures
    /// need be neither `Send` nor `Sync`.
    ///
    /// ```
    /// use jitfd::{Fallback, Jit};
    /// use jitfd_trampoline::Closure;
    /// use std::cell::RefCell;
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let seen = RefCell::new(Vec::new());
    /// let see = |number: u8| seen.borrow_mut().push(number);
    /// let see = Closure::new_local(&Jit::open(Fallback::Any)?, see)?;
    /// // SAFETY: every number is right, and this is its thread.
    /// unsafe { see.entry()(42) };
    /// assert_eq!(*seen.borrow(), [42]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_local<F>(place: &impl Place, function: F) -> Result<Closure<'f, P, *const ()>, Error>
    where
        F: Callback<P> + 'f,
    {
        bind(place, function).map(Closure::of)
    }

    /// A closure that changes what it has captured.
    ///
    /// ```
    /// use jitfd::{Fallback, Jit};
    /// use jitfd_trampoline::Closure;
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let mut calls = 0;
    /// let count = Closure::new_mut(&Jit::open(Fallback::Any)?, |by: i32| calls += by)?;
    /// // SAFETY: it is called by this thread only.
    /// let function = unsafe { count.entry() };
    /// function(1);
    /// function(2);
    /// drop(count);
    /// assert_eq!(calls, 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_mut<F>(place: &impl Place, function: F) -> Result<Self, Error>
    where
        F: Send + 'f,
        Exclusive<F>: Handler<P>,
    {
        bind(place, Exclusive::new(function)).map(Self::of)
    }

    /// A closure that is called once.
    ///
    /// ```
    /// use jitfd::{Fallback, Jit};
    /// use jitfd_trampoline::Closure;
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let (send, receive) = std::sync::mpsc::channel();
    /// let done = move |status: i32| drop(send.send(status));
    /// let done = Closure::new_once(&Jit::open(Fallback::Any)?, done)?;
    /// // SAFETY: it is called once.
    /// unsafe { done.entry()(42) };
    /// assert_eq!(receive.recv(), Ok(42));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_once<F>(place: &impl Place, function: F) -> Result<Self, Error>
    where
        F: Send + 'f,
        Once<F>: Handler<P>,
    {
        bind(place, Once::new(function)).map(Self::of)
    }

    /// A function of any type that sees the registers and the stack it was called with:
    /// what an interpreter needs whose functions get their types at run time. `P` may be
    /// any type then, such as `unsafe extern "C" fn()`, and the pointer cast to the right
    /// one.
    ///
    /// ```
    /// use jitfd::{Fallback, Jit};
    /// use jitfd_trampoline::{Closure, Registers};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let sum = |registers: &mut Registers| {
    ///     // SAFETY: it is called with an int and two doubles.
    ///     let (times, a, b) = unsafe {
    ///         (registers.argument::<i32>(), registers.argument::<f64>(), registers.argument::<f64>())
    ///     };
    ///     registers.set_result(f64::from(times) * (a + b));
    /// };
    /// type Sum = extern "C" fn(i32, f64, f64) -> f64;
    /// // SAFETY: what is above is such a function.
    /// let sum: Closure<'_, Sum> =
    ///     unsafe { Closure::with_registers(&Jit::open(Fallback::Any)?, sum)? };
    /// // SAFETY: every number is right.
    /// assert_eq!(unsafe { sum.entry()(2, 1.5, 2.5) }, 8.0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// # Safety
    /// The closure reads the arguments, and sets the result, of each type that its
    /// function is called as; `P` is one of them if it is called as that.
    pub unsafe fn with_registers<F>(place: &impl Place, function: F) -> Result<Self, Error>
    where
        F: Fn(&mut Registers) + Send + Sync + 'f,
    {
        let held = place.held(Kind::Carrying(ContextRegister::R10))?;
        if held.table().kind() != Kind::Carrying(ContextRegister::R10) {
            return Err(ContextRegister::R10.wanted());
        }
        let value = Marshalled {
            handler: marshal::whole::<F>(false),
            value: function,
        };
        let unwinding = Unwinding::Handler(marshal::whole::<F>(true));
        // SAFETY: the body takes such a value in r10, for every function type.
        let bound = unsafe { Bound::new(held, marshal::body(), unwinding, value) }?;
        Ok(Self::of(bound))
    }
}

impl<'f, P: CodePointer, T> Closure<'f, P, T> {
    /// Has panics and exceptions go on in the caller, which calls it as
    /// `extern "C-unwind"` from now on.
    ///
    /// C code that is on the way must have unwind tables. On x86-64 it has, unless it
    /// was compiled with `-fno-asynchronous-unwind-tables`.
    ///
    /// ```
    /// use jitfd::{Fallback, Jit};
    /// use jitfd_trampoline::Closure;
    /// use std::panic::{catch_unwind, resume_unwind};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// // A panic that says nothing.
    /// let fails = || resume_unwind(Box::new(42));
    /// let fails = Closure::new(&Jit::open(Fallback::Any)?, fails)?.unwinding();
    /// let fails: extern "C-unwind" fn() = fails.leak();
    /// assert!(catch_unwind(|| fails()).is_err());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn unwinding(self) -> Closure<'f, P::Unwinding, T>
    where
        P: Aborting,
    {
        // SAFETY: who got a pointer before does not call it any more, as `entry` says.
        Closure::of(unsafe { self.bound.unwinding() })
    }

    const fn of(bound: Bound<'f>) -> Self {
        let of = PhantomData;
        Self { bound, of }
    }

    /// The function, which can't be called after the closure is dropped. Where it is
    /// (it may have been moved, the address stays), its plain pointer is a copy:
    /// `*closure.entry()`.
    ///
    /// ```
    /// # use jitfd::{Fallback, Jit};
    /// # use jitfd_trampoline::Closure;
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = Jit::open(Fallback::Any)?;
    /// let add = Closure::new(&jit, |a: i32, b: i32| a + b)?;
    /// // SAFETY: every number is right, and nothing keeps the pointer.
    /// let function = unsafe { add.entry() };
    /// assert_eq!(function(40, 2), 42);
    /// let pointer: extern "C" fn(i32, i32) -> i32 = *function; // for C
    /// # let _ = pointer;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Safety
    /// * A closure of [`new_local`](Closure::new_local) is called by its thread only.
    /// * Copies of the pointer are not called after the closure was dropped or given to
    ///   [`unwinding`](Self::unwinding), nor is it dropped during a call. (A call after its
    ///   drop usually ends with `SIGTRAP`, until its trampoline is used for another
    ///   closure.)
    /// * The arguments are as the closure expects them. Of callers in other languages: a
    ///   `bool` is 0 or 1, and integers of less than 32 bits are extended to that as their
    ///   sign says, as C compilers do.
    #[must_use]
    pub unsafe fn entry(&self) -> Entry<'_, P> {
        // SAFETY: the trampoline leads to a function of this type; the caller answers
        // for the rest.
        unsafe { self.bound.entry() }
    }
}

impl<P: CodePointer> Closure<'static, P> {
    /// The function pointer, for ever: what it needs is never freed.
    ///
    /// ```
    /// use jitfd::{Fallback, Jit};
    /// use jitfd_trampoline::Closure;
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let twice = Closure::new(&Jit::open(Fallback::Any)?, |number: i32| number * 2)?;
    /// let twice: extern "C" fn(i32) -> i32 = twice.leak();
    /// assert_eq!(twice(21), 42);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn leak(self) -> P {
        // SAFETY: the trampoline leads to a function of this type, whose arguments are
        // typed; what it captures lives for ever, and may be used by all threads.
        unsafe { self.bound.leak() }
    }
}

impl<P: CodePointer, T> fmt::Debug for Closure<'_, P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Closure({:#x})", self.bound.address())
    }
}

fn bind<'f, H, P>(place: &impl Place, handler: H) -> Result<Bound<'f>, Error>
where
    P: CodePointer,
    H: Handler<P> + 'f,
{
    let wanted = H::CONTEXT_REGISTER;
    let held = place.held(Kind::Carrying(wanted))?;
    match held.table().kind() {
        Kind::Carrying(ContextRegister::R10) => {
            let value = Marshalled {
                handler: H::marshalled(false),
                value: handler,
            };
            let unwinding = Unwinding::Handler(H::marshalled(true));
            // SAFETY: the body takes such a value in r10, for every function type.
            unsafe { Bound::new(held, marshal::body(), unwinding, value) }
        }
        Kind::Carrying(register) if register == wanted => {
            let unwinding = Unwinding::Target(H::trailing(true));
            // SAFETY: called as a function of type `P`, with the address of an `H` in the
            // register behind the integer arguments, this is the right function.
            unsafe { Bound::new(held, H::trailing(false), unwinding, handler) }
        }
        _ => Err(wanted.wanted()),
    }
}
