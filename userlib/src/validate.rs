// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a chunk must be to become [`Validated`].

use crate::abi;
use crate::bitmap::Bitmap;
use crate::cast::to_u64;
use crate::fault::{LONGEST, Reason, ValidationError};
use crate::scan::{Scan, find_branch};
use crate::validated::{Parts, Validated};
use std::ops::Range;

/// What to do with a direct branch that goes behind the `lock` prefix of an
/// instruction. Such branches are meant: glibc has five, which take the prefix
/// only if there is more than one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockSkips {
    /// Refuse the chunk, with [`Reason::SkipsLock`].
    #[default]
    Refuse,
    /// Accept it; [`Validated::lock_skips`] lists where it happens.
    Tolerate,
}

/// What a chunk may be and where its data is.
///
/// ```
/// use jitfd::{Options, validate};
///
/// // mov eax, [rip + 1]; ret; and the four bytes that it loads.
/// let code = [0x8b, 0x05, 1, 0, 0, 0, 0xc3, 42, 0, 0, 0];
/// let chunk = validate(&code, &Options::new().data(7..11)).unwrap();
/// assert!(chunk.holds_data());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    lock_skips: LockSkips,
    data: Vec<Range<usize>>,
}

impl Options {
    /// No data, and branches behind a `lock` prefix are refused.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            lock_skips: LockSkips::Refuse,
            data: Vec::new(),
        }
    }

    /// Sets what happens to branches behind a `lock` prefix.
    #[must_use]
    pub const fn lock_skips(mut self, rule: LockSkips) -> Self {
        self.lock_skips = rule;
        self
    }

    /// Declares bytes of the chunk as data: constants, jump tables. Offsets are
    /// in bytes from the start of the chunk. Ranges may come in any order.
    #[must_use]
    pub fn data(mut self, range: Range<usize>) -> Self {
        self.data.push(range);
        self
    }
}

/// Checks many chunks by the same rules. [`validate`] is the short form.
///
/// ```
/// use jitfd::{Options, Validator};
///
/// let validator = Validator::new(Options::new());
/// assert!(validator.validate(&[0x90, 0xc3]).is_ok());
/// assert!(validator.validate(&[0x06]).is_err()); // push es: not in 64-bit mode
/// ```
#[derive(Clone, Debug, Default)]
pub struct Validator {
    options: Options,
}

impl Validator {
    /// A validator with these rules.
    #[must_use]
    pub const fn new(options: Options) -> Self {
        Self { options }
    }

    /// Checks a copy of `code`. See [`validate`].
    ///
    /// # Errors
    /// As [`validate`].
    pub fn validate(&self, code: &[u8]) -> Result<Validated, ValidationError> {
        check(code.to_vec(), &self.options)
    }

    /// Checks `code` without copying it: nobody else can change it meanwhile.
    ///
    /// # Errors
    /// As [`validate`].
    pub fn validate_owned(&self, code: Vec<u8>) -> Result<Validated, ValidationError> {
        check(code, &self.options)
    }
}

/// Checks a copy of `code`, the machine code of one chunk, and returns that
/// copy as the only thing that can be published.
///
/// A chunk passes if
/// * every byte of it belongs to a complete instruction that is valid in 64-bit
///   mode, or to a data range declared in `options`;
/// * it ends where an instruction or a data range ends;
/// * every direct branch (jump, conditional jump, call, loop, `xbegin`) inside
///   the chunk goes to the first byte of an instruction;
/// * no direct branch has an operand-size prefix, which processors of different
///   makers understand differently.
///
/// Branches that leave the chunk pass here; a [`JitFd`](crate::JitFd) checks
/// those that stay in its region. Indirect branches and returns are not
/// checked, nor is what an instruction does.
///
/// The copy is made before the check, so what was checked is what is published,
/// whoever writes to the source meanwhile.
///
/// # Errors
/// [`ValidationError`] says which instruction is at fault, why, and what to do.
///
/// # Example
/// ```
/// use jitfd::{Options, Reason, validate};
///
/// assert!(validate(&[0xb8, 42, 0, 0, 0, 0xc3], &Options::new()).is_ok());
/// let error = validate(&[0x90, 0xb8, 42], &Options::new()).unwrap_err();
/// assert_eq!((error.offset(), error.reason()), (1, &Reason::Truncated));
/// ```
pub fn validate(code: &[u8], options: &Options) -> Result<Validated, ValidationError> {
    check(code.to_vec(), options)
}

fn check(code: Vec<u8>, options: &Options) -> Result<Validated, ValidationError> {
    let data = checked_data(&options.data, code.len())?;
    let scan = Scan::new(&code, &data)?;
    let lock_skips = check_targets(&code, &data, &scan, options.lock_skips)?;
    Ok(Validated::from_parts(Parts {
        code,
        data,
        starts: Some(scan.starts),
        outside: scan.outside,
        lock_skips,
    }))
}

/// Checks the length of a chunk and its data ranges; returns these in
/// ascending order, those that touch or overlap as one.
pub(crate) fn checked_data(
    ranges: &[Range<usize>],
    len: usize,
) -> Result<Vec<Range<usize>>, ValidationError> {
    if len == 0 {
        return Err(ValidationError::whole(Reason::Empty));
    }
    if to_u64(len) > abi::MAX_CODE {
        return Err(ValidationError::whole(Reason::TooLong { len }));
    }
    if let Some(range) = ranges
        .iter()
        .find(|range| range.is_empty() || range.end > len)
    {
        return Err(ValidationError::whole(Reason::DataRange {
            range: range.clone(),
        }));
    }
    Ok(merged(ranges))
}

fn merged(ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable_by_key(|range| range.start);
    sorted.dedup_by(|next, kept| {
        let touches = next.start <= kept.end;
        if touches {
            kept.end = kept.end.max(next.end);
        }
        touches
    });
    sorted
}

/// Judges every target that is not the start of an instruction. Returns those
/// that are tolerated.
fn check_targets(
    code: &[u8],
    data: &[Range<usize>],
    scan: &Scan,
    rule: LockSkips,
) -> Result<Vec<usize>, ValidationError> {
    let mut tolerated = Vec::new();
    for target in scan.targets.missing_in(&scan.starts) {
        match judge(code, data, &scan.starts, target) {
            Reason::SkipsLock { .. } if rule == LockSkips::Tolerate => tolerated.push(target),
            reason => {
                let branch = find_branch(code, &scan.starts, target).unwrap_or(target);
                return Err(ValidationError::at(code, branch, reason));
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
const LOCK: u8 = 0xf0;

/// Whether `at` is inside one of the ascending `data` ranges.
pub(crate) fn in_data(data: &[Range<usize>], at: usize) -> bool {
    let next = data.partition_point(|range| range.end <= at);
    data.get(next).is_some_and(|range| range.contains(&at))
}
