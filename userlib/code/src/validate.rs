// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a chunk must be to become [`Chunk`].

use crate::bitmap::Bitmap;
use crate::chunk::{Chunk, Parts};
use crate::data::{check_len, checked_data, in_data};
use crate::error::{CodeError, LONGEST, Reason};
use crate::foreign::explained;
use crate::parallel;
use crate::pushed::pushed;
use crate::rules::Rules;
use crate::sweep::{Job, Sweep, find_branch};
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};

/// Checks a copy of `code`, the machine code of one chunk, and returns that
/// copy as the only thing that can be published.
///
/// A chunk passes if
/// * every byte of it belongs to a complete instruction that is valid in 64-bit
///   mode, or to a data range declared in `rules`;
/// * it ends where an instruction or a data range ends;
/// * every direct branch (jump, conditional jump, call, loop, `xbegin`) inside
///   the chunk goes to the first byte of an instruction;
/// * no direct branch has an operand-size prefix, which processors of different
///   makers understand differently.
///
/// [`Rules`] can tighten that: declared entries, `endbr64`, forbidden
/// instructions, lines of 64 bytes.
///
/// Branches that leave the chunk pass here; a `Region` checks
/// those that stay in its region. Indirect branches and returns are not
/// checked, nor is what an instruction does.
///
/// The copy is made here, before the check, and the check reads nothing else; it
/// is what the kernel copies from when the chunk is published. So what was checked
/// is what is published. A source that somebody else may write to meanwhile,
/// another thread or another process, is no `&[u8]` in Rust: see
/// [`validate_shared`].
///
/// A chunk of 1 MiB or more is divided among the CPUs that the process may use
/// (see [`Rules::threads`]); verdict and error are the same.
///
/// # Errors
/// [`CodeError`] says which instruction is at fault, why, and what to do; or,
/// with [`Reason::NoMemory`], that there is no memory for the check.
///
/// # Example
/// ```
/// use jitfd::{Rules, Reason, validate};
///
/// assert!(validate(&[0xb8, 42, 0, 0, 0, 0xc3], &Rules::new()).is_ok());
/// let error = validate(&[0x90, 0xb8, 42], &Rules::new()).unwrap_err();
/// assert_eq!((error.offset, error.reason), (1, Reason::Truncated));
/// ```
pub fn validate(code: &[u8], rules: &Rules) -> Result<Chunk, CodeError> {
    let mut copy = room_for(code.len())?;
    copy.extend_from_slice(code);
    check(copy, rules)
}

/// Checks `code` without copying it: nobody else can change it meanwhile.
///
/// # Errors
/// As [`validate`].
///
/// # Example
/// ```
/// use jitfd::{Rules, validate_owned};
///
/// // The emitter's buffer is given away.
/// let buffer = vec![0x90, 0xc3];
/// let chunk = validate_owned(buffer, &Rules::new()).unwrap();
/// assert_eq!(chunk.bytes(), [0x90, 0xc3]);
/// ```
pub fn validate_owned(code: Vec<u8>, rules: &Rules) -> Result<Chunk, CodeError> {
    check(code, rules)
}

/// Checks a copy of bytes that others may write to meanwhile: memory that is
/// shared with another process, or with a thread that is not trusted to have
/// finished. Each byte is read once.
///
/// # Errors
/// As [`validate`]. They show the bytes of the copy.
///
/// # Example
/// ```
/// use jitfd::{Rules, validate_shared};
/// use std::sync::atomic::AtomicU8;
///
/// let shared = [const { AtomicU8::new(0x90) }; 16];
/// let chunk = validate_shared(&shared, &Rules::new()).unwrap();
/// assert_eq!(chunk.bytes(), [0x90; 16]);
/// ```
pub fn validate_shared(code: &[AtomicU8], rules: &Rules) -> Result<Chunk, CodeError> {
    let mut copy = room_for(code.len())?;
    copy.extend(code.iter().map(|byte| byte.load(Ordering::Relaxed)));
    check(copy, rules)
}

/// A vector that takes a copy of `len` bytes of code without getting more memory.
fn room_for(len: usize) -> Result<Vec<u8>, CodeError> {
    check_len(len)?;
    let mut copy = Vec::new();
    copy.try_reserve_exact(len)
        .map_err(|_| CodeError::no_memory())?;
    Ok(copy)
}

fn check(code: Vec<u8>, rules: &Rules) -> Result<Chunk, CodeError> {
    let found = find(&code, rules).map_err(|error| explained(&code, error))?;
    Ok(Chunk::from_parts(Parts { code, ..found }))
}

/// What there is to know of `code`, which is left out, if it passes.
fn find(code: &[u8], rules: &Rules) -> Result<Parts, CodeError> {
    let data = checked_data(&rules.data, code.len())?;
    let job = Job {
        chunk: code,
        data: &data,
        rules: &rules.each,
    };
    let sweep = parallel::sweep(job, rules.threads)?;
    let lock_skips = check_targets(code, &data, &sweep, rules.lock_skips)?;
    let entries = check_entries(code, &sweep.starts, rules)?;
    Ok(Parts {
        code: Vec::new(),
        data,
        starts: Some(sweep.starts),
        entries,
        outside: sweep.outside,
        lock_skips,
        within_lines: rules.each.within_lines,
        leaves: rules.leaves.clone(),
    })
}

/// Checks the declared entries; returns them as bits, or `None` if every
/// instruction is one.
fn check_entries(code: &[u8], starts: &Bitmap, rules: &Rules) -> Result<Option<Bitmap>, CodeError> {
    let entries = match (&rules.entries, rules.endbr64) {
        (None, false) => return Ok(None),
        (Some(entries), false) => &entries[..],
        (Some(entries), true) if !entries.is_empty() => &entries[..],
        (_, true) => &[0],
    };
    let mut bits = Bitmap::new(code.len()).ok_or_else(CodeError::no_memory)?;
    for &entry in entries {
        check_entry(code, starts, entry, rules.endbr64)?;
        bits.set(entry);
    }
    Ok(Some(bits))
}

fn check_entry(code: &[u8], starts: &Bitmap, entry: usize, endbr64: bool) -> Result<(), CodeError> {
    if !starts.get(entry) {
        return Err(CodeError::at(code, entry, Reason::BadEntry { entry }));
    }
    let begins = code.get(entry..).is_some_and(|at| at.starts_with(&ENDBR64));
    if endbr64 && !begins {
        return Err(CodeError::at(code, entry, Reason::NoEndbr64));
    }
    Ok(())
}

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Judges every target that is not the start of an instruction. Returns those
/// that are tolerated.
fn check_targets(
    code: &[u8],
    data: &[Range<usize>],
    sweep: &Sweep,
    allowed: bool,
) -> Result<Vec<usize>, CodeError> {
    let mut tolerated = Vec::new();
    for target in sweep.targets.missing_in(&sweep.starts) {
        match judge(code, data, &sweep.starts, target) {
            Reason::SkipsLock { .. } if allowed => {
                if !pushed(&mut tolerated, target) {
                    return Err(CodeError::no_memory());
                }
            }
            reason => {
                let branch = find_branch(code, &sweep.starts, target).unwrap_or(target);
                return Err(CodeError::at(code, branch, reason));
            }
        }
    }
    Ok(tolerated)
}

/// What a branch to `target`, not the start of an instruction, hits.
fn judge(code: &[u8], data: &[Range<usize>], starts: &Bitmap, target: usize) -> Reason {
    if in_data(data, target) {
        return Reason::IntoData { target };
    }
    let start = starts.last_before(target, LONGEST).unwrap_or(target);
    if start + 1 == target && code.get(start) == Some(&LOCK) {
        return Reason::SkipsLock { target };
    }
    Reason::IntoInstruction { target, start }
}

/// The `lock` prefix. Without it the rest of a valid instruction is a valid
/// instruction of the same end.
pub const LOCK: u8 = 0xf0;
