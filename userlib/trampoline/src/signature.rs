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
//!   context register. No other argument comes to lie elsewhere by that.
//! * With six or more the registers are saved by the body of `marshal.rs`, and the
//!   arguments are read from there in order.
#![expect(unsafe_code, reason = "this is the file for it")]

use crate::argument::{Argument, Return};
use crate::callable::Invoke;
use crate::marshal::Marshalled;
use crate::register::ContextRegister;
use crate::registers::{Call, Registers};
use jitfd::CodePointer;
use std::ffi::c_void;

/// The bound of functions that make [`Closure`](crate::Closure)s of any type: `Self` is
/// an `Fn` that takes and returns what the function pointer type `P` does, up to twelve
/// arguments. Arguments are integers of up to 64 bits, `bool`, `f32`, `f64`, raw
/// pointers, and `Option`s of C function pointers; results are those and `()`.
///
/// ```
/// use jitfd::{CodePointer, Error, Fallback, Jit};
/// use jitfd_trampoline::{Callback, Closure};
///
/// /// For closures of all types.
/// fn logged<'f, F, P>(jit: &Jit, function: F) -> Result<Closure<'f, P>, Error>
/// where
///     P: CodePointer,
///     F: Callback<P> + Send + Sync + 'f,
/// {
///     let closure = Closure::new(jit, function)?;
///     println!("{closure:?}");
///     Ok(closure)
/// }
///
/// # fn main() -> Result<(), Error> {
/// let jit = Jit::open(Fallback::Any)?;
/// let twice: Closure<'_, extern "C" fn(i32) -> i32> = logged(&jit, |number: i32| number * 2)?;
/// # drop(twice);
/// # Ok(())
/// # }
/// ```
pub trait Callback<P: CodePointer>: Handler<P> {}

impl<P: CodePointer, F: Handler<P>> Callback<P> for F {}

/// What can be called with the arguments of `P`. Which one is found from the types of a
/// closure's arguments.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be called as a C function",
    label = "its arguments or its result are not what a C function has here",
    note = "write out the types of all arguments, up to twelve: integers of up to 64 bits, \
            `bool`, `f32`, `f64`, raw pointers, and `Option`s of `extern \"C\"` function \
            pointers; results are those and `()`",
    note = "pass a reference or a struct as a raw pointer; annotate a closure that does not \
            return with `-> ()`"
)]
pub trait Handler<P: CodePointer> {
    /// The first register that no argument is passed in, or `r10` if all are.
    const CONTEXT_REGISTER: ContextRegister;

    /// The function that takes the address of a `Self` as its last argument.
    fn trailing(unwinds: bool) -> *const c_void;

    /// The function that takes saved registers and the address of a
    /// `Marshalled<Self>`.
    fn marshalled(unwinds: bool) -> crate::marshal::Handler;
}

/// A function pointer type for panics that end the program.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no counterpart that panics pass through",
    label = "not of the type `extern \"C\" fn`"
)]
pub trait Aborting: CodePointer {
    /// The same for panics that go on in the caller.
    type Unwinding: CodePointer;
}

/// All that depends on the number of arguments.
macro_rules! signature {
    ($($A:ident)*) => {
        impl<$($A,)* R> Aborting for extern "C" fn($($A),*) -> R {
            type Unwinding = extern "C-unwind" fn($($A),*) -> R;
        }

        impl<$($A,)* R> Aborting for unsafe extern "C" fn($($A),*) -> R {
            type Unwinding = unsafe extern "C-unwind" fn($($A),*) -> R;
        }

        impl<H, $($A: Argument,)* R: Return> Handler<extern "C" fn($($A),*) -> R> for H
        where
            H: Invoke<($($A,)*), R>,
        {
            const CONTEXT_REGISTER: ContextRegister =
                ContextRegister::behind(0 $(+ $A::INTEGER as usize)*);

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
                    #[allow(unused_unsafe, clippy::unused_unit, reason = "where there are none")]
                    // SAFETY: as promised by the caller: they are read in order.
                    let values = unsafe { ($(registers.argument::<$A>(),)*) };
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
