// SPDX-License-Identifier: MIT OR Apache-2.0

//! The common instruction forms, whose length follows from a table: nine of ten
//! instructions of compiled code. Whatever is not in the table, or looks unusual,
//! is left to the full decoder, so this file only has to be right about what it
//! accepts: an exhaustive test holds each form against iced-x86.
//!
//! A plain instruction is: at most one of the prefixes 66, F2, F3; a REX prefix
//! or none; an opcode of one byte or of 0F and one byte; ModRM, SIB and
//! displacement; an immediate.

/// The bytes at which a plain instruction is looked for: more than the longest
/// instruction has.
pub(crate) type Window = [u8; 16];

/// A plain instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    /// Its length in bytes.
    pub(crate) len: usize,
    /// For a direct branch: the displacement, which counts from its end.
    pub(crate) displacement: Option<i32>,
}

/// One table entry: how an opcode goes on. All that a form has to be asked is a
/// number, so that finding the length needs no jump that depends on it.
#[derive(Clone, Copy)]
struct Form {
    /// The values of ModRM.reg that are plain if ModRM names memory, as bits.
    memory: u8,
    /// The same if ModRM names a register.
    register: u8,
    /// All bits set if there is a ModRM, else none.
    modrm: u8,
    /// The values of ModRM.reg with which the immediate is there, as bits.
    imm_regs: u8,
    /// The length of the immediate, by [`Operand`]. That of a displacement that
    /// a branch has counts as well.
    imm: [u8; 3],
    /// Whether the instruction is a direct branch.
    near: bool,
}

impl Form {
    const fn new(regs: u8, tail: Tail) -> Self {
        let (modrm, register, imm_regs) = match tail {
            Bare(_) | Near8 | Near32 => (0, regs, ALL),
            ModRm(_) => (ALL, regs, ALL),
            Memory => (ALL, 0, ALL),
            Test(_) => (ALL, regs, 0b11),
        };
        let imm = match tail {
            Bare(imm) | ModRm(imm) | Test(imm) => imm.lengths(),
            Memory => Imm::None.lengths(),
            Near8 => [1; 3],
            Near32 => [4; 3],
        };
        let near = matches!(tail, Near8 | Near32);
        Self {
            memory: regs,
            register,
            modrm,
            imm_regs,
            imm,
            near,
        }
    }
}

/// What follows the opcode.
#[derive(Clone, Copy)]
enum Tail {
    /// Nothing but an immediate.
    Bare(Imm),
    /// ModRM and an immediate.
    ModRm(Imm),
    /// ModRM that names memory, not a register.
    Memory,
    /// `test`: ModRM, and an immediate if ModRM.reg is 0 or 1.
    Test(Imm),
    /// A displacement of 8 bits, relative.
    Near8,
    /// A displacement of 32 bits, relative.
    Near32,
}

/// The size of an immediate.
#[derive(Clone, Copy)]
enum Imm {
    None,
    Byte,
    /// Of the operand's size, at most 4 bytes.
    Word,
    /// Of the operand's size, up to 8 bytes.
    Full,
}

impl Imm {
    /// In bytes, by [`Operand`].
    const fn lengths(self) -> [u8; 3] {
        match self {
            Self::None => [0; 3],
            Byte => [1; 3],
            Word => [4, 2, 4],
            Full => [4, 2, 8],
        }
    }
}
use Imm::{Byte, Full, Word};
use Tail::{Bare, Memory, ModRm, Near8, Near32, Test};

const OTHER: Form = Form::new(0, Bare(Imm::None));
const ALL: u8 = 0xff;

/// The prefixes in the order of the tables.
const NO_PREFIX: usize = 0;
const P66: usize = 1;
const PF3: usize = 2;
const PF2: usize = 3;

type Map = [Form; 256];

const fn put(mut map: Map, from: u8, to: u8, regs: u8, tail: Tail) -> Map {
    let mut opcode = from as usize;
    while opcode <= to as usize {
        map[opcode] = Form::new(regs, tail);
        opcode += 1;
    }
    map
}

/// Puts the same form at each of `opcodes`.
const fn each(mut map: Map, opcodes: &[u8], tail: Tail) -> Map {
    let mut index = 0;
    while index < opcodes.len() {
        map[opcodes[index] as usize] = Form::new(ALL, tail);
        index += 1;
    }
    map
}

/// One-byte opcodes that take a 66 prefix or none.
const fn one_byte() -> Map {
    let mut map = [OTHER; 256];
    let mut row = 0;
    while row < 0x40 {
        map = put(map, row, row + 3, ALL, ModRm(Imm::None));
        map = put(map, row + 4, row + 4, ALL, Bare(Byte));
        map = put(map, row + 5, row + 5, ALL, Bare(Word));
        row += 8;
    }
    map = put(map, 0x50, 0x5f, ALL, Bare(Imm::None));
    map = each(map, &[0x63], ModRm(Imm::None));
    map = each(map, &[0x68, 0xa9], Bare(Word));
    map = each(map, &[0x69, 0x81], ModRm(Word));
    map = each(map, &[0x6a, 0xa8], Bare(Byte));
    map = each(map, &[0x6b, 0x80, 0x83, 0xc0, 0xc1], ModRm(Byte));
    map = put(map, 0x84, 0x8b, ALL, ModRm(Imm::None));
    map = each(map, &[0x8d], Memory);
    map = put(map, 0x90, 0x99, ALL, Bare(Imm::None));
    map = put(map, 0xb0, 0xb7, ALL, Bare(Byte));
    map = put(map, 0xb8, 0xbf, ALL, Bare(Full));
    map = put(map, 0xc6, 0xc6, 0b1, ModRm(Byte));
    map = put(map, 0xc7, 0xc7, 0b1, ModRm(Word));
    map = put(map, 0xd0, 0xd3, ALL, ModRm(Imm::None));
    map = each(map, &[0xf6], Test(Byte));
    map = each(map, &[0xf7], Test(Word));
    put(map, 0xfe, 0xff, 0b11, ModRm(Imm::None))
}

/// One-byte opcodes without a prefix.
const fn one_byte_bare() -> Map {
    let mut map = one_byte();
    map = put(map, 0x70, 0x7f, ALL, Near8);
    map = each(map, &[0xeb], Near8);
    map = each(map, &[0xe8, 0xe9], Near32);
    map = each(map, &[0xc3, 0xc9, 0xcc], Bare(Imm::None));
    put(map, 0xff, 0xff, 0b101_0111, ModRm(Imm::None))
}

/// String instructions, `pause` and `ret`, which take `rep`.
const fn one_byte_rep() -> Map {
    each(
        [OTHER; 256],
        &[0x90, 0xa4, 0xa5, 0xaa, 0xab, 0xc3],
        Bare(Imm::None),
    )
}

/// Opcodes behind 0F that take a 66 prefix or none.
const fn two_byte() -> Map {
    let mut map = [OTHER; 256];
    map = each(
        map,
        &[0x10, 0x11, 0x14, 0x15, 0x1f, 0x28, 0x29],
        ModRm(Imm::None),
    );
    map = each(map, &[0x13, 0x17], Memory);
    map = each(map, &[0x2e, 0x2f, 0x51], ModRm(Imm::None));
    map = put(map, 0x40, 0x4f, ALL, ModRm(Imm::None));
    map = put(map, 0x54, 0x5f, ALL, ModRm(Imm::None));
    map = put(map, 0x90, 0x9f, ALL, ModRm(Imm::None));
    map = each(map, &[0xa3, 0xa5, 0xab, 0xad, 0xb3, 0xbb], ModRm(Imm::None));
    map = each(map, &[0xa4, 0xac, 0xc6], ModRm(Byte));
    map = each(map, &[0xaf, 0xb0, 0xb1, 0xb6, 0xb7], ModRm(Imm::None));
    map = each(map, &[0xbe, 0xbf, 0xc0, 0xc1], ModRm(Imm::None));
    map = put(map, 0xba, 0xba, 0xf0, ModRm(Byte));
    put(map, 0xc8, 0xcf, ALL, Bare(Imm::None))
}

/// Opcodes behind 0F without a prefix.
const fn two_byte_bare() -> Map {
    let mut map = two_byte();
    map = each(map, &[0x0b, 0xa2], Bare(Imm::None));
    map = each(map, &[0x12, 0x16], ModRm(Imm::None));
    put(map, 0x80, 0x8f, ALL, Near32)
}

/// Opcodes behind 66 0F: vectors.
const fn two_byte_66() -> Map {
    let mut map = two_byte();
    map = each(map, &[0x12, 0x16, 0xe7], Memory);
    map = put(map, 0x60, 0x6f, ALL, ModRm(Imm::None));
    map = each(map, &[0x70], ModRm(Byte));
    map = each(map, &[0x74, 0x75, 0x76, 0x7e, 0x7f, 0xd6], ModRm(Imm::None));
    map = put(map, 0xd1, 0xd5, ALL, ModRm(Imm::None));
    map = put(map, 0xd8, 0xe6, ALL, ModRm(Imm::None));
    map = put(map, 0xe8, 0xef, ALL, ModRm(Imm::None));
    map = put(map, 0xf1, 0xf6, ALL, ModRm(Imm::None));
    put(map, 0xf8, 0xfe, ALL, ModRm(Imm::None))
}

/// Opcodes behind F3 0F: scalars of single precision.
const fn two_byte_f3() -> Map {
    let mut map = [OTHER; 256];
    map = each(map, &[0x10, 0x11, 0x2a, 0x2c, 0x2d, 0x51], ModRm(Imm::None));
    map = put(map, 0x58, 0x5f, ALL, ModRm(Imm::None));
    map = each(map, &[0x6f, 0x7e, 0x7f], ModRm(Imm::None));
    map = each(map, &[0x70], ModRm(Byte));
    each(map, &[0xb8, 0xbc, 0xbd, 0xe6], ModRm(Imm::None))
}

/// Opcodes behind F2 0F: scalars of double precision.
const fn two_byte_f2() -> Map {
    let mut map = [OTHER; 256];
    map = each(map, &[0x10, 0x11, 0x2a, 0x2c, 0x2d, 0x51], ModRm(Imm::None));
    map = put(map, 0x58, 0x5a, ALL, ModRm(Imm::None));
    map = put(map, 0x5c, 0x5f, ALL, ModRm(Imm::None));
    map = each(map, &[0x70], ModRm(Byte));
    each(map, &[0xe6], ModRm(Imm::None))
}

static ONE_BYTE: [Map; 4] = [one_byte_bare(), one_byte(), one_byte_rep(), [OTHER; 256]];
static TWO_BYTE: [Map; 4] = [two_byte_bare(), two_byte_66(), two_byte_f3(), two_byte_f2()];

/// ModRM, SIB and displacement, by ModRM; one that needs a look at SIB is
/// counted without the displacement that SIB may ask for.
static MODRM_LEN: [u8; 256] = {
    let mut table = [0; 256];
    let mut modrm = 0;
    while modrm < 256 {
        let (mode, rm) = (modrm >> 6, modrm & 7);
        let sib = if mode != 3 && rm == 4 { 1 } else { 0 };
        let displacement = match (mode, rm) {
            (0, 5) | (2, _) => 4,
            (1, _) => 1,
            _ => 0,
        };
        table[modrm] = 1 + sib + displacement;
        modrm += 1;
    }
    table
};

/// The size of the operand: an index into [`Form::imm`].
#[derive(Clone, Copy)]
enum Operand {
    /// 32 bits, or whatever the instruction says.
    Normal,
    /// 16 bits, by the 66 prefix.
    Short,
    /// 64 bits, by REX.W.
    Wide,
}

/// The instruction at the start of `window`, if it is a plain one.
///
/// It and what it calls are inlined by force: that is a tenth of the time of a
/// loop that the compiler sees twice.
#[inline(always)]
pub(crate) fn plain(window: &Window) -> Option<Plain> {
    match window[0] {
        0x66 => after_prefix(window, 1, P66, Operand::Short),
        0xf3 => after_prefix(window, 1, PF3, Operand::Normal),
        0xf2 => after_prefix(window, 1, PF2, Operand::Normal),
        _ => after_prefix(window, 0, NO_PREFIX, Operand::Normal),
    }
}

/// Goes on at `at`, behind the prefix.
#[inline(always)]
fn after_prefix(window: &Window, at: usize, prefix: usize, operand: Operand) -> Option<Plain> {
    match window[at] {
        0x48..=0x4f => opcode(window, at + 1, prefix, Operand::Wide),
        0x40..=0x47 => opcode(window, at + 1, prefix, operand),
        _ => opcode(window, at, prefix, operand),
    }
}

/// Goes on at `at`, behind the prefixes.
#[inline(always)]
fn opcode(window: &Window, at: usize, prefix: usize, operand: Operand) -> Option<Plain> {
    match window[at] {
        0x0f => tail(
            window,
            at + 2,
            &TWO_BYTE[prefix][usize::from(window[at + 1])],
            operand,
        ),
        opcode => tail(
            window,
            at + 1,
            &ONE_BYTE[prefix][usize::from(opcode)],
            operand,
        ),
    }
}

/// The rest of an instruction whose opcode ends before `at`.
#[inline(always)]
fn tail(window: &Window, at: usize, form: &Form, operand: Operand) -> Option<Plain> {
    let modrm = window[at];
    let reg = modrm >> 3 & 7;
    let plain = if modrm < 0xc0 {
        form.memory
    } else {
        form.register
    };
    // Without a ModRM both say the same of every value.
    if plain >> reg & 1 == 0 {
        return None;
    }
    let imm = form.imm[operand as usize] * (form.imm_regs >> reg & 1);
    let len = at + usize::from((modrm_len(window, at) & form.modrm) + imm);
    let displacement = form.near.then(|| displacement(window, at, imm));
    Some(Plain { len, displacement })
}

/// The displacement at `at`: of 1 byte or, if not, of 4.
#[inline(always)]
fn displacement(window: &Window, at: usize, bytes: u8) -> i32 {
    if bytes == 1 {
        return i8::from_le_bytes([window[at]]).into();
    }
    // A REX prefix and two bytes of opcode at most are before it; the mask says
    // so to the compiler.
    let at = at & 7;
    i32::from_le_bytes([window[at], window[at + 1], window[at + 2], window[at + 3]])
}

/// ModRM, SIB and displacement, in bytes.
#[inline(always)]
fn modrm_len(window: &Window, at: usize) -> u8 {
    let modrm = window[at];
    // Without a base register (5 in SIB) the displacement has 4 bytes.
    let no_base = modrm & 0xc7 == 4 && window[at + 1] & 7 == 5;
    MODRM_LEN[usize::from(modrm)] + if no_base { 4 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forbid::Class;
    use iced_x86::{Decoder, DecoderOptions, OpKind};

    /// What iced-x86 makes of the window, in the same terms.
    fn full(window: &Window) -> Option<Plain> {
        let mut decoder = Decoder::new(64, window, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return None;
        }
        let len = instruction.len();
        let target = crate::num::to_i64(instruction.near_branch_target());
        let near = instruction.op0_kind() == OpKind::NearBranch64;
        let displacement = near.then(|| i32::try_from(target - len as i64).unwrap());
        Some(Plain { len, displacement })
    }

    /// `Forbidden` relies on that: plain forms are not looked at for a class.
    fn in_a_class(window: &Window) -> bool {
        let code = Decoder::new(64, window, DecoderOptions::NONE)
            .decode()
            .code();
        Class::FIXED.into_iter().any(|class| class.holds(code))
    }

    /// Each byte that decides about the form takes every value: prefix, REX,
    /// map, opcode, ModRM, and SIB where there is one.
    #[test]
    fn every_plain_form_is_what_the_full_decoder_says() {
        let mut plain_forms = 0;
        for start in starts() {
            for opcode in 0..=255 {
                for modrm in 0..=255_u8 {
                    let sibs = if modrm & 7 == 4 && modrm < 0xc0 {
                        0..=7
                    } else {
                        3..=3
                    };
                    for sib in sibs {
                        let bytes = [&start[..], &[opcode, modrm, sib]].concat();
                        plain_forms += usize::from(agrees(&bytes));
                    }
                }
            }
        }
        assert!(plain_forms > 1_000_000, "only {plain_forms}");
    }

    fn starts() -> Vec<Vec<u8>> {
        let prefixes: [&[u8]; 4] = [&[], &[0x66], &[0xf3], &[0xf2]];
        let maps: [&[u8]; 2] = [&[], &[0x0f]];
        let rexes = std::iter::once(vec![]).chain((0x40..=0x4f).map(|rex| vec![rex]));
        let mut all = Vec::new();
        for rex in rexes {
            for (prefix, map) in prefixes
                .iter()
                .flat_map(|p| maps.iter().map(move |m| (p, m)))
            {
                all.push([prefix, &rex[..], map].concat());
            }
        }
        all
    }

    fn agrees(bytes: &[u8]) -> bool {
        let mut window = [0xa5; 16];
        window[..bytes.len()].copy_from_slice(bytes);
        let found = plain(&window);
        if found.is_some() {
            assert_eq!(found, full(&window), "{window:02x?}");
            assert!(!in_a_class(&window), "{window:02x?}");
        }
        found.is_some()
    }
}
