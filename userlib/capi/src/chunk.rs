// SPDX-License-Identifier: MIT OR Apache-2.0

//! Chunks: code that was checked, and may be published.

use crate::fault::jitfd_fault;
use crate::guard::{self, Failure};
use crate::pointer;
use crate::rules::{ChunkRules, jitfd_rules};
use crate::versioned;
use rust::{Chunk, Error, validate_owned};
use std::ffi::{c_int, c_void};

/// Code that passed validation: the only thing that can be published. It has its
/// own copy of the bytes and never changes, so it may be used by several threads
/// at once, and published more than once.
pub struct jitfd_chunk {
    pub(crate) code: Chunk,
}

/// Checks a copy of the code and keeps that copy: what was checked is what is
/// published, whoever writes to the source meanwhile.
///
/// A chunk passes if every byte of it belongs to a complete, valid instruction
/// or to declared data, if it ends where one of these ends, and if direct
/// branches inside it go to instructions. rules can tighten that. Branches that
/// leave the chunk are checked when it is published in a region.
///
/// rules and fault may be null. Give the chunk back with jitfd_chunk_free.
///
/// Returns null with errno EILSEQ if an instruction is refused (fault is filled
/// then), EINVAL for a null source, a length of 0 or above 1 GiB, a bad data
/// range (fault is filled for the last three), align, flag or size; E2BIG if
/// rules asks for what this version does not have; ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_validate(
    source: *const c_void,
    len: usize,
    rules: *const jitfd_rules,
    fault: *mut jitfd_fault,
) -> *mut jitfd_chunk {
    guard::object(|| {
        // SAFETY: the header says what these pointers must be.
        let (rules, copy) = unsafe {
            versioned::check(fault)?;
            (ChunkRules::read(rules)?, pointer::copy(source, len))
        };
        let checked = copy.and_then(|code| Ok(validate_owned(code, &rules.options)?));
        if let Err(Failure::Library(Error::Code(error))) = &checked {
            // SAFETY: as above.
            unsafe { versioned::write(fault, &jitfd_fault::from(error)) }?;
        }
        Ok(jitfd_chunk {
            code: checked?.aligned(rules.align),
        })
    })
}

/// Takes a copy of the code as valid without looking at it: this bypasses
/// validation. The caller vouches for all that jitfd_validate checks, and that
/// rules name every byte of data that the code loads.
///
/// Returns null with errno as jitfd_validate.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_assume_valid(
    source: *const c_void,
    len: usize,
    rules: *const jitfd_rules,
) -> *mut jitfd_chunk {
    guard::object(|| {
        // SAFETY: the header says what these pointers must be.
        let (rules, code) = unsafe { (ChunkRules::read(rules)?, pointer::copy(source, len)?) };
        // SAFETY: the caller vouches for the code.
        let code = unsafe { Chunk::assume_valid(code, &rules.data) }?;
        Ok(jitfd_chunk {
            code: code.aligned(rules.align),
        })
    })
}

/// Gives a chunk back. What was published of it stays. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_chunk_free(chunk: *mut jitfd_chunk) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(chunk) }));
}

/// The bytes of a chunk, valid until it is given back. len may be null.
///
/// Returns null with errno EINVAL if chunk is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_chunk_bytes(
    chunk: *const jitfd_chunk,
    len: *mut usize,
) -> *const c_void {
    // SAFETY: the header says what these pointers must be.
    guard::address(|| unsafe {
        let bytes = pointer::object(chunk)?.code.bytes();
        pointer::store(len, bytes.len());
        Ok(bytes.as_ptr().cast_mut().cast())
    })
}

/// Returns 1 if an instruction starts at offset, in bytes from the start of the
/// chunk, else 0; -1 with errno EINVAL if chunk is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_chunk_is_boundary(
    chunk: *const jitfd_chunk,
    offset: usize,
) -> c_int {
    // SAFETY: the header says what this pointer must be.
    guard::number(|| unsafe { Ok(pointer::object(chunk)?.code.is_boundary(offset).into()) })
}

/// Returns 1 if other chunks may branch to offset, else 0; -1 with errno EINVAL
/// if chunk is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_chunk_is_entry(chunk: *const jitfd_chunk, offset: usize) -> c_int {
    // SAFETY: the header says what this pointer must be.
    guard::number(|| unsafe { Ok(pointer::object(chunk)?.code.is_entry(offset).into()) })
}

/// Returns 1 if some of the chunk is data, else 0; -1 with errno EINVAL if chunk
/// is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_chunk_holds_data(chunk: *const jitfd_chunk) -> c_int {
    // SAFETY: the header says what this pointer must be.
    guard::number(|| unsafe { Ok(pointer::object(chunk)?.code.holds_data().into()) })
}

/// Where branches go behind a lock prefix, which JITFD_TOLERATE_LOCK_SKIPS has
/// let pass: stores at most max offsets, in bytes from the start of the chunk,
/// and in count how many there are. offsets may be null if max is 0.
///
/// Returns 0, or -1 with errno EINVAL for a null pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_chunk_lock_skips(
    chunk: *const jitfd_chunk,
    offsets: *mut usize,
    max: usize,
    count: *mut usize,
) -> c_int {
    guard::status(|| {
        pointer::wanted(count)?;
        if max > 0 {
            pointer::wanted(offsets)?;
        }
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let skips = pointer::object(chunk)?.code.lock_skips();
            pointer::store_all(offsets, skips.iter().take(max).copied());
            pointer::store(count, skips.len());
        }
        Ok(())
    })
}

/// The chunks of an array.
///
/// # Safety
/// `chunks` is null or valid for `count` pointers, each null or to a chunk.
pub(crate) unsafe fn all<'a>(
    chunks: *const *const jitfd_chunk,
    count: usize,
) -> Result<Vec<&'a Chunk>, Failure> {
    // SAFETY: as promised by the caller.
    let pointers = unsafe { pointer::array(chunks, count) }?;
    // SAFETY: as promised by the caller.
    let code = |chunk| unsafe { pointer::object(chunk) }.map(|chunk: &jitfd_chunk| &chunk.code);
    pointer::list(pointers.iter().copied().map(code))
}
