// SPDX-License-Identifier: MIT OR Apache-2.0

//! The types that closures take and return, and how the System V ABI passes them.
#![expect(unsafe_code, reason = "what the types promise")]

use jitfd_code::internal::num;
use std::ffi::c_void;

mod sealed {
    pub trait Sealed {}
}
pub(crate) use sealed::Sealed;

/// A type that a closure can take: integers and `bool`, floating point numbers, raw
/// pointers, and `Option`s of C function pointers.
///
/// ```
/// fn is<A: jitfd_trampoline::Argument>() {}
///
/// is::<i8>();
/// is::<bool>();
/// is::<f32>();
/// is::<*const [u8; 4]>();
/// is::<Option<extern "C" fn(i32)>>();
/// ```
///
/// # Safety
/// Sealed: the ABI passes it in one register of the class that it says, or in 8
/// bytes of the stack.
pub unsafe trait Argument: Sealed + Copy {
    /// Whether it is passed in general registers; else in vector registers.
    #[doc(hidden)]
    const INTEGER: bool;

    /// The value from the low bits of where it was passed.
    ///
    /// # Safety
    /// A value of the type was passed there.
    #[doc(hidden)]
    unsafe fn from_bits(bits: u64) -> Self;
}

/// A result, by the class that the ABI gives it.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum Returned {
    Nothing,
    Integer(u64),
    F32(f32),
    F64(f64),
}

/// A type that a closure can return: what is an [`Argument`], and `()`.
///
/// ```
/// fn is<R: jitfd_trampoline::Return>() {}
///
/// is::<()>();
/// is::<f64>();
/// is::<*mut u8>();
/// ```
///
/// # Safety
/// Sealed: the ABI returns it in `rax` or `xmm0`, or not at all.
pub unsafe trait Return: Sealed {
    /// What is put where it is returned.
    #[doc(hidden)]
    fn returned(self) -> Returned;
}

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl Sealed for $type {}

        // SAFETY: of the class INTEGER, of at most 8 bytes.
        unsafe impl Argument for $type {
            const INTEGER: bool = true;

            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_possible_wrap,
                clippy::unnecessary_cast,
                reason = "the bits above the value's are not specified"
            )]
            unsafe fn from_bits(bits: u64) -> Self {
                bits as Self
            }
        }

        // SAFETY: of the class INTEGER, of at most 8 bytes.
        unsafe impl Return for $type {
            #[allow(
                clippy::cast_sign_loss,
                clippy::cast_lossless,
                clippy::unnecessary_cast,
                reason = "extended as its sign says, which some callers rely on"
            )]
            fn returned(self) -> Returned {
                Returned::Integer(self as u64)
            }
        }
    )*};
}

integers!(i8 i16 i32 i64 isize u8 u16 u32 u64 usize);

impl Sealed for bool {}

// SAFETY: of the class INTEGER, in the low 8 bits.
unsafe impl Argument for bool {
    const INTEGER: bool = true;

    unsafe fn from_bits(bits: u64) -> Self {
        bits & 0xff != 0
    }
}

// SAFETY: of the class INTEGER, in the low 8 bits.
unsafe impl Return for bool {
    fn returned(self) -> Returned {
        Returned::Integer(self.into())
    }
}

macro_rules! floats {
    ($($type:ty: $bits:ty, $variant:ident;)*) => {$(
        impl Sealed for $type {}

        // SAFETY: of the class SSE, in the low bits.
        unsafe impl Argument for $type {
            const INTEGER: bool = false;

            #[allow(
                clippy::cast_possible_truncation,
                clippy::unnecessary_cast,
                reason = "the bits above the value's are not specified"
            )]
            unsafe fn from_bits(bits: u64) -> Self {
                Self::from_bits(bits as $bits)
            }
        }

        // SAFETY: of the class SSE, in the low bits.
        unsafe impl Return for $type {
            fn returned(self) -> Returned {
                Returned::$variant(self)
            }
        }
    )*};
}

floats! {
    f32: u32, F32;
    f64: u64, F64;
}

macro_rules! pointers {
    ($($kind:ident)*) => {$(
        impl<T> Sealed for *$kind T {}

        // SAFETY: of the class INTEGER.
        unsafe impl<T> Argument for *$kind T {
            const INTEGER: bool = true;

            unsafe fn from_bits(bits: u64) -> Self {
                std::ptr::with_exposed_provenance::<T>(num::to_usize(bits)) as Self
            }
        }

        // SAFETY: of the class INTEGER.
        unsafe impl<T> Return for *$kind T {
            fn returned(self) -> Returned {
                Returned::Integer(num::to_u64(self.expose_provenance()))
            }
        }
    )*};
}

pointers!(const mut);

impl Sealed for () {}

// SAFETY: not returned at all.
unsafe impl Return for () {
    fn returned(self) -> Returned {
        Returned::Nothing
    }
}

/// A function pointer of the C ABI, safe or not.
///
/// ```
/// fn is<P: jitfd_trampoline::CodePointer>() {}
///
/// is::<extern "C" fn(i32)>();
/// is::<unsafe extern "C-unwind" fn() -> f64>();
/// ```
///
/// # Safety
/// Sealed: a function pointer type, of the size of an address and never null.
pub unsafe trait CodePointer: Sealed + Copy {
    /// # Safety
    /// At the address is a function that can be called as this type says.
    #[doc(hidden)]
    #[must_use]
    unsafe fn from_address(address: *const c_void) -> Self {
        assert!(size_of::<Self>() == size_of::<*const c_void>() && !address.is_null());
        // SAFETY: the sizes are equal, and it is not null; the caller vouches for
        // the function.
        unsafe { std::mem::transmute_copy(&address) }
    }
}

impl<P: CodePointer> Sealed for Option<P> {}

// SAFETY: a function pointer or null, of the class INTEGER.
unsafe impl<P: CodePointer> Argument for Option<P> {
    const INTEGER: bool = true;

    unsafe fn from_bits(bits: u64) -> Self {
        let address = std::ptr::with_exposed_provenance(num::to_usize(bits));
        // SAFETY: the caller vouches for the value; one that is not null is a
        // function of that type.
        (bits != 0).then(|| unsafe { P::from_address(address) })
    }
}

// SAFETY: a function pointer or null, of the class INTEGER.
unsafe impl<P: CodePointer> Return for Option<P> {
    fn returned(self) -> Returned {
        let address = self.map_or(0, |code| {
            // SAFETY: a function pointer has the size of an address.
            unsafe { std::mem::transmute_copy::<P, *const c_void>(&code) }.expose_provenance()
        });
        Returned::Integer(num::to_u64(address))
    }
}
