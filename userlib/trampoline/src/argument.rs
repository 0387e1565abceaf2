// SPDX-License-Identifier: MIT OR Apache-2.0

//! The types that closures take and return, and how the System V ABI passes them.
#![expect(unsafe_code, reason = "what the types promise")]

use jitfd::CodePointer;
use jitfd_code::internal::num;

/// A type that a closure can take: integers and `bool`, floating point numbers, raw
/// pointers, and `Option`s of C function pointers.
///
/// # Safety
/// The ABI passes it in one register of the class that it says, or in 8 bytes of the
/// stack.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be an argument of a function that C calls here",
    label = "not passed in one register",
    note = "arguments are integers of up to 64 bits, `bool`, `f32`, `f64`, raw pointers, and \
            `Option`s of `extern \"C\"` function pointers; pass a reference or a struct as a raw \
            pointer"
)]
pub unsafe trait Argument: Copy {
    /// Whether it is passed in general registers; else in vector registers.
    const INTEGER: bool;

    /// The value from the low bits of where it was passed.
    ///
    /// # Safety
    /// A value of the type was passed there.
    unsafe fn from_bits(bits: u64) -> Self;
}

/// A result, by the class that the ABI gives it.
#[derive(Clone, Copy, Debug)]
pub enum Returned {
    Nothing,
    Integer(u64),
    F32(f32),
    F64(f64),
}

/// A type that a closure can return: what is an [`Argument`], and `()`.
///
/// # Safety
/// The ABI returns it in `rax` or `xmm0`, or not at all.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be the result of a function that C calls here",
    label = "not returned in one register",
    note = "results are those types that are arguments, and `()`; a closure that does not return \
            is annotated `-> ()`"
)]
pub unsafe trait Return {
    /// What is put where it is returned.
    fn returned(self) -> Returned;
}

macro_rules! integers {
    ($($type:ty)*) => {$(
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

// SAFETY: not returned at all.
unsafe impl Return for () {
    fn returned(self) -> Returned {
        Returned::Nothing
    }
}

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
        let address = self.map_or(0, |code| code.address().expose_provenance());
        Returned::Integer(num::to_u64(address))
    }
}
