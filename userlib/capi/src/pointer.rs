// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads and writes through the pointers that C passes. A null pointer is an
//! error, or nothing where the header says that it may be null; any other
//! pointer is believed.

use crate::guard::Failure;
use rust::internal::check_len;
use std::ffi::c_void;
use std::slice;

/// The object behind a pointer.
///
/// # Safety
/// `pointer` is null, or valid for reads as long as the reference is used.
pub(crate) unsafe fn object<'a, T>(pointer: *const T) -> Result<&'a T, Failure> {
    // SAFETY: as promised by the caller.
    unsafe { pointer.as_ref() }.ok_or(Failure::NULL)
}

/// The array of `count` items; `pointer` may be null if there are none.
///
/// # Safety
/// `pointer` is null, or valid for reads of `count` items as long as the slice
/// is used.
pub(crate) unsafe fn array<'a, T>(pointer: *const T, count: usize) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(Failure::NULL);
    }
    let bytes = count.checked_mul(size_of::<T>());
    if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        return Err(Failure::Refused(libc::EINVAL, "a length is too large"));
    }
    // SAFETY: as promised by the caller; the size was checked.
    Ok(unsafe { slice::from_raw_parts(pointer, count) })
}

/// A copy of the `len` bytes of a chunk, which another thread may be writing to:
/// whatever was read is what is used from then on. A length that no chunk can have
/// is refused before anything is read.
///
/// # Safety
/// `source` is null or valid for reads of `len` bytes.
pub(crate) unsafe fn copy(source: *const c_void, len: usize) -> Result<Vec<u8>, Failure> {
    check_len(len)?;
    if source.is_null() {
        return Err(Failure::NULL);
    }
    let mut bytes = Vec::new();
    if bytes.try_reserve_exact(len).is_err() {
        return Err(Failure::Refused(
            libc::ENOMEM,
            "no memory for a copy of the code",
        ));
    }
    // SAFETY: the source is readable as promised by the caller, the copy has
    // room for `len` bytes, and all of them are set.
    unsafe {
        std::ptr::copy_nonoverlapping(source.cast(), bytes.as_mut_ptr(), len);
        bytes.set_len(len);
    }
    Ok(bytes)
}

/// A list of what there is one of for each item of the caller's array.
pub(crate) fn list<T>(
    items: impl ExactSizeIterator<Item = Result<T, Failure>>,
) -> Result<Vec<T>, Failure> {
    let mut list = Vec::new();
    if list.try_reserve_exact(items.len()).is_err() {
        let text = "no memory for a list as long as the array that was passed";
        return Err(Failure::Refused(libc::ENOMEM, text));
    }
    for item in items {
        list.push(item?);
    }
    Ok(list)
}

/// Stores a result, if the caller wants it.
///
/// # Safety
/// `pointer` is null or valid for a write.
pub(crate) unsafe fn store<T>(pointer: *mut T, value: T) {
    if !pointer.is_null() {
        // SAFETY: as promised by the caller.
        unsafe { pointer.write(value) };
    }
}

/// Stores results one after the other, if the caller wants them.
///
/// # Safety
/// `pointer` is null or valid for writes of as many items as `values` has.
pub(crate) unsafe fn store_all<T>(pointer: *mut T, values: impl IntoIterator<Item = T>) {
    if pointer.is_null() {
        return;
    }
    for (index, value) in values.into_iter().enumerate() {
        // SAFETY: as promised by the caller.
        unsafe { pointer.add(index).write(value) };
    }
}

/// Checks that a result can be stored, before anything is done.
pub(crate) fn wanted<T>(pointer: *mut T) -> Result<(), Failure> {
    if pointer.is_null() {
        Err(Failure::NULL)
    } else {
        Ok(())
    }
}

/// Takes an object of C back; `None` if the pointer is null.
///
/// # Safety
/// `pointer` is null or was made by `guard::object`, and nobody uses it any more.
pub(crate) unsafe fn take<T>(pointer: *mut T) -> Option<T> {
    // SAFETY: as promised by the caller.
    (!pointer.is_null()).then(|| *unsafe { Box::from_raw(pointer) })
}
