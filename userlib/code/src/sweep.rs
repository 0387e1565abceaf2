// SPDX-License-Identifier: MIT OR Apache-2.0

//! The one pass over a chunk, or over a section of it: decodes it (plain forms
//! by table, the others by iced-x86), notes where instructions start and where
//! direct branches go, and applies the rules for single instructions. What
//! branches may hit is decided in `validate.rs`.
//!
//! The pass allocates two bitmaps and nothing per instruction; only branches
//! that leave the section are listed.

use crate::align::LINE;
use crate::bitmap::Bitmap;
use crate::chunk::Outside;
use crate::error::{CodeError, LONGEST, Reason};
use crate::length_table::{Plain, plain};
use crate::num::{to_i64, to_u64, to_usize};
use crate::pushed::pushed;
use crate::rules::EachInstruction;
use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, Instruction, OpKind};
use std::ops::Range;

/// What is to be checked.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) chunk: &'a [u8],
    /// Ascending, not empty, not touching, inside the chunk.
    pub(crate) data: &'a [Range<usize>],
    pub(crate) rules: &'a EachInstruction,
}

/// What the pass has found in a section of a chunk.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// What the bitmaps begin with, in bytes from the start of the chunk: 0 if
    /// all of it was swept, else a multiple of 64.
    pub(crate) base: usize,
    /// How many bytes they stand for.
    span: u64,
    /// The first bytes of instructions.
    pub(crate) starts: Bitmap,
    /// Where direct branches inside the section go.
    pub(crate) targets: Bitmap,
    /// Where direct branches to the rest of the chunk go. Empty if all of it
    /// was swept.
    pub(crate) far: Vec<usize>,
    /// The direct branches out of the chunk, in ascending order.
    pub(crate) outside: Vec<Outside>,
    /// Whether a list has got no memory for all of them.
    starved: bool,
}

impl Sweep {
    /// Decodes all of the chunk but its data.
    pub(crate) fn new(job: Job<'_>) -> Result<Self, CodeError> {
        let all = 0..job.chunk.len();
        let mut sweep = Self::empty(0, job.chunk.len()).ok_or_else(CodeError::no_memory)?;
        sweep.section(job, all)?;
        Some(sweep)
            .filter(Self::is_whole)
            .ok_or_else(CodeError::no_memory)
    }

    /// Nothing found, with room for the bits of `base..end`; `None` if there is no
    /// memory for them.
    pub(crate) fn empty(base: usize, end: usize) -> Option<Self> {
        Some(Self {
            base,
            span: to_u64(end - base),
            starts: Bitmap::new(end - base)?,
            targets: Bitmap::new(end - base)?,
            far: Vec::new(),
            outside: Vec::new(),
            starved: false,
        })
    }

    /// Whether everything that was found is noted.
    pub(crate) const fn is_whole(&self) -> bool {
        !self.starved
    }

    /// Decodes the instructions that start in `section`, which itself starts
    /// with an instruction or with data. Returns where the last one ends.
    pub(crate) fn section(
        &mut self,
        job: Job<'_>,
        section: Range<usize>,
    ) -> Result<usize, CodeError> {
        let next = job.data.partition_point(|data| data.end <= section.start);
        let mut at = section.start;
        for data in job.data.get(next..).unwrap_or_default() {
            at = at.max(self.run(job, at..data.start, section.end)?);
            if at >= section.end {
                return Ok(at);
            }
            at = data.end;
        }
        self.run(job, at..job.chunk.len(), section.end)
    }

    /// Decodes the instructions of the code `run` that start before `stop`.
    fn run(&mut self, job: Job<'_>, run: Range<usize>, stop: usize) -> Result<usize, CodeError> {
        let strict = job.rules.within_lines || job.rules.forbidden.concerns_plain_forms();
        if strict {
            self.run_by::<true>(job, run, stop)
        } else {
            self.run_by::<false>(job, run, stop)
        }
    }

    /// The hot loop. `STRICT` if there are rules for plain instructions too.
    fn run_by<const STRICT: bool>(
        &mut self,
        job: Job<'_>,
        run: Range<usize>,
        stop: usize,
    ) -> Result<usize, CodeError> {
        let mut full = Full::new(job, &run);
        let by_table = !STRICT || !job.rules.forbidden.concerns_plain_forms();
        let code = job.chunk.get(..run.end).unwrap_or_default();
        let stop = stop.min(run.end);
        let base = self.base;
        let mut at = run.start;
        while let Some(rest) = code.get(at..).filter(|_| at < stop) {
            self.starts.set(at - base);
            let window = rest.first_chunk().filter(|_| by_table);
            let instruction = match window.and_then(plain) {
                Some(instruction) => instruction,
                None => full.decode(at)?,
            };
            if STRICT && job.rules.within_lines && at % LINE + instruction.len > LINE {
                return Err(CodeError::at(job.chunk, at, Reason::CrossesLine));
            }
            at += instruction.len;
            if let Some(displacement) = instruction.displacement {
                self.branch(job.chunk.len(), at - instruction.len, at, displacement);
            }
        }
        Ok(at)
    }

    /// Notes where the branch at `at`, which ends at `end`, goes.
    #[inline]
    fn branch(&mut self, len: usize, at: usize, end: usize, displacement: i32) {
        let bit = to_u64(end - self.base).wrapping_add_signed(displacement.into());
        if bit < self.span {
            self.targets.set(to_usize(bit));
        } else {
            self.elsewhere(len, at, bit);
        }
    }

    /// Notes where a branch that leaves the section goes: to its bit `bit`.
    #[cold]
    fn elsewhere(&mut self, len: usize, at: usize, bit: u64) {
        if self.starved {
            return;
        }
        let target = to_i64(bit.wrapping_add(to_u64(self.base)));
        match usize::try_from(target) {
            Ok(target) if target < len => self.starved |= !pushed(&mut self.far, target),
            _ => self.starved |= !pushed(&mut self.outside, Outside { at, target }),
        }
    }
}

/// The full decoder, for what is not plain.
struct Full<'a> {
    job: Job<'a>,
    run: &'a Range<usize>,
    /// Made when first needed: many small chunks do without.
    decoder: Option<Decoder<'a>>,
    instruction: Instruction,
}

impl<'a> Full<'a> {
    fn new(job: Job<'a>, run: &'a Range<usize>) -> Self {
        Self {
            job,
            run,
            decoder: None,
            instruction: Instruction::default(),
        }
    }

    /// The instruction at `at`, which is inside the run.
    fn decode(&mut self, at: usize) -> Result<Plain, CodeError> {
        let chunk = self.job.chunk;
        let decoder = self.decoder.get_or_insert_with(|| {
            let code = chunk.get(self.run.clone()).unwrap_or_default();
            Decoder::new(64, code, DecoderOptions::NONE)
        });
        // The position is inside, so this can't fail.
        let _ = decoder.set_position(at - self.run.start);
        decoder.set_ip(0);
        decoder.decode_out(&mut self.instruction);
        if self.instruction.is_invalid() {
            let more = decoder.last_error() == DecoderError::NoMoreBytes;
            return Err(bad_instruction(chunk, at, self.run, more));
        }
        if let Some(class) = self.job.rules.forbidden.class_of(&self.instruction) {
            return Err(CodeError::at(chunk, at, Reason::Forbidden { class }));
        }
        self.judged(at)
    }

    /// The instruction that was decoded, at `at`, as the loop wants it.
    fn judged(&self, at: usize) -> Result<Plain, CodeError> {
        let (chunk, len) = (self.job.chunk, self.instruction.len());
        let bytes = chunk.get(at..at + len).unwrap_or_default();
        if is_vendor_dependent(&self.instruction, bytes) {
            return Err(CodeError::at(chunk, at, Reason::VendorDependent));
        }
        if !is_direct_branch(&self.instruction) {
            return Ok(Plain {
                len,
                displacement: None,
            });
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

/// Whether `instruction`, of these bytes, is a near branch, call or return with a 66
/// prefix that counts. AMD processors then take a displacement, an operand or a
/// return address of 16 bits, unless REX.W overrules it.
pub fn is_vendor_dependent(instruction: &Instruction, bytes: &[u8]) -> bool {
    let near = matches!(
        instruction.code(),
        Code::Jmp_rm64 | Code::Call_rm64 | Code::Retnq | Code::Retnq_imm16
    );
    (near || is_direct_branch(instruction)) && has_operand_size(bytes)
}

fn has_operand_size(bytes: &[u8]) -> bool {
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
fn bad_instruction(chunk: &[u8], at: usize, run: &Range<usize>, more: bool) -> CodeError {
    let cut = chunk.get(at..run.end).unwrap_or_default();
    let reason = match (more && can_be_completed(cut), run.end == chunk.len()) {
        (false, _) => Reason::Invalid,
        (true, true) => Reason::Truncated,
        (true, false) => Reason::RunsIntoData { data: run.end },
    };
    CodeError::at(chunk, at, reason)
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
