// SPDX-License-Identifier: MIT OR Apache-2.0

//! The general registers, and their numbers in instructions and in unwind tables. Pure.

/// A general register. As a number it is its number in instructions, 0 to 15; unwind
/// tables have other numbers.
///
/// ```
/// use jitfd::Register;
///
/// assert_eq!(Register::R10 as usize, 10);
/// assert!(Register::ALL.into_iter().all(|one| Register::ALL[one as usize] == one));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    missing_docs,
    reason = "they have the names that the manuals give them"
)]
pub enum Register {
    Rax,
    Rcx,
    Rdx,
    Rbx,
    Rsp,
    Rbp,
    Rsi,
    Rdi,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
}

impl Register {
    /// All of them, in the order of their numbers in instructions.
    pub const ALL: [Self; 16] = [
        Self::Rax,
        Self::Rcx,
        Self::Rdx,
        Self::Rbx,
        Self::Rsp,
        Self::Rbp,
        Self::Rsi,
        Self::Rdi,
        Self::R8,
        Self::R9,
        Self::R10,
        Self::R11,
        Self::R12,
        Self::R13,
        Self::R14,
        Self::R15,
    ];

    /// The number in unwind tables, which the x86-64 ABI gives it (its section "DWARF
    /// Definition").
    pub(crate) const fn in_unwind_tables(self) -> u8 {
        match self {
            Self::Rax => 0,
            Self::Rdx => 1,
            Self::Rcx => 2,
            Self::Rbx => 3,
            Self::Rsi => 4,
            Self::Rdi => 5,
            Self::Rbp => 6,
            Self::Rsp => 7,
            Self::R8 => 8,
            Self::R9 => 9,
            Self::R10 => 10,
            Self::R11 => 11,
            Self::R12 => 12,
            Self::R13 => 13,
            Self::R14 => 14,
            Self::R15 => 15,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_register_has_numbers_of_its_own() {
        let mut numbers = Register::ALL.map(Register::in_unwind_tables);
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..16));
        for (number, register) in Register::ALL.into_iter().enumerate() {
            assert_eq!(register as usize, number);
        }
    }
}
