// SPDX-License-Identifier: MIT OR Apache-2.0

//! Chunks: code that was checked, and may be published.

use crate::guard::{self, Failure};
use crate::pointer;
use crate::rules::{ChunkRules, jitfd_rules};
use crate::versioned::{self, Versioned};
use rust::{Chunk, validate_owned};
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
/// rules may be null. Give the chunk back with jitfd_chunk_destroy.
///
/// Returns null with errno EILSEQ if an instruction is refused, EINVAL for a length
/// of 0 or above 1 GiB or a bad data range: jitfd_get_code_error tells where and why.
/// EINVAL also for a null source, a bad align, flag or size; E2BIG if rules asks for
/// what this version does not have; ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_validate(
    source: *const c_void,
    len: usize,
    rules: *const jitfd_rules,
) -> *mut jitfd_chunk {
    guard::object(|| {
        // SAFETY: the header says what these pointers must be.
        let (rules, copy) = unsafe { (ChunkRules::read(rules)?, pointer::copy(source, len)?) };
        let code = validate_owned(copy, &rules.options)?;
        Ok(jitfd_chunk {
            code: code.aligned(rules.align),
        })
    })
}

/// Takes a copy of the code as valid without looking at it: this bypasses
/// validation. The caller vouches for all that jitfd_validate checks, and that
/// rules name every byte of data that the code loads.
///
/// Returns null with errno as jitfd_validate; give the chunk back with
/// jitfd_chunk_destroy.
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
pub unsafe extern "C" fn jitfd_chunk_destroy(chunk: *mut jitfd_chunk) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(chunk) }));
}

/// What a chunk is.
#[repr(C)]
pub struct jitfd_chunk_info {
    /// In: sizeof(struct jitfd_chunk_info).
    pub size: usize,
    /// Its bytes, valid until it is given back.
    pub bytes: *const c_void,
    /// How many bytes there are.
    pub len: usize,
    /// Where branches go behind a lock prefix, which JITFD_RULE_ALLOW_LOCK_SKIPS has
    /// let pass: in bytes from the start of the chunk. Valid until it is given back.
    pub lock_skips: *const usize,
    /// How many of these there are.
    pub lock_skip_count: usize,
    /// The alignment at which it is appended, in bytes.
    pub align: u32,
    /// 1 if some of it is data, else 0.
    pub holds_data: u32,
}

// SAFETY: `repr(C)`, five words and two half words; zero is a value of all.
unsafe impl Versioned for jitfd_chunk_info {
    const FIRST: usize = 48;
}

/// Stores what a chunk is.
///
/// Returns 0, or -1 with errno EINVAL for a null pointer or a bad size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_chunk_get_info(
    chunk: *const jitfd_chunk,
    info: *mut jitfd_chunk_info,
) -> c_int {
    guard::status(|| {
        pointer::wanted(info)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let code = &pointer::object(chunk)?.code;
            let made = jitfd_chunk_info {
                size: size_of::<jitfd_chunk_info>(),
                bytes: code.bytes().as_ptr().cast(),
                len: code.len(),
                lock_skips: code.lock_skips().as_ptr(),
                lock_skip_count: code.lock_skips().len(),
                align: u32::try_from(code.align().bytes()).unwrap_or(0),
                holds_data: code.holds_data().into(),
            };
            versioned::write(info, &made)
        }
    })
}

/// An instruction begins there.
pub const JITFD_CHUNK_INSTRUCTION: c_int = 1;
/// Other chunks may branch to there.
pub const JITFD_CHUNK_ENTRY: c_int = 2;

/// What is at an offset of a chunk, in bytes from its start: JITFD_CHUNK_INSTRUCTION
/// and JITFD_CHUNK_ENTRY, or 0, in the middle of an instruction, in data or beyond the
/// end.
///
/// Returns -1 with errno EINVAL if chunk is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_chunk_at(chunk: *const jitfd_chunk, offset: usize) -> c_int {
    guard::number(|| {
        // SAFETY: the header says what this pointer must be.
        let code = unsafe { &pointer::object(chunk)?.code };
        let flag = |is, flag| if is { flag } else { 0 };
        Ok(flag(code.is_boundary(offset), JITFD_CHUNK_INSTRUCTION)
            | flag(code.is_entry(offset), JITFD_CHUNK_ENTRY))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_has_the_size_it_had() {
        assert_eq!(size_of::<jitfd_chunk_info>(), jitfd_chunk_info::FIRST);
    }
}
