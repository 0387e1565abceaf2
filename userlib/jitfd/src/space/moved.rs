// SPDX-License-Identifier: MIT OR Apache-2.0

//! Machine code without records, made to work at another address: its
//! instructions are decoded and encoded again by iced-x86.

use super::CodeSpace;
use super::slot::Request;
use crate::error::Error;
use crate::os::fallible::{list, room};
use crate::region::slot::Published;
use iced_x86::{
    BlockEncoder, BlockEncoderOptions, BlockEncoderResult, Decoder, DecoderOptions, Instruction,
    InstructionBlock, Mnemonic, OpKind,
};
use jitfd_code::internal::{LOCK, is_vendor_dependent, pushed};
use jitfd_code::{CodeError, Reason, Rules, validate_owned};
use std::ops::Range;

const NO_CODE: Error = Error::Argument("only whole, valid instructions can be moved");
const XBEGIN: Error = Error::Argument(
    "an xbegin can't be moved: its form for another place is one that makers disagree about; emit \
     it for its address",
);
const TOO_FAR: Error = Error::Argument(
    "a memory operand of the code can't reach its target from the new address; ask for a window \
     that reaches it",
);
const NO_ADDRESSES: Error =
    Error::Argument("the code would go on behind the last address; move it to a lower one");

/// The most memory that the encoder has for one instruction, in bytes, and for one
/// branch more than that; both beside the code.
const ENCODER: usize = 128;
const ENCODER_BRANCH: usize = 256;

/// What one branch can need more than it has now, in bytes: a longer form, and
/// the address of its target.
const GROWTH: usize = 24;

/// Makes `code`, which works at the address `from`, work at the address `to`.
///
/// Branches and memory operands relative to `rip` whose target is an instruction
/// of the code go along with it; all others keep their addresses. Instructions
/// can get longer: a branch whose target is too far away then goes by an address
/// that is put behind the code. Returns the bytes, and which of them are such addresses,
/// which are data: an offset range, empty if there are none.
///
/// The code must be instructions only. Jump tables and code that computes
/// addresses do not survive it: emit such code for its address, or use
/// [records](super::Reloc).
///
/// A branch that skips a `lock` prefix in the code is moved like any other; whether
/// it is accepted is decided by validation.
///
/// # Errors
/// [`Error::Code`] with [`Reason::IntoInstruction`] if a branch goes into the
/// middle of an instruction of the code, or with [`Reason::VendorDependent`]; offsets
/// are in `code`.
/// [`Error::Argument`] if some bytes are not a whole, valid instruction, one is
/// `xbegin`, a memory operand can't reach its target, or addresses end before the code
/// does.
///
/// # Example
/// ```
/// use jitfd::space::move_code;
/// use jitfd::{Rules, validate};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// // call 0x1000; ret, made for 0x2000. From 0x7f00_0000_0000 that is too far for a
/// // direct call, so it goes by an address behind the code.
/// let code = [0xe8, 0xfb, 0xef, 0xff, 0xff, 0xc3];
/// let (bytes, data) = move_code(&code, 0x2000, 0x7f00_0000_0000)?;
/// assert_eq!(bytes[data.clone()], 0x1000_u64.to_le_bytes());
/// let chunk = validate(&bytes, &Rules::new().data(data))?;
/// # Ok(())
/// # }
/// ```
///
/// ```
/// use jitfd::space::move_code;
///
/// // jmp 0x1000, at 0x2000 and at 0x3000
/// let code = [0xe9, 0xfb, 0xef, 0xff, 0xff];
/// let (bytes, _) = move_code(&code, 0x2000, 0x3000).unwrap();
/// assert_eq!(bytes, [0xe9, 0xfb, 0xdf, 0xff, 0xff]);
/// ```
pub fn move_code(code: &[u8], from: usize, to: usize) -> Result<(Vec<u8>, Range<usize>), Error> {
    encode(&decode(code, from)?, to)
}

fn decode(code: &[u8], from: usize) -> Result<Vec<Instruction>, Error> {
    let ip = crate::num::to_u64(from);
    let mut decoder = Decoder::with_ip(64, code, ip, DecoderOptions::NONE);
    let mut instructions = Vec::new();
    for one in &mut decoder {
        pushed(&mut instructions, one)
            .then_some(())
            .ok_or_else(CodeError::no_memory)?;
    }
    let valid = instructions.iter().all(|one| !one.is_invalid());
    if !valid || code.is_empty() {
        return Err(NO_CODE);
    }
    // An instruction that is encoded again has lost the prefix, and with it one of
    // the two meanings; or, if its target is near, it has got one.
    let mut at = 0;
    for one in &instructions {
        let bytes = code.get(at..at + one.len()).unwrap_or_default();
        if is_vendor_dependent(one, bytes) {
            return Err(CodeError::at(code, at, Reason::VendorDependent).into());
        }
        if one.mnemonic() == Mnemonic::Xbegin {
            return Err(XBEGIN);
        }
        at += one.len();
    }
    check_targets(code, from, instructions)
}

/// Refuses branches into the middle of an instruction: the new place of that
/// middle is not defined. An instruction whose `lock` prefix is skipped by a
/// branch becomes two, the prefix and the rest, so that the branch goes along.
fn check_targets(
    code: &[u8],
    from: usize,
    instructions: Vec<Instruction>,
) -> Result<Vec<Instruction>, Error> {
    let offset = |address: u64| crate::num::to_usize(address).wrapping_sub(from);
    let starts =
        list(instructions.iter().map(|one| offset(one.ip()))).ok_or_else(CodeError::no_memory)?;
    let mut skips = Vec::new();
    for one in instructions.iter().filter(|one| is_branch(one)) {
        let target = offset(one.near_branch_target());
        let hit = starts.partition_point(|&start| start <= target);
        let Some(&start) = starts.get(hit.saturating_sub(1)) else {
            continue;
        };
        match target - start {
            0 => {}
            _ if target >= code.len() => {}
            1 if code.get(start) == Some(&LOCK) => {
                pushed(&mut skips, start)
                    .then_some(())
                    .ok_or_else(CodeError::no_memory)?;
            }
            _ => {
                let reason = Reason::IntoInstruction { target, start };
                return Err(CodeError::at(code, offset(one.ip()), reason).into());
            }
        }
    }
    if skips.is_empty() {
        return Ok(instructions);
    }
    skips.sort_unstable();
    let most = instructions.len() + skips.len();
    let mut parts = room(most).ok_or_else(CodeError::no_memory)?;
    for (one, start) in instructions.into_iter().zip(starts) {
        if skips.binary_search(&start).is_ok() {
            parts.extend(split(one, code.get(start..).unwrap_or_default()));
        } else {
            parts.push(one);
        }
    }
    Ok(parts)
}

/// The `lock` prefix of an instruction, and the rest as one without it. `code`
/// begins with it.
fn split(one: Instruction, code: &[u8]) -> [Instruction; 2] {
    let mut prefix = Instruction::with_declare_byte_1(LOCK);
    prefix.set_ip(one.ip());
    prefix.set_len(1);
    let rest = code.get(1..one.len()).unwrap_or_default();
    let ip = one.ip().wrapping_add(1);
    let rest = Decoder::with_ip(64, rest, ip, DecoderOptions::NONE).decode();
    [prefix, rest]
}

fn is_branch(one: &Instruction) -> bool {
    one.op0_kind() == OpKind::NearBranch64
}

fn encode(instructions: &[Instruction], to: usize) -> Result<(Vec<u8>, Range<usize>), Error> {
    to.checked_add(bound(instructions)).ok_or(NO_ADDRESSES)?;
    ask_for_memory(instructions).ok_or_else(CodeError::no_memory)?;
    let block = InstructionBlock::new(instructions, crate::num::to_u64(to));
    let options = BlockEncoderOptions::RETURN_RELOC_INFOS;
    let done = BlockEncoder::encode(64, block, options).map_err(|_| TOO_FAR)?;
    let data = addresses(&done);
    Ok((done.code_buffer, data))
}

/// The encoder gets memory without asking. So it is asked for here how much it may
/// get, which is given back at once: what is not there is an error then, unless another
/// thread takes it meanwhile.
fn ask_for_memory(instructions: &[Instruction]) -> Option<()> {
    let branches = instructions.iter().filter(|one| is_branch(one)).count();
    let lists = instructions.len() * ENCODER + branches * ENCODER_BRANCH;
    // A buffer that grows has twice what it needs, beside the old one.
    let block = room::<u8>(lists + 3 * bound(instructions))?;
    // Or the compiler leaves the question out.
    std::hint::black_box(block);
    Some(())
}

/// Where the encoder has put addresses: at the end, aligned.
fn addresses(done: &BlockEncoderResult) -> Range<usize> {
    let first = done.reloc_infos.iter().map(|info| info.address).min();
    let end = done.code_buffer.len();
    first.map_or(end..end, |first| {
        crate::num::to_usize(first - done.rip)..end
    })
}

/// The most bytes that the instructions can become.
fn bound(instructions: &[Instruction]) -> usize {
    let branches = instructions.iter().filter(|one| is_branch(one)).count();
    let now: usize = instructions.iter().map(Instruction::len).sum();
    now + branches * GROWTH + size_of::<u64>()
}

impl CodeSpace {
    /// Publishes `code`, which works at the address `from`, so that it works where
    /// it comes to lie: [`move_code`]. The length in `request` is not used.
    ///
    /// It is validated by the rules of [`SpaceOptions::rules`]; if those ask for
    /// entries, its first instruction is one.
    ///
    /// [`SpaceOptions::rules`]: super::SpaceOptions::rules
    ///
    /// # Errors
    /// As [`move_code`], [`reserve`](Self::reserve) and [`fill`](Self::fill). Room that
    /// was reserved already counts as wasted.
    ///
    /// # Example
    /// ```
    /// use jitfd::space::Request;
    ///
    /// # use jitfd::space::SpaceOptions;
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let space = jit.space(jitfd::space::SpaceOptions::default())?;
    /// // mov eax, 1; jmp 0x2000, made for the address 0x1000
    /// let code = [0xb8, 1, 0, 0, 0, 0xe9, 0xf6, 0x0f, 0, 0];
    /// let function = space.publish_moved(&Request { name: "jump", ..Request::new(0) }, &code, 0x1000)?;
    /// assert!(function.len >= code.len());
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_moved(
        &self,
        request: &Request<'_>,
        code: &[u8],
        from: usize,
    ) -> Result<Published, Error> {
        let instructions = decode(code, from)?;
        let align = request.align.max(self.least_align());
        let request = Request {
            len: bound(&instructions),
            align,
            ..*request
        };
        self.publish_with(&request, |address| {
            let (bytes, data) = encode(&instructions, address)?;
            let mut options = Rules::clone(&self.options.rules);
            if options.has_entries() {
                options = options.entry(0);
            }
            if !data.is_empty() {
                options = options.data(data);
            }
            Ok(validate_owned(bytes, &options)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::FILL;

    fn targets(code: &[u8], at: usize) -> Vec<u64> {
        let instructions = decode(code, at).unwrap();
        let target = |one: &Instruction| one.near_branch_target();
        instructions
            .iter()
            .map(target)
            .filter(|&to| to != 0)
            .collect()
    }

    #[test]
    fn inner_branches_move_along_and_outer_ones_do_not() {
        // jmp +2 (to the last nop); call 0x5000; nop
        let mut code = vec![0xeb, 5, 0xe8];
        code.extend((0x5000 - 0x1007_i32).to_le_bytes());
        code.push(0x90);
        let (bytes, data) = move_code(&code, 0x1000, 0x9000).unwrap();
        assert_eq!(targets(&bytes, 0x9000), [0x9007, 0x5000]);
        assert!(data.is_empty());
    }

    #[test]
    fn branches_that_are_too_far_go_by_an_address() {
        let mut code = vec![0xe8];
        code.extend((0x5000 - 0x1005_i32).to_le_bytes());
        code.push(0xc3);
        let (bytes, data) = move_code(&code, 0x1000, 1 << 40).unwrap();
        assert_eq!(bytes[data.clone()], 0x5000_u64.to_le_bytes());
        assert_eq!(bytes[..2], [0xff, 0x15]);
        assert!(bytes.len() <= bound(&decode(&code, 0x1000).unwrap()));
        let between = &bytes[7..data.start];
        assert!(between.iter().all(|&byte| byte == FILL));
    }

    #[test]
    fn conditional_branches_stay_within_the_bound() {
        // jz to 0x1000 itself minus 50, short, 40 times
        let code = [0x74, 0xce].repeat(40);
        let (bytes, _) = move_code(&code, 0x1000, 1 << 40).unwrap();
        assert!(bytes.len() <= bound(&decode(&code, 0x1000).unwrap()));
    }

    #[test]
    fn branches_into_instructions_are_refused() {
        // jmp +1, to the 2a of: mov eax, 42; ret
        let code = [0xeb, 1, 0xb8, 0x2a, 0, 0, 0, 0xc3];
        let Err(Error::Code(error)) = move_code(&code, 0x1000, 0x9000) else {
            panic!("must be refused");
        };
        let (target, start) = (3, 2);
        assert_eq!(error.offset, 0);
        assert_eq!(error.reason, Reason::IntoInstruction { target, start });
        // Out of the code, in front and behind.
        assert!(move_code(&[0xeb, 0x80, 0x90], 0x1000, 0x9000).is_ok());
        assert!(move_code(&[0x90, 0xeb, 0x7f], 0, 0x9000).is_ok());
    }

    /// Encoded again they would have one maker's meaning.
    #[test]
    fn branches_that_makers_disagree_about_are_refused() {
        let jumps: [&[u8]; 5] = [
            &[0x66, 0xe9, 0, 0, 0, 0],
            &[0x66, 0x0f, 0x84, 0, 0, 0, 0],
            &[0x66, 0xe8, 0, 0, 0, 0],
            &[0x66, 0xeb, 0],
            &[0x66, 0xc3],
        ];
        for jump in jumps {
            let code = [&[0x90], jump, &[0x90]].concat();
            let Err(Error::Code(error)) = move_code(&code, 0x1000, 0x9000) else {
                panic!("{jump:x?} must be refused");
            };
            assert_eq!((error.offset, error.reason), (1, Reason::VendorDependent));
            // REX.W overrules the prefix.
            let wide = [&jump[..1], &[0x48], &jump[1..]].concat();
            assert!(move_code(&wide, 0x1000, 0x9000).is_ok());
        }
    }

    #[test]
    fn branches_behind_a_lock_prefix_go_along() {
        // xor eax, eax; je +1; lock cmpxchg [rdi], edx; ret
        let code = [0x31, 0xc0, 0x74, 1, 0xf0, 0x0f, 0xb1, 0x17, 0xc3];
        let (bytes, _) = move_code(&code, 0x1000, 0x9000).unwrap();
        assert_eq!(bytes, code);
        let (bytes, _) = move_code(&code, 0x1000, 1 << 40).unwrap();
        assert_eq!(bytes, code);
        // What lies between gets longer: jz to far away, which needs 8 bytes.
        let mut long = vec![0x74, 3, 0x74, 0x80];
        long.extend(&code[4..]);
        let (bytes, _) = move_code(&long, 0x1000, 1 << 40).unwrap();
        let lock = bytes.windows(4).position(|four| four == &code[4..8]);
        assert_eq!(usize::from(bytes[1]) + 2, lock.unwrap() + 1);
    }

    #[test]
    fn what_cannot_be_moved_is_refused() {
        assert_eq!(move_code(&[], 0, 0), Err(NO_CODE));
        assert_eq!(move_code(&[0x06], 0, 0), Err(NO_CODE));
        assert_eq!(move_code(&[0xe8, 0], 0, 0), Err(NO_CODE));
        // mov eax, [rip]
        let load = [0x8b, 0x05, 0, 0, 0, 0];
        assert!(move_code(&load, 0x1000, 0x2000).is_ok());
        assert_eq!(move_code(&load, 1 << 41, 1 << 40), Err(TOO_FAR));
        // xbegin +4; xend; ret; ret
        let transaction = [0xc7, 0xf8, 4, 0, 0, 0, 0x0f, 0x01, 0xd5, 0xc3, 0xc3];
        // jns to far away, which goes by an address behind it; nop
        let branch = [0x0f, 0x89, 0x3c, 0, 0, 0, 0x90];
        for to in [usize::MAX - 3, usize::MAX] {
            assert_eq!(move_code(&branch, 0x7fff_ffff_ffc0, to), Err(NO_ADDRESSES));
        }
        for to in [0x5000, 1 << 40] {
            assert_eq!(move_code(&transaction, 0x1000, to), Err(XBEGIN));
        }
    }
}
