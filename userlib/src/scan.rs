// SPDX-License-Identifier: MIT OR Apache-2.0

//! The one pass over a chunk: decodes it (plain forms by table, the others by
//! iced-x86), notes where instructions start and
//! where direct branches go. Says what is there; what is allowed is decided in
//! `validate.rs`.
//!
//! The pass allocates two bitmaps per chunk and nothing per instruction; only
//! branches that leave the chunk are listed.

use crate::bitmap::Bitmap;
use crate::cast::{to_i64, to_u64, to_usize};
use crate::fault::{LONGEST, Reason, ValidationError};
use crate::plain::{Plain, plain};
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction, OpKind};
use std::ops::Range;

/// A direct branch that leaves its chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outside {
    /// Where the branch begins, in bytes from the start of the chunk.
    pub(crate) at: usize,
    /// Where it goes, in bytes from the start of the chunk: negative if before.
    pub(crate) target: i64,
}

/// What the pass has found.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The first bytes of instructions.
    pub(crate) starts: Bitmap,
    /// Where direct branches inside the chunk go.
    pub(crate) targets: Bitmap,
    /// The direct branches out of it, in ascending order.
    pub(crate) outside: Vec<Outside>,
}

impl Scan {
    /// Decodes all of `chunk` but the `data` ranges, which are ascending, not
    /// empty and inside the chunk.
    pub(crate) fn new(chunk: &[u8], data: &[Range<usize>]) -> Result<Self, ValidationError> {
        let mut scan = Self {
            starts: Bitmap::new(chunk.len()),
            targets: Bitmap::new(chunk.len()),
            outside: Vec::new(),
        };
        let mut from = 0;
        for range in data {
            scan.run(chunk, from..range.start)?;
            from = range.end;
        }
        scan.run(chunk, from..chunk.len())?;
        Ok(scan)
    }

    /// Decodes one run of code: the hot loop.
    fn run(&mut self, chunk: &[u8], run: Range<usize>) -> Result<(), ValidationError> {
        let mut full = Full::new(chunk, &run);
        let code = chunk.get(..run.end).unwrap_or_default();
        let mut at = run.start;
        while let Some(rest) = code.get(at..).filter(|rest| !rest.is_empty()) {
            self.starts.set(at);
            let instruction = match rest.first_chunk().and_then(plain) {
                Some(instruction) => instruction,
                None => full.decode(at)?,
            };
            at += instruction.len;
            if let Some(displacement) = instruction.displacement {
                self.branch(chunk.len(), at - instruction.len, at, displacement);
            }
        }
        Ok(())
    }

    /// Notes where the branch at `at`, which ends at `end`, goes.
    #[inline]
    fn branch(&mut self, len: usize, at: usize, end: usize, displacement: i32) {
        let target = to_i64(to_u64(end)) + i64::from(displacement);
        match usize::try_from(target) {
            Ok(target) if target < len => self.targets.set(target),
            _ => self.outside.push(Outside { at, target }),
        }
    }
}

/// The full decoder, for what is not plain.
struct Full<'a> {
    chunk: &'a [u8],
    run: &'a Range<usize>,
    /// Made when first needed: many small chunks do without.
    decoder: Option<Decoder<'a>>,
    instruction: Instruction,
}

impl<'a> Full<'a> {
    fn new(chunk: &'a [u8], run: &'a Range<usize>) -> Self {
        Self {
            chunk,
            run,
            decoder: None,
            instruction: Instruction::default(),
        }
    }

    /// The instruction at `at`, which is inside the run.
    fn decode(&mut self, at: usize) -> Result<Plain, ValidationError> {
        let decoder = self.decoder.get_or_insert_with(|| {
            let code = self.chunk.get(self.run.clone()).unwrap_or_default();
            Decoder::new(64, code, DecoderOptions::NONE)
        });
        // The position is inside, so this can't fail.
        let _ = decoder.set_position(at - self.run.start);
        decoder.set_ip(0);
        decoder.decode_out(&mut self.instruction);
        if self.instruction.is_invalid() {
            let more = decoder.last_error() == DecoderError::NoMoreBytes;
            return Err(bad_instruction(self.chunk, at, self.run, more));
        }
        let len = self.instruction.len();
        if !is_direct_branch(&self.instruction) {
            return Ok(Plain {
                len,
                displacement: None,
            });
        }
        if has_operand_size(self.chunk, at, len) {
            return Err(ValidationError::at(self.chunk, at, Reason::VendorDependent));
        }
        let distance = to_i64(self.instruction.near_branch_target()) - to_i64(to_u64(len));
        // Displacements have at most 32 bits.
        Ok(Plain {
            len,
            displacement: i32::try_from(distance).ok(),
        })
    }
}

/// jmp, jcc, call, loop, jrcxz and xbegin with a displacement.
#[inline]
fn is_direct_branch(instruction: &Instruction) -> bool {
    matches!(
        instruction.op0_kind(),
        OpKind::NearBranch64 | OpKind::NearBranch32 | OpKind::NearBranch16
    )
}

/// Whether the branch at `at` has a 66 prefix that counts: AMD processors then
/// take a 16-bit displacement, unless REX.W overrules it.
fn has_operand_size(chunk: &[u8], at: usize, len: usize) -> bool {
    let bytes = chunk.get(at..at + len).unwrap_or_default();
    let (mut short, mut wide) = (false, false);
    for &byte in bytes {
        match byte {
            0x66 => short = true,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x67 | 0xf0 | 0xf2 | 0xf3 => {}
            0x40..=0x4f => {
                wide = byte & 8 != 0;
                continue;
            }
            _ => break,
        }
        // A REX prefix counts only next to the opcode.
        wide = false;
    }
    short && !wide
}

/// Why there is no instruction at `at`; `more` if the decoder ran out of bytes.
fn bad_instruction(chunk: &[u8], at: usize, run: &Range<usize>, more: bool) -> ValidationError {
    let cut = chunk.get(at..run.end).unwrap_or_default();
    let reason = match (more && can_be_completed(cut), run.end == chunk.len()) {
        (false, _) => Reason::Invalid,
        (true, true) => Reason::Truncated,
        (true, false) => Reason::RunsIntoData { data: run.end },
    };
    ValidationError::at(chunk, at, reason)
}

/// Whether `cut` is the beginning of some valid instruction: tried with a few
/// bytes behind it that make most opcodes valid.
fn can_be_completed(cut: &[u8]) -> bool {
    [0x00, 0x05, 0x90, 0xc0, 0xff].into_iter().any(|next| {
        let mut bytes = cut.to_vec();
        bytes.resize(cut.len() + LONGEST, next);
        !Decoder::new(64, &bytes, DecoderOptions::NONE)
            .decode()
            .is_invalid()
    })
}

/// The first direct branch from inside the chunk to `target`. A second pass,
/// for error texts only.
pub(crate) fn find_branch(chunk: &[u8], starts: &Bitmap, target: usize) -> Option<usize> {
    let all = (0..chunk.len()).filter(|&at| starts.get(at));
    all.into_iter()
        .find(|&at| branch_target(chunk, at) == Some(target))
}

fn branch_target(chunk: &[u8], at: usize) -> Option<usize> {
    let code = chunk.get(at..)?;
    let mut decoder = Decoder::with_ip(64, code, to_u64(at), DecoderOptions::NONE);
    let instruction = decoder.decode();
    is_direct_branch(&instruction).then(|| to_usize(instruction.near_branch_target()))
}
