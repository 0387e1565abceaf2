// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why a chunk was refused: the reason, the place, and the text a compiler
//! author reads. And what else can be wrong with what this crate is given.

use crate::forbid::Class;
use iced_x86::{Decoder, DecoderOptions, FastFormatter};
use std::{fmt, ops::Range};

/// Why [`validate`](crate::validate) refused a chunk. Offsets are in bytes from
/// the start of the chunk.
///
/// ```
/// use jitfd::{Rules, Reason, validate};
///
/// let reason = |code: &[u8]| validate(code, &Rules::new()).unwrap_err().reason().clone();
/// assert_eq!(reason(&[0x06]), Reason::Invalid); // push es: not in 64-bit mode
/// assert_eq!(reason(&[0xb8, 42, 0]), Reason::Truncated); // mov eax, ...
/// // nop; jmp, 4 bytes ahead; mov eax, 42; ret
/// let jump = [0x90, 0xeb, 2, 0xb8, 42, 0, 0, 0, 0xc3];
/// assert_eq!(reason(&jump), Reason::IntoInstruction { target: 5, start: 3 });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The chunk has no bytes.
    Empty,
    /// The chunk has more bytes than one publication takes.
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A declared data range is empty or reaches beyond the chunk.
    DataRange {
        /// The range.
        range: Range<usize>,
    },
    /// The bytes are no valid instruction of 64-bit mode.
    Invalid,
    /// The chunk ends inside an instruction.
    Truncated,
    /// An instruction runs into a declared data range.
    RunsIntoData {
        /// Where the data begins.
        data: usize,
    },
    /// A direct branch goes into the middle of an instruction.
    IntoInstruction {
        /// Where the branch goes.
        target: usize,
        /// Where the instruction that it hits begins.
        start: usize,
    },
    /// A direct branch goes behind the `lock` prefix of an instruction, and the
    /// [rules](crate::Rules::allow_lock_skips) do not allow that.
    SkipsLock {
        /// Where the branch goes: the byte behind the prefix.
        target: usize,
    },
    /// A direct branch goes into a declared data range.
    IntoData {
        /// Where the branch goes.
        target: usize,
    },
    /// A declared entry is not the first byte of an instruction.
    BadEntry {
        /// The entry.
        entry: usize,
    },
    /// The instruction at a declared entry is not `endbr64`, and
    /// [`Rules::endbr64`](crate::Rules::endbr64) asks for it.
    NoEndbr64,
    /// The policy forbids the instruction.
    Forbidden {
        /// The class that it was forbidden with.
        class: Class,
    },
    /// The instruction crosses a border of 64 bytes, and
    /// [`Rules::within_lines`](crate::Rules::within_lines) forbids that.
    CrossesLine,
    /// A near branch, call or return has an operand-size prefix (66): AMD and Intel
    /// processors give it different targets, and a direct one different lengths.
    VendorDependent,
    /// There is no memory for the copy or for what is noted about it: nothing is said
    /// about the code.
    NoMemory,
}

/// A chunk was refused: where, which instruction, and why.
///
/// ```
/// use jitfd::{Rules, Reason, validate};
///
/// // jmp 1; the target is the second byte of the jump itself.
/// let error = validate(&[0xeb, 0xff], &Rules::new()).unwrap_err();
/// assert_eq!(error.offset(), 0);
/// assert_eq!(error.reason(), &Reason::IntoInstruction { target: 1, start: 0 });
/// // For a log of the compiler; `{error}` is all of it in one line.
/// assert_eq!(error.bytes(), [0xeb, 0xff]);
/// println!("{}: {}", error.disassembly(), error.advice());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidationError {
    offset: usize,
    bytes: Vec<u8>,
    disassembly: String,
    reason: Reason,
}

/// The length of the longest instruction, in bytes.
pub(crate) const LONGEST: usize = 15;

impl ValidationError {
    /// A fault of the chunk as a whole.
    #[doc(hidden)]
    #[must_use]
    pub fn whole(reason: Reason) -> Self {
        Self {
            offset: 0,
            bytes: Vec::new(),
            disassembly: String::new(),
            reason,
        }
    }

    /// There is no memory for the check.
    #[doc(hidden)]
    #[must_use]
    pub fn no_memory() -> Self {
        Self::whole(Reason::NoMemory)
    }

    /// A fault of the instruction at `offset`.
    #[doc(hidden)]
    #[must_use]
    pub fn at(chunk: &[u8], offset: usize, reason: Reason) -> Self {
        let rest = chunk.get(offset..).unwrap_or_default();
        let rest = rest.get(..LONGEST).unwrap_or(rest);
        let (len, disassembly) = disassemble(rest, offset);
        let bytes = rest.get(..len).unwrap_or(rest).to_vec();
        Self {
            offset,
            bytes,
            disassembly,
            reason,
        }
    }

    /// The offset of the instruction at fault, in bytes from the start of the
    /// chunk. For a branch it is the branch, not its target. 0 if the chunk as
    /// a whole is at fault.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// The bytes of the instruction at fault: at most 15, and what there is of
    /// it if it is incomplete. None if the chunk as a whole is at fault.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The instruction at fault as text, branch targets as offsets in the
    /// chunk; `(bad)` if it is none.
    #[must_use]
    pub fn disassembly(&self) -> &str {
        &self.disassembly
    }

    /// Why the chunk was refused.
    #[must_use]
    pub const fn reason(&self) -> &Reason {
        &self.reason
    }

    /// Whether memory was too short to judge the code.
    #[doc(hidden)]
    #[must_use]
    pub const fn is_no_memory(&self) -> bool {
        matches!(self.reason, Reason::NoMemory)
    }

    /// One sentence: what the author of the compiler can do about it.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self.reason {
            Reason::Empty => "submit at least one instruction",
            Reason::TooLong { .. } => "split the chunk",
            Reason::DataRange { .. } => "declare non-empty ranges inside the chunk",
            Reason::Invalid => "fix the emitter, or declare these bytes as data",
            Reason::Truncated => "submit whole instructions only; is the last one cut off?",
            Reason::RunsIntoData { .. } => "correct the data range or what stands before it",
            Reason::IntoInstruction { .. } => "fix the branch's displacement; was it patched?",
            Reason::SkipsLock { .. } => "allow lock skips if it is meant",
            Reason::IntoData { .. } => "correct the data range or the branch's displacement",
            Reason::BadEntry { .. } => "declare entries where instructions start",
            Reason::NoEndbr64 => "begin the entry with endbr64 (f3 0f 1e fa)",
            Reason::Forbidden { .. } => "emit something else, or change the policy",
            Reason::CrossesLine => "put NOPs before it; the library's line writer does that",
            Reason::VendorDependent => "drop the 66 prefix",
            Reason::NoMemory => "free some, raise the limit, or split the chunk",
        }
    }
}

/// Length and text of the first instruction of `bytes`.
fn disassemble(bytes: &[u8], offset: usize) -> (usize, String) {
    let ip = crate::num::to_u64(offset);
    let mut decoder = Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    let mut text = String::new();
    if instruction.is_invalid() {
        text.push_str("(bad)");
        return (bytes.len(), text);
    }
    FastFormatter::new().format(&instruction, &mut text);
    (instruction.len(), text)
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the chunk is empty"),
            Self::TooLong { len } => write!(f, "{len} bytes are more than one publication takes"),
            Self::DataRange { range } => {
                write!(
                    f,
                    "the data range {range:#x?} is empty or not inside the chunk"
                )
            }
            Self::Invalid => write!(f, "this is no valid instruction"),
            Self::Truncated => write!(f, "the chunk ends inside this instruction"),
            Self::RunsIntoData { data } => {
                write!(f, "this instruction runs into the data at {data:#x}")
            }
            Self::IntoInstruction { target, start } => {
                write!(
                    f,
                    "the branch goes to {target:#x}, into the instruction at {start:#x}"
                )
            }
            Self::SkipsLock { target } => {
                write!(f, "the branch goes to {target:#x}, behind a lock prefix")
            }
            Self::IntoData { target } => write!(f, "the branch goes to {target:#x}, which is data"),
            Self::BadEntry { entry } => {
                write!(f, "no instruction starts at the declared entry {entry:#x}")
            }
            Self::NoEndbr64 => write!(f, "this entry does not begin with endbr64"),
            Self::Forbidden { class } => write!(f, "the policy forbids this: {}", class.name()),
            Self::NoMemory => write!(f, "there is no memory to check the chunk"),
            Self::CrossesLine => write!(f, "this instruction crosses a border of 64 bytes"),
            Self::VendorDependent => {
                write!(
                    f,
                    "where this goes, or how long it is, depends on the processor's maker"
                )
            }
        }
    }
}

impl fmt::Display for ValidationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.bytes.is_empty() {
            write!(f, "offset {:#x}:", self.offset)?;
            self.bytes
                .iter()
                .try_for_each(|byte| write!(f, " {byte:02x}"))?;
            write!(f, " ({}): ", self.disassembly)?;
        }
        write!(f, "{}; {}", self.reason, self.advice())
    }
}

impl std::error::Error for ValidationError {}

/// What can go wrong in this crate.
///
/// ```
/// use jitfd_code::{Align, Error};
///
/// match Align::new(48) {
///     Err(Error::Argument(text)) => println!("{text}"),
///     other => panic!("48 is no power of two: {other:?}"),
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The code was refused.
    Validation(ValidationError),
    /// An argument was refused; says which.
    Argument(&'static str),
    /// The allocator has no memory.
    NoMemory,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Validation(error) => write!(f, "{error}"),
            Self::Argument(text) => f.write_str(text),
            Self::NoMemory => f.write_str("there is no memory for it; free some, or ask for less"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Validation(error) => Some(error),
            Self::Argument(_) | Self::NoMemory => None,
        }
    }
}

impl From<ValidationError> for Error {
    fn from(error: ValidationError) -> Self {
        Self::Validation(error)
    }
}
