// SPDX-License-Identifier: MIT OR Apache-2.0

//! Structs that may grow. The first field of each is the size that the caller's
//! header has it in, so a program and a library of different versions agree on
//! how much of it both know, as the kernel does with its extensible structs.

use crate::guard::Failure;
use std::ffi::c_void;
use std::ptr;

/// A struct that begins with its size in bytes.
///
/// # Safety
/// `repr(C)`, its first field a `usize`, no padding, and zero is a value of
/// every field.
pub(crate) unsafe trait Versioned: Sized {
    /// The size in the first version: what every caller has.
    const FIRST: usize;
}

/// The caller's struct, with zero in what its version does not have; all zero
/// if the pointer is null.
///
/// Fields that this library does not know must be zero: they ask for something
/// that it can't do.
///
/// # Safety
/// `pointer` is null, or valid for reads of a `usize` and of as many bytes as
/// that says.
pub(crate) unsafe fn read<T: Versioned>(pointer: *const T) -> Result<T, Failure> {
    // SAFETY: by the trait, zero is a value of every field.
    let mut known: T = unsafe { std::mem::zeroed() };
    if pointer.is_null() {
        return Ok(known);
    }
    // SAFETY: as promised by the caller.
    let size = unsafe { size_of_caller(pointer)? };
    // SAFETY: `size` bytes may be read, and `known` has room for this many.
    unsafe {
        let bytes = size.min(size_of::<T>());
        ptr::copy_nonoverlapping(pointer.cast::<u8>(), (&raw mut known).cast(), bytes);
        if more(pointer.cast(), size, size_of::<T>()).any(|byte| byte != 0) {
            return Err(Failure::Refused(
                libc::E2BIG,
                "a struct asks for something that this version of the library does not have",
            ));
        }
    }
    Ok(known)
}

/// Checks that a result can be stored, before anything is done.
///
/// # Safety
/// `pointer` is null or valid for reads of a `usize`.
pub(crate) unsafe fn check<T: Versioned>(pointer: *const T) -> Result<(), Failure> {
    if pointer.is_null() {
        return Ok(());
    }
    // SAFETY: as promised by the caller.
    unsafe { size_of_caller(pointer) }.map(|_| ())
}

/// Fills the caller's struct as far as it goes, but for its size; zero in what
/// this library does not know. Does nothing if the pointer is null.
///
/// # Safety
/// `pointer` is null, or valid for reads of a `usize` and for writes of as many
/// bytes as that says.
pub(crate) unsafe fn write<T: Versioned>(pointer: *mut T, value: &T) -> Result<(), Failure> {
    if pointer.is_null() {
        return Ok(());
    }
    // SAFETY: as promised by the caller.
    let size = unsafe { size_of_caller(pointer)? };
    let (to, from) = (pointer.cast::<u8>(), ptr::from_ref(value).cast::<u8>());
    let common = size.min(size_of::<T>());
    // SAFETY: both have `common` bytes, at least `FIRST`, and the caller's has
    // `size`.
    unsafe {
        let head = size_of::<usize>();
        ptr::copy_nonoverlapping(from.add(head), to.add(head), common - head);
        ptr::write_bytes(to.add(common), 0, size - common);
    }
    Ok(())
}

/// # Safety
/// `pointer` is valid for reads of a `usize`.
unsafe fn size_of_caller<T: Versioned>(pointer: *const T) -> Result<usize, Failure> {
    // SAFETY: as promised by the caller; the size is the first field.
    let size = unsafe { pointer.cast::<usize>().read() };
    // No struct of ours will ever be larger than a page: this one has no size.
    if (T::FIRST..=4096).contains(&size) {
        Ok(size)
    } else {
        Err(Failure::Refused(
            libc::EINVAL,
            "the field size of a struct is not the struct's size",
        ))
    }
}

/// The bytes of the caller's struct from `from` on.
///
/// # Safety
/// `pointer` is valid for reads of `size` bytes.
unsafe fn more(pointer: *const c_void, size: usize, from: usize) -> impl Iterator<Item = u8> {
    (from..size).map(move |at| {
        // SAFETY: as promised by the caller.
        unsafe { pointer.cast::<u8>().add(at).read() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Debug, PartialEq)]
    struct Two {
        size: usize,
        first: u64,
        second: u64,
    }

    // SAFETY: three words.
    unsafe impl Versioned for Two {
        const FIRST: usize = 16;
    }

    fn read_words(words: &[usize]) -> Result<Two, Failure> {
        // SAFETY: the size, in the first word, is not larger than the array.
        unsafe { read(words.as_ptr().cast()) }
    }

    #[test]
    fn an_older_caller_has_zero_in_the_new_fields() {
        let two = read_words(&[16, 1]).unwrap();
        assert_eq!((two.first, two.second), (1, 0));
        // SAFETY: null is allowed.
        let none: Two = unsafe { read(ptr::null()) }.unwrap();
        assert_eq!(none.first, 0);
    }

    #[test]
    fn a_newer_caller_may_not_use_what_is_unknown() {
        assert_eq!(read_words(&[32, 1, 2, 0]).unwrap().second, 2);
        let refused = read_words(&[32, 1, 2, 3]);
        assert!(matches!(refused, Err(Failure::Refused(libc::E2BIG, _))));
    }

    #[test]
    fn a_size_that_was_not_set_is_found_out() {
        for size in [0, 8, 15, 4097, usize::MAX] {
            let refused = read_words(&[size, 1]);
            assert!(matches!(refused, Err(Failure::Refused(libc::EINVAL, _))));
        }
    }

    #[test]
    fn results_fill_what_the_caller_has_and_no_more() {
        let value = Two {
            size: 0,
            first: 5,
            second: 6,
        };
        for (size, wanted) in [
            (16, [16, 5, 9, 9]),
            (24, [24, 5, 6, 9]),
            (32, [32, 5, 6, 0]),
        ] {
            let mut words = [size, 9, 9, 9_usize];
            // SAFETY: the array has at least `size` bytes.
            unsafe { write(words.as_mut_ptr().cast(), &value) }.unwrap();
            assert_eq!(words, wanted);
        }
    }
}
