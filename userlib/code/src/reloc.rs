// SPDX-License-Identifier: MIT OR Apache-2.0

//! Relocation records: places in code that depend on addresses. Pure.
//!
//! In the usual letters: S is the address of the target, A the addend, P the
//! address of the field itself.

/// What goes into a field.
///
/// | here | bytes | value | Cranelift | LLVM (`JITLink`) | ELF `R_X86_64_` |
/// |---|---|---|---|---|---|
/// | `Abs64` | 8 | S + A | `Abs8` | `Pointer64` | `64` |
/// | `Abs32` | 4 | S + A, zero-extended | `Abs4` | `Pointer32` | `32` |
/// | `Abs32Signed` | 4 | S + A, sign-extended | | `Pointer32Signed` | `32S` |
/// | `Rel64` | 8 | S + A - P | | `Delta64` | `PC64` |
/// | `Rel32` | 4 | S + A - P | `X86PCRel4` | `Delta32` | `PC32` |
/// | `Call32` | 4 | S + A - P, or of a stub | `X86CallPCRel4`, `X86CallPLTRel4` | | `PLT32` |
/// | `Rel8` | 1 | S + A - P | | `Delta8` | `PC8` |
///
/// The field of a branch is followed by the next instruction, from which the
/// CPU counts, so the addend there is -4 (-1 for `Rel8`); Cranelift's and ELF's
/// records have it so, too. LLVM's `PCRel32` and `BranchPCRel32` count from the
/// end of the field: subtract 4 from their addend. Global offset tables and
/// thread-local storage have no records here.
///
/// ```
/// use jitfd::space::RelocKind;
///
/// /// The kind for a number of ELF's.
/// fn of_elf(number: u32) -> Option<RelocKind> {
///     Some(match number {
///         1 => RelocKind::Abs64,        // R_X86_64_64
///         2 => RelocKind::Rel32,        // R_X86_64_PC32
///         4 => RelocKind::Call32,       // R_X86_64_PLT32
///         10 => RelocKind::Abs32,       // R_X86_64_32
///         11 => RelocKind::Abs32Signed, // R_X86_64_32S
///         15 => RelocKind::Rel8,        // R_X86_64_PC8
///         24 => RelocKind::Rel64,       // R_X86_64_PC64
///         _ => return None,
///     })
/// }
/// assert_eq!(of_elf(4), Some(RelocKind::Call32));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelocKind {
    /// The address, 64 bits.
    Abs64,
    /// The address, which must fit 32 bits without a sign.
    Abs32,
    /// The address, which must fit 32 bits with a sign.
    Abs32Signed,
    /// The distance from the field, 64 bits.
    Rel64,
    /// The distance from the field, 32 bits.
    Rel32,
    /// The same in a `call` or `jmp`. If the target is an [address](Target::Address)
    /// that is too far away, the branch goes to a stub that jumps there and changes
    /// `r11`. For that the addend must be -4. Room for stubs lies behind the last item
    /// and is no part of it; a stub is there only if a branch goes by it:
    /// `CodeSpace::lookup` does not find them.
    Call32,
    /// The distance from the field, 8 bits.
    Rel8,
}

impl RelocKind {
    /// The length of the field in bytes.
    #[doc(hidden)]
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Self::Abs64 | Self::Rel64 => 8,
            Self::Abs32 | Self::Abs32Signed | Self::Rel32 | Self::Call32 => 4,
            Self::Rel8 => 1,
        }
    }

    /// The value, and the least and greatest that fit the field.
    const fn value(self, target: i128, field: i128) -> (i128, i128, i128) {
        let distance = target - field;
        match self {
            // Addresses wrap, as the CPU's do.
            Self::Abs64 => (target, i128::MIN, i128::MAX),
            Self::Rel64 => (distance, i128::MIN, i128::MAX),
            Self::Abs32 => (target, 0, u32::MAX as i128),
            Self::Abs32Signed => (target, i32::MIN as i128, i32::MAX as i128),
            Self::Rel32 | Self::Call32 => (distance, i32::MIN as i128, i32::MAX as i128),
            Self::Rel8 => (distance, i8::MIN as i128, i8::MAX as i128),
        }
    }
}

/// What a record refers to.
///
/// ```
/// use jitfd::space::{Item, Reloc, RelocKind, Target};
///
/// static TABLE: [u8; 256] = [0; 256];
/// let mut image = Vec::new();
/// // A variable of the program, and an item of the same image.
/// let table = Reloc::new(2, RelocKind::Abs64, Target::Address(TABLE.as_ptr().addr()), 0);
/// // mov rax, the address of the table; ret
/// let code = vec![0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xc3];
/// let lookup = image.len();
/// image.push(Item { relocs: vec![table], ..Item::new("lookup", code) });
/// let jump = Reloc::new(1, RelocKind::Rel32, Target::Item(lookup), -4);
/// image.push(Item { relocs: vec![jump], ..Item::new("entry", vec![0xe9, 0, 0, 0, 0]) });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// An address that is known already: of published code, of a function or of
    /// a variable of the program.
    Address(usize),
    /// The start of an item that is linked with this one, by its
    /// number: 0 is the first.
    Item(usize),
}

impl Target {
    /// The number of the item.
    ///
    /// # Errors
    /// The address, if it is none.
    #[doc(hidden)]
    pub const fn item(self) -> Result<usize, usize> {
        match self {
            Self::Item(number) => Ok(number),
            Self::Address(address) => Err(address),
        }
    }
}

/// One place in an item that depends on addresses.
///
/// ```
/// use jitfd::space::{Reloc, RelocKind, Target};
///
/// // The operand of a `call` at the start of the code.
/// let call = Reloc::new(1, RelocKind::Call32, Target::Item(0), -4);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reloc {
    /// Where the field is, in bytes from the start of the item.
    pub at: usize,
    /// What goes into it.
    pub kind: RelocKind,
    /// What it refers to.
    pub target: Target,
    /// What is added to the target's address.
    pub addend: i64,
}

impl Reloc {
    /// The record with these fields. For a branch the addend is -4, or -1 for
    /// [`Rel8`](RelocKind::Rel8).
    #[must_use]
    pub const fn new(at: usize, kind: RelocKind, target: Target, addend: i64) -> Self {
        Self {
            at,
            kind,
            target,
            addend,
        }
    }
}

/// The bytes of a field of `kind` at address `field` for the target at `target`;
/// only the first [`width`](RelocKind::width) count. `None` if it is too far.
pub fn resolve(kind: RelocKind, target: i128, field: usize) -> Option<[u8; 16]> {
    let (value, least, greatest) = kind.value(target, field as i128);
    (least <= value && value <= greatest).then(|| value.to_le_bytes())
}

/// `mov r11, target; jmp r11`: how code goes to an address that is too far.
pub fn stub(target: usize) -> [u8; STUB] {
    let mut code = [0xcc; STUB];
    code[..2].copy_from_slice(&[0x49, 0xbb]);
    code[2..10].copy_from_slice(&target.to_le_bytes());
    code[10..13].copy_from_slice(&[0x41, 0xff, 0xe3]);
    code
}

/// The length of a stub in bytes; the last are trap bytes.
pub const STUB: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use RelocKind::{Abs32, Abs32Signed, Abs64, Call32, Rel8, Rel32, Rel64};

    fn field(kind: RelocKind, target: i128, at: usize) -> Option<i64> {
        let bytes = resolve(kind, target, at)?;
        let mut value = [0; 8];
        let width = kind.width();
        value[..width].copy_from_slice(&bytes[..width]);
        let shift = 64 - 8 * width;
        Some(i64::from_le_bytes(value) << shift >> shift)
    }

    #[test]
    fn values_at_the_edges_of_each_field() {
        const P: usize = 1 << 40;
        let at = P as i128;
        for (kind, last) in [
            (Rel8, 127),
            (Rel32, i32::MAX.into()),
            (Call32, i32::MAX.into()),
        ] {
            assert_eq!(field(kind, at + i128::from(last), P), Some(last));
            assert_eq!(field(kind, at + i128::from(last) + 1, P), None);
            assert_eq!(field(kind, at - i128::from(last) - 1, P), Some(-last - 1));
            assert_eq!(field(kind, at - i128::from(last) - 2, P), None);
        }
        assert_eq!(field(Rel64, 0, P), Some(-(1 << 40)));
        assert_eq!(field(Abs64, at + 5, P), Some((1 << 40) + 5));
        assert_eq!(field(Abs32, u32::MAX.into(), P), Some(-1));
        assert_eq!(field(Abs32, i128::from(u32::MAX) + 1, P), None);
        assert_eq!(field(Abs32, -1, P), None);
        assert_eq!(field(Abs32Signed, -1, P), Some(-1));
        assert_eq!(field(Abs32Signed, i128::from(i32::MAX) + 1, P), None);
    }
}
