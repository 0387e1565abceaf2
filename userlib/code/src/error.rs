// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is wrong with what this crate was given: the reason, the place, and the
//! text that a compiler author reads.

use crate::forbid::Class;
use crate::num::to_u64;
use crate::reloc::RelocKind;
use iced_x86::{Decoder, DecoderOptions};
use std::{fmt, ops::Range};

/// Why code was refused, or an argument of this crate. Offsets and lengths are in
/// bytes. Offsets count from the start of the chunk, unless a text says that they
/// count from the start of the region.
///
/// ```
/// use jitfd::{Rules, Reason, validate};
///
/// let reason = |code: &[u8]| validate(code, &Rules::new()).unwrap_err().reason;
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
        /// Its length.
        len: usize,
        /// The most that a chunk can have.
        most: usize,
    },
    /// A declared data range is empty or reaches beyond the chunk, or the item of an
    /// image.
    DataRange {
        /// The range.
        range: Range<usize>,
        /// The length of the chunk or item.
        len: usize,
    },
    /// The bytes are no valid instruction of 64-bit mode.
    Invalid,
    /// The bytes were refused, and are those of an ELF file: the code in it is one of
    /// its sections.
    Elf {
        /// The processor that the file is for: 62 for x86-64, 183 for aarch64.
        machine: u16,
    },
    /// The bytes were refused, and are instructions of aarch64.
    Aarch64,
    /// The chunk, or the item of an image, ends inside an instruction.
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
    /// The rules forbid the instruction.
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
    /// A branch out of the chunk goes into the middle of an instruction of another
    /// one, into its data, or to an instruction that is not among its
    /// [declared entries](crate::Rules::entry). Both count from the start of the
    /// region.
    NotAnEntry {
        /// Where the branch would lie.
        branch: usize,
        /// Where it goes.
        target: usize,
    },
    /// A branch that was published before goes to a place where the chunk has the
    /// middle of an instruction, data, or no declared entry.
    EntryExpected {
        /// Where the branch goes, from the start of the region.
        target: usize,
    },
    /// A branch out of the chunk goes to an address that is not among
    /// [those it may go to](crate::Rules::leaves_only_to), nor an entry in the region or
    /// code space. Both are addresses.
    LeavesTo {
        /// Where the branch would lie.
        branch: usize,
        /// Where it goes.
        target: usize,
    },
    /// The chunk's rules say [where its branches may leave
    /// to](crate::Rules::leaves_only_to), and it was to be published by an
    /// `AppendHandle`, which knows no address.
    NoAddress,
    /// The value of a record of an image does not fit its field.
    TooFar {
        /// What the field was to hold.
        kind: RelocKind,
        /// The address that the field lies at.
        field: usize,
        /// The address it was to refer to.
        address: usize,
        /// What was to be added to that.
        addend: i64,
    },
    /// The field of a record is not inside of the item.
    FieldOutside {
        /// What the field was to hold.
        kind: RelocKind,
        /// The length of the item.
        len: usize,
    },
    /// Another record of the item has bytes of the same field.
    FieldsOverlap {
        /// What the field was to hold.
        kind: RelocKind,
        /// Where that one's field begins, from the start of the item.
        other: usize,
    },
    /// A record refers to an item that the image does not have.
    NoItem {
        /// What the field was to hold.
        kind: RelocKind,
        /// The number of the item.
        number: usize,
        /// How many the image has.
        items: usize,
    },
    /// An alignment is not a power of two from 1 to 4096 bytes.
    BadAlign {
        /// The number that was given.
        bytes: usize,
    },
    /// No instruction has this mnemonic.
    NoMnemonic {
        /// The name that was given.
        name: String,
    },
    /// An instruction has 1 to 15 bytes.
    InstructionLength {
        /// The number that was given.
        len: usize,
    },
    /// Bytes that were never written can't be patched.
    NotWritten {
        /// Where the patch begins.
        at: usize,
        /// Its length.
        len: usize,
        /// How many bytes were written.
        written: usize,
    },
    /// There is no memory: for the copy, or for what is noted about it. Nothing is
    /// said about the code.
    NoMemory,
}

/// Code, an item of an image, or an argument was refused: where, which instruction,
/// and why.
///
/// `{error}` and `{error:?}` are all of it in one line, with what to do about it.
///
/// ```
/// use jitfd::{Rules, Reason, validate};
///
/// // jmp 1; the target is the second byte of the jump itself.
/// let error = validate(&[0xeb, 0xff], &Rules::new()).unwrap_err();
/// assert_eq!(error.offset, 0);
/// assert_eq!(error.reason, Reason::IntoInstruction { target: 1, start: 0 });
/// // For a log of the compiler.
/// assert_eq!(error.bytes, [0xeb, 0xff]);
/// println!("{}: {}", error.disassembly, error.advice());
/// ```
///
/// Of an image, the item:
/// ```
/// use jitfd::space::Item;
/// use jitfd::{Error, Reason};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
/// # let space = jit.space(jitfd::space::SpaceOptions::default())?;
/// let mut image = Vec::new();
/// image.push(Item::new("good", vec![0xc3]));
/// image.push(Item::new("bad", vec![0x90, 0x06])); // nop; push es: not in 64-bit mode
/// match space.link(&image, None) {
///     Err(Error::Code(error)) => {
///         assert_eq!(error.item, Some((1, "bad".to_owned())));
///         assert_eq!((error.offset, error.reason), (1, Reason::Invalid));
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodeError {
    /// The number and the name of the item of an image, or the number of the chunk
    /// in a batch, which has no name; `None` if there is only one. They are counted
    /// from 0.
    pub item: Option<(usize, String)>,
    /// The offset of the instruction at fault, in bytes from the start of the chunk;
    /// from the start of the item, if there is one. For a branch it is the branch, not
    /// its target; for a record its field. 0 if the chunk as a whole is at fault.
    pub offset: usize,
    /// The bytes of the instruction at fault: at most 15, and what there is of it if
    /// it is incomplete. None if the chunk as a whole, or a record, is at fault.
    pub bytes: Vec<u8>,
    /// The instruction at fault as text, branch targets as offsets in the chunk (in
    /// the region or absolute, if the reason tells them like that); `(bad)` if it is
    /// none. Empty without the feature `disassembly`.
    pub disassembly: String,
    /// Why the code was refused. If it is of an image, its offsets count from the
    /// start of the image.
    pub reason: Reason,
}

/// The length of the longest instruction, in bytes.
pub(crate) const LONGEST: usize = 15;

impl CodeError {
    /// A fault of the chunk as a whole, or of an argument.
    #[doc(hidden)]
    #[must_use]
    pub const fn whole(reason: Reason) -> Self {
        Self {
            item: None,
            offset: 0,
            bytes: Vec::new(),
            disassembly: String::new(),
            reason,
        }
    }

    /// There is no memory.
    #[doc(hidden)]
    #[must_use]
    pub const fn no_memory() -> Self {
        Self::whole(Reason::NoMemory)
    }

    /// A fault of the instruction at `offset`.
    #[doc(hidden)]
    #[must_use]
    pub fn at(chunk: &[u8], offset: usize, reason: Reason) -> Self {
        Self::placed(chunk, offset, offset, reason)
    }

    /// The same, if the instruction comes to lie at `place`, by which it is
    /// disassembled.
    #[doc(hidden)]
    #[must_use]
    pub fn placed(chunk: &[u8], offset: usize, place: usize, reason: Reason) -> Self {
        let rest = chunk.get(offset..).unwrap_or_default();
        let rest = rest.get(..LONGEST).unwrap_or(rest);
        let (len, disassembly) = disassemble(rest, place);
        let bytes = rest.get(..len).unwrap_or(rest).to_vec();
        Self {
            offset,
            bytes,
            disassembly,
            ..Self::whole(reason)
        }
    }

    /// A fault of an item of an image, at `offset` of it.
    #[doc(hidden)]
    #[must_use]
    pub fn of_item(number: usize, name: &str, offset: usize, reason: Reason) -> Self {
        Self::whole(reason).in_item(number, name, offset)
    }

    /// The same error, of an item.
    #[doc(hidden)]
    #[must_use]
    pub fn in_item(self, number: usize, name: &str, offset: usize) -> Self {
        let item = Some((number, name.to_owned()));
        Self {
            item,
            offset,
            ..self
        }
    }

    /// Whether memory was too short to judge the code.
    #[doc(hidden)]
    #[must_use]
    pub const fn is_no_memory(&self) -> bool {
        matches!(self.reason, Reason::NoMemory)
    }

    /// Whether no code was refused but an argument.
    #[doc(hidden)]
    #[must_use]
    pub const fn is_argument(&self) -> bool {
        matches!(
            self.reason,
            Reason::BadAlign { .. }
                | Reason::NoMnemonic { .. }
                | Reason::InstructionLength { .. }
                | Reason::NotWritten { .. }
        )
    }

    /// Whether a record of an image can't be resolved.
    #[doc(hidden)]
    #[must_use]
    pub const fn is_record(&self) -> bool {
        self.reason.kind().is_some()
    }

    /// One sentence: what the author of the compiler can do about it.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self.reason {
            Reason::Empty => "submit at least one instruction",
            Reason::TooLong { .. } => "split the chunk",
            Reason::DataRange { .. } => "declare non-empty ranges inside the chunk",
            Reason::Invalid => "fix the emitter, or declare these bytes as data",
            Reason::Elf { .. } => "submit the bytes of a function: a section, such as .text",
            Reason::Aarch64 => "have the compiler emit code for x86-64",
            Reason::Truncated => "submit whole instructions only; is the last one cut off?",
            Reason::RunsIntoData { .. } => "correct the data range or what stands before it",
            Reason::IntoInstruction { .. } => "fix the branch's displacement; was it patched?",
            Reason::SkipsLock { .. } => "allow lock skips if it is meant",
            Reason::IntoData { .. } => "correct the data range or the branch's displacement",
            Reason::BadEntry { .. } => "declare entries where instructions start",
            Reason::NoEndbr64 => "begin the entry with endbr64 (f3 0f 1e fa)",
            Reason::Forbidden { .. } => "emit something else, or change the rules",
            Reason::CrossesLine => "put NOPs before it; the library's line writer does that",
            Reason::VendorDependent => "drop the 66 prefix",
            Reason::NotAnEntry { .. } => "relocate the code for the place it gets",
            Reason::EntryExpected { .. } => "put the function it was meant for there",
            Reason::LeavesTo { .. } => {
                "assemble it for the address it gets, or name the target in leaves_only_to"
            }
            Reason::NoAddress => "publish it by a Region or CodeSpace",
            Reason::TooFar { .. } => "ask for a window that reaches it, or use Call32 or Abs64",
            Reason::FieldOutside { .. } => "correct the record's offset",
            Reason::FieldsOverlap { .. } => "leave one of the two records out",
            Reason::NoItem { .. } => "add the item before the image is linked",
            Reason::BadAlign { .. } => "give a power of two from 1 to 4096",
            Reason::NoMnemonic { .. } => "use the name that Intel's manual has",
            Reason::InstructionLength { .. } => "give one instruction at a time",
            Reason::NotWritten { .. } => "write it first",
            Reason::NoMemory => "free some, raise the limit, or split the chunk",
        }
    }

    /// Whether the reason has offsets in the image, while `offset` is one in an item.
    const fn counts_from_image(&self) -> bool {
        let offsets = matches!(
            self.reason,
            Reason::RunsIntoData { .. }
                | Reason::IntoInstruction { .. }
                | Reason::SkipsLock { .. }
                | Reason::IntoData { .. }
                | Reason::BadEntry { .. }
        );
        offsets && self.item.is_some()
    }

    fn write_place(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((number, name)) = &self.item {
            write!(f, "item {number}")?;
            if !name.is_empty() {
                write!(f, " {name:?}")?;
            }
            f.write_str(", ")?;
        }
        if self.item.is_some() || !self.bytes.is_empty() {
            write!(f, "offset {:#x}:", self.offset)?;
            let mut bytes = self.bytes.iter();
            bytes.try_for_each(|byte| write!(f, " {byte:02x}"))?;
            if !self.disassembly.is_empty() {
                write!(f, " ({}):", self.disassembly)?;
            } else if !self.bytes.is_empty() {
                f.write_str(":")?;
            }
            f.write_str(" ")?;
        }
        if let Some(kind) = self.reason.kind() {
            write!(f, "{kind:?}: ")?;
        }
        Ok(())
    }
}

/// Length and text of the first instruction of `bytes`, which lies at `place`.
fn disassemble(bytes: &[u8], place: usize) -> (usize, String) {
    let mut decoder = Decoder::with_ip(64, bytes, to_u64(place), DecoderOptions::NONE);
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        return (bytes.len(), text(None));
    }
    (instruction.len(), text(Some(&instruction)))
}

/// An instruction as text, or what is none.
#[cfg(feature = "disassembly")]
fn text(instruction: Option<&iced_x86::Instruction>) -> String {
    let mut text = String::new();
    match instruction {
        Some(one) => iced_x86::FastFormatter::new().format(one, &mut text),
        None => text.push_str("(bad)"),
    }
    text
}

#[cfg(not(feature = "disassembly"))]
const fn text(_: Option<&iced_x86::Instruction>) -> String {
    String::new()
}

impl Reason {
    /// The kind of the record at fault.
    const fn kind(&self) -> Option<RelocKind> {
        match self {
            Self::TooFar { kind, .. }
            | Self::FieldOutside { kind, .. }
            | Self::FieldsOverlap { kind, .. }
            | Self::NoItem { kind, .. } => Some(*kind),
            _ => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the chunk is empty"),
            Self::TooLong { len, most } => {
                write!(f, "{len} bytes are more than the {most} of one publication")
            }
            Self::DataRange { range, len } => write!(
                f,
                "the data range {range:#x?} is empty or not inside of the {len:#x} bytes"
            ),
            Self::Invalid => write!(f, "this is no valid instruction"),
            Self::Elf { machine } => match machine_name(*machine) {
                Some(name) => write!(f, "this is an ELF file for {name}, and no bare code"),
                None => write!(f, "this is an ELF file for processor {machine}"),
            },
            Self::Aarch64 => write!(f, "these are instructions of aarch64"),
            Self::Truncated => write!(f, "the code ends inside this instruction"),
            Self::RunsIntoData { data } => {
                write!(f, "this instruction runs into the data at {data:#x}")
            }
            Self::IntoInstruction { target, start } => write!(
                f,
                "the branch goes to {target:#x}, into the instruction at {start:#x}"
            ),
            Self::SkipsLock { target } => {
                write!(f, "the branch goes to {target:#x}, behind a lock prefix")
            }
            Self::IntoData { target } => write!(f, "the branch goes to {target:#x}, which is data"),
            Self::BadEntry { entry } => {
                write!(f, "no instruction starts at the declared entry {entry:#x}")
            }
            Self::NoEndbr64 => write!(f, "this entry does not begin with endbr64"),
            Self::Forbidden { class } => write!(f, "the rules forbid this: {class}"),
            Self::CrossesLine => write!(f, "this instruction crosses a border of 64 bytes"),
            Self::VendorDependent => write!(
                f,
                "where this goes, or how long it is, depends on the processor's maker"
            ),
            Self::NotAnEntry { branch, target } => write!(
                f,
                "the branch at offset {branch:#x} of the region goes to {target:#x}, where no \
                 instruction starts, or none that is declared as an entry"
            ),
            Self::EntryExpected { target } => write!(
                f,
                "published code branches to offset {target:#x} of the region, where the new code \
                 has no entry"
            ),
            Self::LeavesTo { branch, target } => write!(
                f,
                "the branch at address {branch:#x} goes to {target:#x}, which is no address it \
                 may leave to"
            ),
            Self::NoAddress => write!(
                f,
                "where branches of the chunk go can't be checked: an append handle knows no address"
            ),
            Self::TooFar {
                field,
                address,
                addend,
                ..
            } => write!(f, "{address:#x} (and {addend}) is too far from {field:#x}"),
            Self::FieldOutside { len, .. } => {
                write!(f, "the field is not inside of the item's {len:#x} bytes")
            }
            Self::FieldsOverlap { other, .. } => {
                write!(f, "the field overlaps that of the record at {other:#x}")
            }
            Self::NoItem { number, items, .. } => {
                write!(f, "the image has no item {number}: it has {items}")
            }
            Self::BadAlign { bytes } => write!(
                f,
                "{bytes} is no alignment: those are powers of two from 1 to 4096"
            ),
            Self::NoMnemonic { name } => write!(f, "no instruction has the mnemonic {name:?}"),
            Self::InstructionLength { len } => {
                write!(f, "an instruction has 1 to 15 bytes, not {len}")
            }
            Self::NotWritten { at, len, written } => write!(
                f,
                "the {len} bytes at {at:#x} can't be patched: only {written:#x} were written"
            ),
            Self::NoMemory => write!(f, "there is no memory for it"),
        }
    }
}

impl fmt::Display for CodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_place(f)?;
        write!(f, "{}", self.reason)?;
        if self.counts_from_image() {
            f.write_str(" (from the start of the image)")?;
        }
        write!(f, "; {}", self.advice())
    }
}

/// The text, so that `fn main() -> Result<(), CodeError>` reads well.
impl fmt::Debug for CodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for CodeError {}

/// The name of the processor with this number in an ELF file, of those that JIT
/// compilers know.
const fn machine_name(machine: u16) -> Option<&'static str> {
    Some(match machine {
        3 => "i386",
        40 => "arm",
        62 => "x86-64",
        183 => "aarch64",
        243 => "riscv",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_which_item() {
        let reason = Reason::IntoInstruction {
            target: 0x21,
            start: 0x20,
        };
        let error = CodeError::at(&[0xeb, 0x1f], 0, reason).in_item(3, "f", 8);
        let text = if cfg!(feature = "disassembly") {
            " (jmp 21h)"
        } else {
            ""
        };
        let expected = format!(
            "item 3 \"f\", offset 0x8: eb 1f{text}: the branch goes to 0x21, into the instruction \
             at 0x20 (from the start of the image); fix the branch's displacement; was it patched?"
        );
        assert_eq!(
            (error.to_string(), format!("{error:?}")),
            (expected.clone(), expected)
        );
    }

    #[test]
    fn errors_of_records_say_where_and_what_to_do() {
        let reason = Reason::TooFar {
            kind: RelocKind::Rel32,
            field: 0x1000,
            address: 0x7f00_0000_0000,
            addend: -4,
        };
        let text = CodeError::of_item(0, "f", 1, reason).to_string();
        for part in [
            "item 0 \"f\"",
            "Rel32",
            "0x1000",
            "0x7f0000000000",
            "-4",
            "window",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    /// Clippy's bound for what a function returns as an error.
    #[test]
    fn an_error_is_small() {
        assert!(size_of::<CodeError>() < 128);
    }
}
