// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rust closures as C function pointers.
#![expect(unsafe_code, reason = "binds trampolines to what they were made for")]

use crate::argument::{CodePointer, Sealed};
use crate::bound::{Bound, Held};
use crate::callable::{Exclusive, Once, Shared};
use crate::common::Kind;
use crate::marshal::{self, Marshalled};
use crate::register::ContextRegister;
use crate::registers::Registers;
use crate::signature::{FnPointer, Handler, Signature};
use crate::table::Table;
use jitfd::internal::NO_ENTRY;
use jitfd::{Error, Fallback};
use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A Rust closure that C can call: it has the address of a function of the type `P`.
///
/// The type of the function pointer is found from the closure's arguments, whose types
/// must be written out: up to twelve [`Argument`](crate::Argument)s, and a
/// [`Return`](crate::Return). Annotate diverging closures `-> ()`: `!` does not
/// implement `Return`.
///
/// ```
/// use jitfd_trampoline::Closure;
/// # use jitfd::Fallback;
/// # use jitfd_trampoline::ClosureOptions;
/// use std::ffi::{c_int, c_void};
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let mut numbers = [5, 2, 9, 1];
/// let comparisons = AtomicUsize::new(0);
/// let compare = |a: *const c_void, b: *const c_void| -> c_int {
///     comparisons.fetch_add(1, Ordering::Relaxed);
///     // SAFETY: qsort passes the addresses of two elements.
///     let (a, b) = unsafe { (*a.cast::<i32>(), *b.cast::<i32>()) };
///     a.cmp(&b) as c_int
/// };
/// # let options = ClosureOptions::new().fallback(Fallback::Any);
/// # /*
/// let compare = Closure::new(compare)?;
/// # */
/// # let compare = options.create(compare)?;
/// // SAFETY: these are four elements of four bytes, and the closure is there.
/// unsafe { libc::qsort(numbers.as_mut_ptr().cast(), 4, 4, Some(compare.as_fn())) };
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
/// | [`ClosureOptions::create_local`] | `Fn` | by the thread that has made it |
///
/// # What a caller must ensure
///
/// Making a closure is safe, and so is dropping it and getting its function
/// pointer. *Calling* that pointer is `unsafe`: a caller, or a program that gives
/// it to C code that calls it, must ensure this:
/// * The `Closure` is there during the whole call. (A call after its drop usually ends
///   with `SIGTRAP`, until its trampoline is used for another closure.) It may have
///   been moved: the address stays.
/// * The arguments are as the closure expects them; a `bool` is 0 or 1, and integers
///   of less than 32 bits are extended to that as their sign says, as C compilers do.
///
/// Two mistakes are found: a closure of `new_mut` that is called while it runs, by
/// another thread or by itself, and one of `new_once` that is called again, panic.
///
/// [`leak`](Self::leak) gives a pointer that is safe to call, for ever.
///
/// # Panics
///
/// A closure that panics ends the program, as every `extern "C"` function does.
/// [`ClosureOptions::unwinding`] makes closures of the type
/// `extern "C-unwind" fn(...)`, through which panics and C++ exceptions pass.
///
/// # What it costs
///
/// A closure is a box with what it captures and a slot of a [`Table`] which the
/// process creates at first use; there is one for each [`ContextRegister`]. Making one needs no
/// system call, and a call costs the trampoline's three instructions. Only with six or
/// more integer arguments all registers are saved and the arguments read from there.
pub struct Closure<'f, P: FnPointer> {
    bound: Bound<'f>,
    of: PhantomData<P>,
}

// SAFETY: what was bound is `Send`, or is only reached by who calls the pointer.
unsafe impl<P: FnPointer> Send for Closure<'_, P> {}
// SAFETY: what was bound is `Sync`; nothing here changes.
unsafe impl<P: FnPointer> Sync for Closure<'_, P> {}

impl<'f, P: Signature> Closure<'f, P> {
    /// A closure that can be called by all threads at once; by `/dev/jit`, or an
    /// error.
    ///
    /// # Errors
    /// As [`Table::new`] and [`Table::bind`].
    ///
    /// # Example
    /// ```
    /// use jitfd_trampoline::Closure;
    ///
    /// let times = 2.5;
    /// match Closure::new(move |number: f64| number * times) {
    ///     Ok(closure) => {
    ///         let pointer: unsafe extern "C" fn(f64) -> f64 = closure.as_fn();
    ///         // SAFETY: the closure is there.
    ///         assert_eq!(unsafe { pointer(4.0) }, 10.0);
    ///     }
    ///     Err(error) => eprintln!("none, since {error}"),
    /// }
    /// ```
    pub fn new<F>(function: F) -> Result<Self, Error>
    where
        F: Send + Sync + 'f,
        Shared<F>: Handler<P>,
    {
        ClosureOptions::new().create(function)
    }

    /// A closure that changes what it has captured.
    ///
    /// ```
    /// use jitfd_trampoline::Closure;
    ///
    /// let mut calls = 0;
    /// match Closure::new_mut(|| calls += 1) {
    ///     Ok(count) => println!("a function that counts: {count:?}"),
    ///     Err(error) => eprintln!("none, since {error}"),
    /// }
    /// ```
    ///
    /// See the example of [`ClosureOptions`], too.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_mut<F>(function: F) -> Result<Self, Error>
    where
        F: Send + 'f,
        Exclusive<F>: Handler<P>,
    {
        ClosureOptions::new().create_mut(function)
    }

    /// A closure that is called once.
    ///
    /// ```
    /// use jitfd_trampoline::Closure;
    ///
    /// let text = String::from("given away");
    /// match Closure::new_once(|| drop(text)) {
    ///     Ok(give) => println!("a function to be called once: {give:?}"),
    ///     Err(error) => eprintln!("none, since {error}"),
    /// }
    /// ```
    ///
    /// See the example of [`ClosureOptions::create_once`], too.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_once<F>(function: F) -> Result<Self, Error>
    where
        F: Send + 'f,
        Once<F>: Handler<P>,
    {
        ClosureOptions::new().create_once(function)
    }
}

impl<P: FnPointer> Closure<'_, P> {
    /// The function pointer. Callers must ensure [what is said
    /// above](Self#what-a-caller-must-ensure).
    #[must_use]
    pub fn as_fn(&self) -> P::Unsafe {
        // SAFETY: the trampoline leads to a function of this type.
        unsafe { P::Unsafe::from_address(self.as_ptr()) }
    }

    /// The function pointer, of a type that everybody may call: for declarations of
    /// C functions that take such a type.
    ///
    /// ```
    /// # use jitfd::Fallback;
    /// # use jitfd_trampoline::ClosureOptions;
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let options = ClosureOptions::new().fallback(Fallback::Any);
    /// let add = options.create(|a: i32, b: i32| a + b)?;
    /// // SAFETY: it is not kept.
    /// let pointer: extern "C" fn(i32, i32) -> i32 = unsafe { add.as_safe_fn() };
    /// assert_eq!(pointer(40, 2), 42);
    /// assert_eq!(pointer as *const std::ffi::c_void, add.as_ptr());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Safety
    /// It is not called after the closure is dropped, not with arguments that the
    /// closure does not expect.
    #[must_use]
    pub unsafe fn as_safe_fn(&self) -> P {
        // SAFETY: the trampoline leads to a function of this type; the caller answers
        // for when it is called.
        unsafe { P::from_address(self.as_ptr()) }
    }

    /// The address of the function. See the example of [`Closure::as_safe_fn`].
    #[must_use]
    pub fn as_ptr(&self) -> *const c_void {
        self.bound.entry()
    }
}

impl<P: FnPointer> Closure<'static, P> {
    /// The function pointer, for ever: what it needs is never freed.
    ///
    /// ```
    /// # use jitfd::Fallback;
    /// # use jitfd_trampoline::ClosureOptions;
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let options = ClosureOptions::new().fallback(Fallback::Any);
    /// // As `Closure::new(...)`:
    /// let twice = options.create(|number: i32| number * 2)?;
    /// let twice: extern "C" fn(i32) -> i32 = twice.leak();
    /// assert_eq!(twice(21), 42);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn leak(self) -> P {
        // SAFETY: the trampoline leads to a function of this type, whose arguments are
        // typed; what it captures lives for ever, and may be used by all threads.
        unsafe { P::from_address(self.bound.leak()) }
    }
}

impl<P: FnPointer> fmt::Debug for Closure<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Closure").field(&self.as_ptr()).finish()
    }
}

/// A [`Closure`] that only the thread which has made it may call: what it captures
/// need not be `Send` nor `Sync`.
///
/// ```
/// # use jitfd::Fallback;
/// # use jitfd_trampoline::ClosureOptions;
/// use std::cell::RefCell;
///
/// # fn main() -> Result<(), jitfd::Error> {
/// # let options = ClosureOptions::new().fallback(Fallback::Any);
/// let seen = RefCell::new(Vec::new());
/// let see = options.create_local(|number: u8| seen.borrow_mut().push(number))?;
/// let pointer = see.as_fn();
/// assert_eq!(pointer as *const std::ffi::c_void, see.as_ptr());
/// // SAFETY: `see` is there, and this is its thread.
/// unsafe { pointer(42) };
/// assert_eq!(*seen.borrow(), [42]);
/// # Ok(())
/// # }
/// ```
pub struct LocalClosure<'f, P: FnPointer> {
    bound: Bound<'f>,
    /// Stays in its thread.
    of: PhantomData<(P, *const ())>,
}

impl<P: FnPointer> LocalClosure<'_, P> {
    /// The function pointer. Callers must ensure [what is said at
    /// `Closure`](Closure#what-a-caller-must-ensure), and call it in this thread
    /// only.
    #[must_use]
    pub fn as_fn(&self) -> P::Unsafe {
        // SAFETY: the trampoline leads to a function of this type.
        unsafe { P::Unsafe::from_address(self.as_ptr()) }
    }

    /// The address of the function.
    #[must_use]
    pub fn as_ptr(&self) -> *const c_void {
        self.bound.entry()
    }
}

impl<P: FnPointer> fmt::Debug for LocalClosure<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalClosure").field(&self.as_ptr()).finish()
    }
}

/// A function of any type that sees the registers and the stack it was called with:
/// what an interpreter needs whose functions get their types at run time.
///
/// ```
/// use jitfd_trampoline::{RegisterClosure, Registers};
/// # use jitfd::Fallback;
/// # use jitfd_trampoline::ClosureOptions;
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let sum = |registers: &mut Registers| {
///     let mut arguments = registers.arguments();
///     // SAFETY: it is called with an int and two doubles.
///     let (times, a, b) = unsafe {
///         (arguments.next::<i32>(), arguments.next::<f64>(), arguments.next::<f64>())
///     };
///     registers.set_f64(f64::from(times) * (a + b));
/// };
/// # let options = ClosureOptions::new().fallback(Fallback::Any);
/// # /*
/// let sum = RegisterClosure::new(sum)?;
/// # */
/// # let sum = options.create_registers(sum)?;
/// // SAFETY: what is above is such a function.
/// let function = unsafe { sum.function::<unsafe extern "C" fn(i32, f64, f64) -> f64>()? };
/// // SAFETY: `sum` is there.
/// assert_eq!(unsafe { function(2, 1.5, 2.5) }, 8.0);
/// assert_eq!(function as *const std::ffi::c_void, sum.as_ptr());
/// # Ok(())
/// # }
/// ```
///
/// Threads and panics: as for a [`Closure`] of an `Fn`.
pub struct RegisterClosure<'f> {
    bound: Bound<'f>,
}

// SAFETY: what was bound is `Send`.
unsafe impl Send for RegisterClosure<'_> {}
// SAFETY: what was bound is `Sync`; nothing here changes.
unsafe impl Sync for RegisterClosure<'_> {}

impl<'f> RegisterClosure<'f> {
    /// By `/dev/jit`, or an error.
    ///
    /// # Errors
    /// As [`Closure::new`].
    pub fn new<F>(function: F) -> Result<Self, Error>
    where
        F: Fn(&mut Registers) + Send + Sync + 'f,
    {
        ClosureOptions::new().create_registers(function)
    }

    /// The address of the function.
    #[must_use]
    pub fn as_ptr(&self) -> *const c_void {
        self.bound.entry()
    }

    /// The address as a function pointer.
    ///
    /// # Errors
    /// [`Error::Argument`] if `F` has not the size of a function pointer.
    ///
    /// # Safety
    /// `F` must be a function pointer type, and the closure must read the arguments and set
    /// the result of such a function.
    /// The pointer must not be called after this is dropped.
    pub unsafe fn function<F: Copy>(&self) -> Result<F, Error> {
        // SAFETY: as promised by the caller.
        unsafe { self.bound.function() }.ok_or(NO_ENTRY)
    }
}

impl fmt::Debug for RegisterClosure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RegisterClosure")
            .field(&self.as_ptr())
            .finish()
    }
}

/// Closures that end the program if they panic.
///
/// ```
/// use jitfd_trampoline::{Aborting, ClosureOptions};
///
/// let options: ClosureOptions<'_, Aborting> = ClosureOptions::new();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Aborting(());

/// Closures whose panics, and exceptions, go on in the caller.
///
/// ```
/// use jitfd_trampoline::{ClosureOptions, Unwinding};
///
/// let options: ClosureOptions<'_, Unwinding> = ClosureOptions::new().unwinding();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Unwinding(());

/// What a panic of a closure does: [`Aborting`] or [`Unwinding`].
///
/// ```
/// use jitfd_trampoline::{Aborting, OnPanic, Unwinding};
///
/// type Plain = extern "C" fn(i32);
/// type Passing = extern "C-unwind" fn(i32);
///
/// fn is<M: OnPanic<Plain, Pointer = P>, P>() {}
/// is::<Aborting, Plain>();
/// is::<Unwinding, Passing>();
/// ```
pub trait OnPanic<S: Signature>: Passes {
    /// The type of the closure's function pointer.
    type Pointer: FnPointer;
}

/// The part of [`OnPanic`] that does not depend on a type. Sealed.
///
/// ```
/// use jitfd_trampoline::{ClosureOptions, Passes};
///
/// /// For both.
/// fn options<M: Passes>(options: ClosureOptions<'_, M>) -> ClosureOptions<'_, M> {
///     options.fallback(jitfd::Fallback::DualMapping)
/// }
/// # options(ClosureOptions::new());
/// ```
pub trait Passes: Sealed {
    /// Whether panics go on in the caller.
    #[doc(hidden)]
    const UNWINDS: bool;
}

impl Sealed for Aborting {}
impl Sealed for Unwinding {}

impl Passes for Aborting {
    const UNWINDS: bool = false;
}

impl<S: Signature> OnPanic<S> for Aborting {
    type Pointer = S;
}

impl Passes for Unwinding {
    const UNWINDS: bool = true;
}

impl<S: Signature> OnPanic<S> for Unwinding {
    type Pointer = S::Unwinding;
}

/// How closures are made: in which table, with a fallback or not, and what their
/// panics do.
///
/// ```
/// use jitfd::Fallback;
/// use jitfd_trampoline::ClosureOptions;
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let options = ClosureOptions::new().fallback(Fallback::Any);
/// let mut calls = 0;
/// let count = options.create_mut(|by: i32| calls += by)?;
/// // SAFETY: `count` is there, and called by nobody else.
/// unsafe {
///     count.as_fn()(1);
///     count.as_fn()(2);
/// }
/// drop(count);
/// assert_eq!(calls, 3);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ClosureOptions<'t, M = Aborting> {
    fallback: Fallback,
    table: Option<&'t Arc<Table>>,
    mode: PhantomData<M>,
}

impl<M> Clone for ClosureOptions<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for ClosureOptions<'_, M> {}

impl Default for ClosureOptions<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'t> ClosureOptions<'t> {
    /// By `/dev/jit` or an error, in the tables of the process; a panic ends the
    /// program.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            fallback: Fallback::Never,
            table: None,
            mode: PhantomData,
        }
    }

    /// Has panics and exceptions go on in the caller. Closures are of the type
    /// `extern "C-unwind" fn(...)` then.
    ///
    /// C code that is on the way must have unwind tables. On x86-64 it has, unless it
    /// was compiled with `-fno-asynchronous-unwind-tables`.
    ///
    /// ```
    /// # use jitfd::Fallback;
    /// # use jitfd_trampoline::ClosureOptions;
    /// use std::panic::catch_unwind;
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let options = ClosureOptions::new().fallback(Fallback::Any);
    /// // A panic that says nothing.
    /// let fails = options.unwinding().create(|| std::panic::resume_unwind(Box::new(42)))?;
    /// let fails: extern "C-unwind" fn() = fails.leak();
    /// assert!(catch_unwind(|| fails()).is_err());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn unwinding(self) -> ClosureOptions<'t, Unwinding> {
        ClosureOptions {
            fallback: self.fallback,
            table: self.table,
            mode: PhantomData,
        }
    }
}

impl<'t, M: Passes> ClosureOptions<'t, M> {
    /// Which backends are accepted, for the tables of the process.
    #[must_use]
    pub const fn fallback(mut self, fallback: Fallback) -> Self {
        self.fallback = fallback;
        self
    }

    /// Has closures made in this table instead of one of the process. Its context register must
    /// be [`Signature::CONTEXT_REGISTER`], or `r10`, which serves all types: the registers are
    /// saved, and the arguments read from there.
    ///
    /// ```
    /// # use jitfd::Fallback;
    /// use jitfd_trampoline::{ContextRegister, ClosureOptions, TableOptions};
    /// use std::sync::Arc;
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// // For closures without integer arguments.
    /// let table = TableOptions::new(ContextRegister::Rdi);
    /// # let table = table.fallback(Fallback::Any);
    /// let table = Arc::new(table.create()?);
    /// let options = ClosureOptions::new().in_table(&table);
    /// let half = options.create(|number: f64| number / 2.0)?;
    /// assert!(options.create(|number: i32| number / 2).is_err());
    /// # drop(half);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn in_table(mut self, table: &'t Arc<Table>) -> Self {
        self.table = Some(table);
        self
    }

    /// As [`Closure::new`]. See the example of [`ClosureOptions::in_table`].
    ///
    /// # Errors
    /// As [`Closure::new`]; [`Error::NoBackend`] if more than one backend was accepted
    /// and none is allowed; [`Error::Argument`] if the table's context register is another.
    pub fn create<'f, F, S>(&self, function: F) -> Result<Closure<'f, M::Pointer>, Error>
    where
        S: Signature,
        M: OnPanic<S>,
        F: Send + Sync + 'f,
        Shared<F>: Handler<S>,
    {
        let bound = self.bind::<_, S>(Shared(function))?;
        let of = PhantomData;
        Ok(Closure { bound, of })
    }

    /// As [`Closure::new_mut`].
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_mut<'f, F, S>(&self, function: F) -> Result<Closure<'f, M::Pointer>, Error>
    where
        S: Signature,
        M: OnPanic<S>,
        F: Send + 'f,
        Exclusive<F>: Handler<S>,
    {
        let bound = self.bind::<_, S>(Exclusive::new(function))?;
        let of = PhantomData;
        Ok(Closure { bound, of })
    }

    /// As [`Closure::new_once`].
    ///
    /// ```
    /// # use jitfd::Fallback;
    /// # use jitfd_trampoline::ClosureOptions;
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let options = ClosureOptions::new().fallback(Fallback::Any);
    /// let (send, receive) = std::sync::mpsc::channel();
    /// let done = options.create_once(move |status: i32| drop(send.send(status)))?;
    /// // SAFETY: `done` is there.
    /// unsafe { done.as_fn()(42) };
    /// assert_eq!(receive.recv(), Ok(42));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_once<'f, F, S>(&self, function: F) -> Result<Closure<'f, M::Pointer>, Error>
    where
        S: Signature,
        M: OnPanic<S>,
        F: Send + 'f,
        Once<F>: Handler<S>,
    {
        let bound = self.bind::<_, S>(Once::new(function))?;
        let of = PhantomData;
        Ok(Closure { bound, of })
    }

    /// A closure that only this thread may call.
    ///
    /// ```
    /// # use jitfd::Fallback;
    /// # use jitfd_trampoline::ClosureOptions;
    /// use std::cell::Cell;
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let options = ClosureOptions::new().fallback(Fallback::Any);
    /// let sum = Cell::new(0);
    /// let add = options.create_local(|number: i32| sum.set(sum.get() + number))?;
    /// // SAFETY: `add` is there, and this is its thread.
    /// unsafe { add.as_fn()(42) };
    /// assert_eq!(sum.get(), 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_local<'f, F, S>(&self, function: F) -> Result<LocalClosure<'f, M::Pointer>, Error>
    where
        S: Signature,
        M: OnPanic<S>,
        F: 'f,
        Shared<F>: Handler<S>,
    {
        let bound = self.bind::<_, S>(Shared(function))?;
        let of = PhantomData;
        Ok(LocalClosure { bound, of })
    }

    /// As [`RegisterClosure::new`]. See the example of
    /// [`Registers`].
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_registers<'f, F>(&self, function: F) -> Result<RegisterClosure<'f>, Error>
    where
        F: Fn(&mut Registers) + Send + Sync + 'f,
    {
        let held = self.held(ContextRegister::R10)?;
        if held.table().context_register() != ContextRegister::R10 {
            return Err(OTHER_CARRIER);
        }
        let value = Marshalled {
            handler: marshal::whole::<F>(M::UNWINDS),
            value: function,
        };
        // SAFETY: the body takes such a value in r10, for every function type.
        let bound = unsafe { Bound::new(held, marshal::body(), value) }?;
        Ok(RegisterClosure { bound })
    }

    fn held(&self, context_register: ContextRegister) -> Result<Held, Error> {
        match self.table {
            Some(table) => Ok(Held::Own(Arc::clone(table))),
            None => Kind::carrying(context_register)
                .table(self.fallback)
                .map(Held::Common),
        }
    }

    fn bind<'f, H, S>(&self, handler: H) -> Result<Bound<'f>, Error>
    where
        S: Signature,
        H: Handler<S> + 'f,
    {
        let held = self.held(S::CONTEXT_REGISTER)?;
        let context_register = held.table().context_register();
        if context_register == ContextRegister::R10 {
            let value = Marshalled {
                handler: H::marshalled(M::UNWINDS),
                value: handler,
            };
            // SAFETY: the body takes such a value in r10, for every function type.
            return unsafe { Bound::new(held, marshal::body(), value) };
        }
        if context_register != S::CONTEXT_REGISTER {
            return Err(OTHER_CARRIER);
        }
        // SAFETY: called as a function of type `S`, with the address of an `H` in the
        // register behind the integer arguments, this is the right function.
        unsafe { Bound::new(held, H::trailing(M::UNWINDS), handler) }
    }
}

const OTHER_CARRIER: Error =
    Error::Argument("a table serves closures whose arguments leave its context_register free");
