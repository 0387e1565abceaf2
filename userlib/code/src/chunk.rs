// SPDX-License-Identifier: MIT OR Apache-2.0

//! Code that may be published, as a type: the bytes cannot be reached for
//! writing, and there is no other safe way to make one than to validate.

use crate::align::Align;
use crate::bitmap::Bitmap;
use crate::data::{checked_data, in_data};
use crate::error::{CodeError, Reason};
use crate::num::{to_u64, to_usize};
use std::ops::Range;
use std::sync::Arc;

/// One chunk of code that passed [`validate`](crate::validate), and the only
/// thing that can be published.
///
/// It owns its bytes. Publishing does not use it up: the same chunk can be
/// published more than once.
///
/// ```
/// use jitfd::{Align, Rules, validate};
///
/// // mov al, 0x90; ret; and a byte of data
/// let code = [0xb0, 0x90, 0xc3, 1];
/// let chunk = validate(&code, &Rules::new().data(3..4)).unwrap();
/// assert_eq!((chunk.bytes(), chunk.len()), (&code[..], 4));
/// assert!(chunk.holds_data());
/// assert!(chunk.is_boundary(2) && !chunk.is_boundary(1) && !chunk.is_boundary(3));
/// assert!(chunk.is_entry(0)); // every instruction is one, as none was declared
/// assert_eq!(chunk.align(), Align::FUNCTION);
/// ```
///
/// It can't be made in another way, but for [`assume_valid`](Self::assume_valid), which is
/// `unsafe`.
///
/// # Invariants
/// The bytes are not empty and have passed validation with the data ranges
/// kept here, or a caller of [`Chunk::assume_valid`] vouched for them.
#[derive(Clone, Debug)]
pub struct Chunk {
    parts: Parts,
    align: Align,
}

/// A direct branch that leaves its chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside {
    /// Where the branch begins, in bytes from the start of the chunk.
    pub at: usize,
    /// Where it goes, in bytes from the start of the chunk: negative if before.
    pub target: i64,
}

/// What validation has found out about a chunk.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) code: Vec<u8>,
    /// Ascending, not empty, not touching, inside `code`.
    pub(crate) data: Vec<Range<usize>>,
    /// The starts of the instructions; `None` if they are not known.
    pub(crate) starts: Option<Bitmap>,
    /// What may be entered from other chunks; `None` if every boundary may.
    pub(crate) entries: Option<Bitmap>,
    pub(crate) outside: Vec<Outside>,
    pub(crate) lock_skips: Vec<usize>,
    /// Whether no instruction crosses a line, if the chunk starts with one.
    pub(crate) within_lines: bool,
    /// The addresses that branches may leave to, ascending; `None` if to any.
    pub(crate) leaves: Option<Arc<[usize]>>,
}

impl Chunk {
    pub(crate) const fn from_parts(parts: Parts) -> Self {
        let chunk = Self {
            parts,
            align: Align::FUNCTION,
        };
        chunk.aligned(Align::FUNCTION)
    }

    /// Takes code as valid without looking at it.
    ///
    /// The region's boundary map then takes every byte outside of `data` for
    /// the start of an instruction.
    ///
    /// ```
    /// use jitfd::Chunk;
    ///
    /// // SAFETY: `nop; ret` is complete, valid and has no branches.
    /// let chunk = unsafe { Chunk::assume_valid(vec![0x90, 0xc3], &[]) }.unwrap();
    /// assert_eq!(chunk.bytes(), [0x90, 0xc3]);
    /// ```
    ///
    /// # Errors
    /// [`CodeError`] if `code` is empty or too long, or a data range is
    /// empty or not inside it.
    ///
    /// # Safety
    /// `code` must fulfil what [`validate`](crate::validate) checks, and `data`
    /// (in bytes from its start) must name every byte that code loads.
    #[expect(unsafe_code, reason = "the named way around validation")]
    pub unsafe fn assume_valid(code: Vec<u8>, data: &[Range<usize>]) -> Result<Self, CodeError> {
        let data = checked_data(data, code.len())?;
        let (outside, lock_skips) = (Vec::new(), Vec::new());
        Ok(Self::from_parts(Parts {
            code,
            data,
            starts: None,
            entries: None,
            outside,
            lock_skips,
            within_lines: false,
            leaves: None,
        }))
    }

    /// The bytes, code and data.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.parts.code
    }

    /// The number of bytes, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.code.len()
    }

    /// Whether some of the bytes are data. Such a chunk is published in a more
    /// expensive way (see `Region::publish`), because a
    /// load, unlike a jump, cannot find out that it read an old page.
    #[must_use]
    pub fn holds_data(&self) -> bool {
        !self.parts.data.is_empty()
    }

    /// Whether an instruction starts at `offset`, in bytes from the start of
    /// the chunk. For assumed code: whether `offset` is inside and not data.
    #[must_use]
    pub fn is_boundary(&self, offset: usize) -> bool {
        self.parts.starts.as_ref().map_or_else(
            || offset < self.len() && !in_data(&self.parts.data, offset),
            |starts| starts.get(offset),
        )
    }

    /// Whether `offset` is a byte of an instruction, but not its first.
    #[doc(hidden)]
    #[must_use]
    pub fn is_inside_instruction(&self, offset: usize) -> bool {
        let inside = offset < self.len() && !in_data(&self.parts.data, offset);
        inside && !self.is_boundary(offset)
    }

    /// Whether code of other chunks may branch to `offset`, in bytes from the
    /// start of the chunk: a declared entry or, if none was declared, any
    /// boundary.
    #[must_use]
    pub fn is_entry(&self, offset: usize) -> bool {
        match &self.parts.entries {
            Some(entries) => entries.get(offset),
            None => self.is_boundary(offset),
        }
    }

    /// The entries among the 64 bytes from `offset` on, as bits.
    #[doc(hidden)]
    #[must_use]
    pub fn entries_at(&self, offset: usize) -> u64 {
        let known = self.parts.entries.as_ref().or(self.parts.starts.as_ref());
        known.map_or_else(
            || {
                (0..64).fold(0, |word, bit| {
                    word | u64::from(self.is_boundary(offset + bit)) << bit
                })
            },
            |bits| bits.window(offset),
        )
    }

    /// Whether the chunk has to start with a line of 64 bytes wherever it is
    /// put: [`Rules::within_lines`](crate::Rules::within_lines) was asked for.
    #[doc(hidden)]
    #[must_use]
    pub const fn within_lines(&self) -> bool {
        self.parts.within_lines
    }

    /// The offsets behind a `lock` prefix to which a branch goes: empty unless
    /// [`Rules::allow_lock_skips`](crate::Rules::allow_lock_skips) was asked for.
    ///
    /// See the example of [`Rules::allow_lock_skips`](crate::Rules::allow_lock_skips).
    #[must_use]
    pub fn lock_skips(&self) -> &[usize] {
        &self.parts.lock_skips
    }

    /// The alignment at which `Region::publish` puts the chunk;
    /// 16 bytes unless set.
    #[must_use]
    pub const fn align(&self) -> Align {
        self.align
    }

    /// Sets the alignment at which `Region::publish` puts the
    /// chunk. It stays at least 64 bytes if
    /// [`Rules::within_lines`](crate::Rules::within_lines) was asked for.
    ///
    /// ```
    /// use jitfd::{Align, Rules, validate};
    ///
    /// let chunk = validate(&[0xc3], &Rules::new()).unwrap().aligned(Align::new(64).unwrap());
    /// assert_eq!(chunk.align().bytes(), 64);
    /// ```
    #[must_use]
    pub const fn aligned(mut self, align: Align) -> Self {
        let too_low = self.parts.within_lines && align.bytes() < Align::LINE.bytes();
        self.align = if too_low { Align::LINE } else { align };
        self
    }

    /// Whether the chunk has branches that leave it and may not go anywhere.
    #[doc(hidden)]
    #[must_use]
    pub fn has_bound_leaves(&self) -> bool {
        self.parts.leaves.is_some() && !self.parts.outside.is_empty()
    }

    /// Whether the branches that leave the chunk go where they
    /// [may](crate::Rules::leaves_only_to), if it lies at `address`. `is_known` says
    /// what they may go to besides.
    ///
    /// # Errors
    /// [`Reason::LeavesTo`] if one does not.
    #[doc(hidden)]
    pub fn check_leaves(
        &self,
        address: usize,
        is_known: impl Fn(usize) -> bool,
    ) -> Result<(), CodeError> {
        let Some(leaves) = &self.parts.leaves else {
            return Ok(());
        };
        for branch in &self.parts.outside {
            // Addresses wrap, as the CPU's do.
            let target = to_u64(address).wrapping_add_signed(branch.target);
            let target = to_usize(target);
            if leaves.binary_search(&target).is_err() && !is_known(target) {
                let branch_at = address.wrapping_add(branch.at);
                let reason = Reason::LeavesTo {
                    branch: branch_at,
                    target,
                };
                return Err(CodeError::placed(
                    self.bytes(),
                    branch.at,
                    branch_at,
                    reason,
                ));
            }
        }
        Ok(())
    }

    /// The direct branches that leave the chunk.
    #[doc(hidden)]
    #[must_use]
    pub fn outside(&self) -> &[Outside] {
        &self.parts.outside
    }
}
