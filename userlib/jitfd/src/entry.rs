// SPDX-License-Identifier: MIT OR Apache-2.0

//! Function pointers into published code, which can't outlive it.
#![expect(unsafe_code, reason = "addresses become function pointers here")]

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

/// A function in published code: it can be called like a function pointer, but not
/// after what holds the code is dropped.
///
/// ```
/// use jitfd::{Entry, Fallback, Jit, Rules, validate};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// // lea eax, [rdi + rdi]; ret
/// let chunk = validate(&[0x8d, 0x04, 0x3f, 0xc3], &Rules::new())?;
/// let code = Jit::open(Fallback::Any)?.code(&chunk)?;
/// // SAFETY: the bytes are such a function.
/// let double: Entry<'_, extern "C" fn(i32) -> i32> = unsafe { code.entry(0)? };
/// assert_eq!(double(21), 42);
/// # Ok(())
/// # }
/// ```
///
/// The compiler refuses what would call code that is gone:
///
/// ```compile_fail,E0505
/// # use jitfd::{Fallback, Jit, Rules, validate};
/// # fn main() -> Result<(), jitfd::Error> {
/// # let chunk = validate(&[0xc3], &Rules::new())?;
/// let code = Jit::open(Fallback::Any)?.code(&chunk)?;
/// let nothing = unsafe { code.entry::<extern "C" fn()>(0)? };
/// drop(code);
/// nothing();
/// # Ok(())
/// # }
/// ```
///
/// # The plain function pointer
/// `*entry` is the function pointer itself, without a lifetime: for an engine that
/// knows by itself how long its code is there. It must not be called after that,
/// which is part of what the caller of `entry` promises.
pub struct Entry<'a, F> {
    function: F,
    code: PhantomData<&'a ()>,
}

impl<F: CodePointer> Entry<'_, F> {
    /// The function at `address`.
    ///
    /// # Safety
    /// There is a function of exactly this type, and it is there as long as the
    /// lifetime. The address is not null.
    #[doc(hidden)]
    #[must_use]
    pub unsafe fn at(address: *const u8) -> Self {
        Self {
            // SAFETY: as promised by the caller.
            function: unsafe { F::from_address(address.cast()) },
            code: PhantomData,
        }
    }
}

impl<F> Deref for Entry<'_, F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.function
    }
}

impl<F: Copy> Clone for Entry<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Copy> Copy for Entry<'_, F> {}

impl<F: CodePointer> fmt::Debug for Entry<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Pointer::fmt(&self.function.address(), f)
    }
}

/// A function pointer of a named calling convention, safe to call or not, of up to
/// 16 arguments: `extern "C" fn(i32) -> i32`, `unsafe extern "sysv64-unwind" fn()`.
///
/// Functions that take references with a lifetime of the call's own
/// (`extern "C" fn(&mut State)`) are none: use a raw pointer there, which is
/// passed in the same way, or cast the [pointer](Entry#the-plain-function-pointer).
///
/// ```
/// use jitfd::{CodePointer, Entry, Error, Published, Region};
///
/// /// # Safety
/// /// What was published is an `F`.
/// unsafe fn compiled<'a, F: CodePointer>(
///     region: &'a Region,
///     published: Published,
/// ) -> Result<Entry<'a, F>, Error> {
///     // SAFETY: as promised by the caller.
///     unsafe { region.entry(published) }
/// }
/// ```
///
/// # Safety
/// Sealed: a function pointer type, of the size of an address and never null.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a function pointer type that code can be called by",
    label = "not a function pointer of a named calling convention",
    note = "write for example `extern \"C\" fn(i32) -> i32`; pass references as raw pointers"
)]
pub unsafe trait CodePointer: sealed::Sealed + Copy {
    /// # Safety
    /// At the address is a function that can be called as this type says; the
    /// address is not null.
    #[doc(hidden)]
    #[must_use]
    unsafe fn from_address(address: *const c_void) -> Self;

    /// The address of the function.
    #[doc(hidden)]
    fn address(self) -> *const c_void;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! one {
    ([$($abi:tt)*] $($A:ident)*) => {
        impl<$($A,)* R> sealed::Sealed for $($abi)* fn($($A),*) -> R {}

        // SAFETY: a function pointer type.
        unsafe impl<$($A,)* R> CodePointer for $($abi)* fn($($A),*) -> R {
            unsafe fn from_address(address: *const c_void) -> Self {
                // SAFETY: a function pointer has the size of an address; the caller
                // vouches for the function.
                unsafe { std::mem::transmute::<*const c_void, Self>(address) }
            }

            fn address(self) -> *const c_void {
                self as *const c_void
            }
        }
    };
}

macro_rules! code_pointers {
    ($($A:ident)*) => {
        one!([extern "C"] $($A)*);
        one!([unsafe extern "C"] $($A)*);
        one!([extern "C-unwind"] $($A)*);
        one!([unsafe extern "C-unwind"] $($A)*);
        one!([extern "system"] $($A)*);
        one!([unsafe extern "system"] $($A)*);
        one!([extern "system-unwind"] $($A)*);
        one!([unsafe extern "system-unwind"] $($A)*);
        #[cfg(target_arch = "x86_64")]
        mod_sysv!($($A)*);
    };
}

#[cfg(target_arch = "x86_64")]
macro_rules! mod_sysv {
    ($($A:ident)*) => {
        one!([extern "sysv64"] $($A)*);
        one!([unsafe extern "sysv64"] $($A)*);
        one!([extern "sysv64-unwind"] $($A)*);
        one!([unsafe extern "sysv64-unwind"] $($A)*);
        one!([extern "win64"] $($A)*);
        one!([unsafe extern "win64"] $($A)*);
    };
}

code_pointers!();
code_pointers!(A);
code_pointers!(A B);
code_pointers!(A B C);
code_pointers!(A B C D);
code_pointers!(A B C D E);
code_pointers!(A B C D E F);
code_pointers!(A B C D E F G);
code_pointers!(A B C D E F G H);
code_pointers!(A B C D E F G H I);
code_pointers!(A B C D E F G H I J);
code_pointers!(A B C D E F G H I J K);
code_pointers!(A B C D E F G H I J K L);
code_pointers!(A B C D E F G H I J K L M);
code_pointers!(A B C D E F G H I J K L M N);
code_pointers!(A B C D E F G H I J K L M N O);
code_pointers!(A B C D E F G H I J K L M N O P);

#[cfg(test)]
mod tests {
    use super::*;

    extern "C" fn add(a: i32, b: i32) -> i32 {
        a + b
    }

    #[test]
    fn an_entry_is_the_function_at_its_address() {
        let address = add as extern "C" fn(i32, i32) -> i32 as *const u8;
        // SAFETY: such a function is there, for ever.
        let entry = unsafe { Entry::<extern "C" fn(i32, i32) -> i32>::at(address) };
        let copy = entry;
        assert_eq!((entry(1, 2), copy(3, 4), (*entry)(5, 6)), (3, 7, 11));
        assert_eq!(format!("{entry:?}"), format!("{address:p}"));
        assert_eq!(size_of_val(&entry), size_of::<usize>());
    }
}
