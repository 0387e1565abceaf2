// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which function types closures can have, and the function that the trampoline of
//! each enters: it takes the closure's address and calls it.
//!
//! Why it is sound:
//! * The traits are sealed. A type is an [`Argument`] or a [`Return`] only if the
//!   System V ABI passes it in one general or one vector register, or in 8 bytes of
//!   the stack.
//! * With up to five integer arguments the address is passed as one more integer
//!   argument behind all others: in the next free register, which is the table's
//!   context register ([`Signature::CONTEXT_REGISTER`]). No other argument comes to lie elsewhere by
//!   that.
//! * With six or more the registers are saved by the body of `marshal.rs`, and the
//!   arguments are read from there in order.
#![expect(unsafe_code, reason = "this is the file for it")]

use crate::argument::{Argument, CodePointer, Return, Sealed};
use crate::callable::Invoke;
use crate::marshal::Marshalled;
use crate::register::ContextRegister;
use crate::registers::{Arguments, Call, Registers};
use std::ffi::c_void;

/// The type of a closure's function pointer: `extern "C" fn(A, ...) -> R` or
/// `extern "C-unwind" fn(A, ...) -> R`, with up to twelve [`Argument`]s and a
/// [`Return`].
///
/// ```
/// use jitfd_trampoline::{Closure, FnPointer};
///
/// /// A callback of any type, and how to unregister it.
/// struct Registered<'f, P: FnPointer> {
///     closure: Closure<'f, P>,
///     unregister: fn(P::Unsafe),
/// }
///
/// impl<P: FnPointer> Drop for Registered<'_, P> {
///     fn drop(&mut self) {
///         (self.unregister)(self.closure.as_fn());
///     }
/// }
/// # fn main() {}
/// ```
pub trait FnPointer: CodePointer {
    /// The same, but `unsafe` to call: the caller must ensure that the closure
    /// still exists.
    type Unsafe: CodePointer;
}

/// What is called by C and ends the program if it panics: all types
/// `extern "C" fn(A, ...) -> R` of [`FnPointer`].
///
/// ```
/// use jitfd_trampoline::{ContextRegister, Signature};
///
/// type Six = extern "C" fn(i32, i32, i32, i32, i32, i32);
/// assert_eq!(Six::CONTEXT_REGISTER, ContextRegister::R10);
/// ```
pub trait Signature: FnPointer {
    /// The same for panics that go on in the caller.
    type Unwinding: FnPointer;

    /// How many arguments are passed in general registers, or would be.
    #[doc(hidden)]
    const INTEGERS: usize;

    /// The register in which the trampolines of such closures carry the closure's
    /// address: the first that no argument is passed in, or `r10` if all are.
    ///
    /// ```
    /// use jitfd_trampoline::{ContextRegister, Signature};
    /// use std::ffi::{c_int, c_void};
    ///
    /// type Compare = extern "C" fn(*const c_void, *const c_void) -> c_int;
    /// type Weigh = extern "C" fn(f64, f64) -> f64;
    /// assert_eq!(Compare::CONTEXT_REGISTER, ContextRegister::Rdx);
    /// assert_eq!(Weigh::CONTEXT_REGISTER, ContextRegister::Rdi);
    /// ```
    const CONTEXT_REGISTER: ContextRegister = match ContextRegister::argument(Self::INTEGERS) {
        Some(context_register) => context_register,
        None => ContextRegister::R10,
    };
}

/// What can be called by the arguments of a [`Signature`]. Which one is found from
/// the types of a closure's arguments.
///
/// ```
/// # use jitfd::Fallback;
/// # use jitfd_trampoline::ClosureOptions;
/// use jitfd_trampoline::{Closure, Handler, Shared, Signature};
///
/// /// For closures of all types.
/// fn logged<'f, F, S>(function: F) -> Result<Closure<'f, S>, jitfd::Error>
/// where
///     S: Signature,
///     F: Send + Sync + 'f,
///     Shared<F>: Handler<S>,
/// {
///     # if true {
///     #     return ClosureOptions::new().fallback(Fallback::Any).create(function);
///     # }
///     let closure = Closure::new(function)?;
///     println!("a closure at {closure:?}");
///     Ok(closure)
/// }
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let twice: Closure<'_, extern "C" fn(i32) -> i32> = logged(|number: i32| number * 2)?;
/// # drop(twice);
/// # Ok(())
/// # }
/// ```
pub trait Handler<S: Signature> {
    /// The function that takes the address of a `Self` as its last argument.
    #[doc(hidden)]
    fn trailing(unwinds: bool) -> *const c_void;

    /// The function that takes saved registers and the address of a
    /// `Marshalled<Self>`.
    #[doc(hidden)]
    fn marshalled(unwinds: bool) -> crate::marshal::Handler;
}

/// All that depends on the number of arguments.
macro_rules! signature {
    ($($A:ident)*) => {
        impl<$($A,)* R> Sealed for extern "C" fn($($A),*) -> R {}
        impl<$($A,)* R> Sealed for unsafe extern "C" fn($($A),*) -> R {}
        impl<$($A,)* R> Sealed for extern "C-unwind" fn($($A),*) -> R {}
        impl<$($A,)* R> Sealed for unsafe extern "C-unwind" fn($($A),*) -> R {}
        // SAFETY: a function pointer type.
        unsafe impl<$($A,)* R> CodePointer for extern "C" fn($($A),*) -> R {}
        // SAFETY: as above.
        unsafe impl<$($A,)* R> CodePointer for unsafe extern "C" fn($($A),*) -> R {}
        // SAFETY: as above.
        unsafe impl<$($A,)* R> CodePointer for extern "C-unwind" fn($($A),*) -> R {}
        // SAFETY: as above.
        unsafe impl<$($A,)* R> CodePointer for unsafe extern "C-unwind" fn($($A),*) -> R {}

        impl<$($A: Argument,)* R: Return> FnPointer for extern "C" fn($($A),*) -> R {
            type Unsafe = unsafe extern "C" fn($($A),*) -> R;
        }

        impl<$($A: Argument,)* R: Return> FnPointer for extern "C-unwind" fn($($A),*) -> R {
            type Unsafe = unsafe extern "C-unwind" fn($($A),*) -> R;
        }

        impl<$($A: Argument,)* R: Return> Signature for extern "C" fn($($A),*) -> R {
            type Unwinding = extern "C-unwind" fn($($A),*) -> R;
            const INTEGERS: usize = 0 $(+ $A::INTEGER as usize)*;
        }

        impl<H, $($A: Argument,)* R: Return> Handler<extern "C" fn($($A),*) -> R> for H
        where
            H: Invoke<($($A,)*), R>,
        {
            #[allow(non_snake_case, reason = "an argument is named like its type")]
            fn trailing(unwinds: bool) -> *const c_void {
                extern "C" fn aborting<H: Invoke<($($A,)*), R>, $($A,)* R>(
                    $($A: $A,)*
                    context: *const H,
                ) -> R {
                    // SAFETY: the trampoline passes the address of a closure, which
                    // is there as long as the trampoline.
                    unsafe { &*context }.invoke(($($A,)*))
                }
                extern "C-unwind" fn unwinding<H: Invoke<($($A,)*), R>, $($A,)* R>(
                    $($A: $A,)*
                    context: *const H,
                ) -> R {
                    // SAFETY: as above.
                    unsafe { &*context }.invoke(($($A,)*))
                }
                if unwinds {
                    let thunk: extern "C-unwind" fn($($A,)* *const H) -> R =
                        unwinding::<H, $($A,)* R>;
                    thunk as *const c_void
                } else {
                    let thunk: extern "C" fn($($A,)* *const H) -> R = aborting::<H, $($A,)* R>;
                    thunk as *const c_void
                }
            }

            fn marshalled(unwinds: bool) -> crate::marshal::Handler {
                /// # Safety
                /// `registers` has such arguments, and `context` is the address of
                /// a `Marshalled<H>`.
                unsafe fn call<H: Invoke<($($A,)*), R>, $($A: Argument,)* R: Return>(
                    registers: *mut c_void,
                    context: *const c_void,
                ) {
                    // SAFETY: as promised by the caller; nobody else has either.
                    let (registers, closure) = unsafe {
                        (&mut *registers.cast::<Call>(), &*context.cast::<Marshalled<H>>())
                    };
                    let mut registers = Registers::of(registers);
                    let mut arguments = registers.arguments();
                    let arguments: &mut Arguments<'_> = &mut arguments;
                    #[allow(unused_unsafe, clippy::unused_unit, reason = "where there are none")]
                    // SAFETY: as promised by the caller: they are read in order.
                    let values = unsafe { ($(arguments.next::<$A>(),)*) };
                    let _ = arguments;
                    registers.set_result(closure.value.invoke(values));
                }
                unsafe extern "C" fn aborting<
                    H: Invoke<($($A,)*), R>,
                    $($A: Argument,)*
                    R: Return,
                >(
                    registers: *mut c_void,
                    context: *const c_void,
                ) {
                    // SAFETY: what the body of `marshal.rs` passes.
                    unsafe { call::<H, $($A,)* R>(registers, context) }
                }
                unsafe extern "C-unwind" fn unwinding<
                    H: Invoke<($($A,)*), R>,
                    $($A: Argument,)*
                    R: Return,
                >(
                    registers: *mut c_void,
                    context: *const c_void,
                ) {
                    // SAFETY: as above.
                    unsafe { call::<H, $($A,)* R>(registers, context) }
                }
                if unwinds {
                    crate::marshal::Handler::unwinding(unwinding::<H, $($A,)* R>)
                } else {
                    crate::marshal::Handler::aborting(aborting::<H, $($A,)* R>)
                }
            }
        }
    };
}

signature!();
signature!(A);
signature!(A B);
signature!(A B C);
signature!(A B C D);
signature!(A B C D E);
signature!(A B C D E F);
signature!(A B C D E F G);
signature!(A B C D E F G I);
signature!(A B C D E F G I J);
signature!(A B C D E F G I J K);
signature!(A B C D E F G I J K L);
signature!(A B C D E F G I J K L M);
