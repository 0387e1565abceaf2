// SPDX-License-Identifier: MIT OR Apache-2.0

//! The numbers of general registers: one set, for everything that names one.

use crate::guard::Failure;
use rust::Register;

/// A general register, by its number in instructions.
pub const JITFD_REG_RAX: u32 = 0;
/// A general register, by its number in instructions.
pub const JITFD_REG_RCX: u32 = 1;
/// A general register, by its number in instructions.
pub const JITFD_REG_RDX: u32 = 2;
/// A general register, by its number in instructions.
pub const JITFD_REG_RBX: u32 = 3;
/// A general register, by its number in instructions.
pub const JITFD_REG_RSP: u32 = 4;
/// A general register, by its number in instructions.
pub const JITFD_REG_RBP: u32 = 5;
/// A general register, by its number in instructions.
pub const JITFD_REG_RSI: u32 = 6;
/// A general register, by its number in instructions.
pub const JITFD_REG_RDI: u32 = 7;
/// A general register, by its number in instructions.
pub const JITFD_REG_R8: u32 = 8;
/// A general register, by its number in instructions.
pub const JITFD_REG_R9: u32 = 9;
/// A general register, by its number in instructions.
pub const JITFD_REG_R10: u32 = 10;
/// A general register, by its number in instructions.
pub const JITFD_REG_R11: u32 = 11;
/// A general register, by its number in instructions.
pub const JITFD_REG_R12: u32 = 12;
/// A general register, by its number in instructions.
pub const JITFD_REG_R13: u32 = 13;
/// A general register, by its number in instructions.
pub const JITFD_REG_R14: u32 = 14;
/// A general register, by its number in instructions.
pub const JITFD_REG_R15: u32 = 15;

const _: () = {
    assert!(JITFD_REG_RAX as usize == Register::Rax as usize);
    assert!(JITFD_REG_RCX as usize == Register::Rcx as usize);
    assert!(JITFD_REG_RDX as usize == Register::Rdx as usize);
    assert!(JITFD_REG_RBX as usize == Register::Rbx as usize);
    assert!(JITFD_REG_RSP as usize == Register::Rsp as usize);
    assert!(JITFD_REG_RBP as usize == Register::Rbp as usize);
    assert!(JITFD_REG_RSI as usize == Register::Rsi as usize);
    assert!(JITFD_REG_RDI as usize == Register::Rdi as usize);
    assert!(JITFD_REG_R8 as usize == Register::R8 as usize);
    assert!(JITFD_REG_R9 as usize == Register::R9 as usize);
    assert!(JITFD_REG_R10 as usize == Register::R10 as usize);
    assert!(JITFD_REG_R11 as usize == Register::R11 as usize);
    assert!(JITFD_REG_R12 as usize == Register::R12 as usize);
    assert!(JITFD_REG_R13 as usize == Register::R13 as usize);
    assert!(JITFD_REG_R14 as usize == Register::R14 as usize);
    assert!(JITFD_REG_R15 as usize == Register::R15 as usize);
};

pub(crate) fn general(number: u32) -> Result<Register, Failure> {
    let known = usize::try_from(number).ok();
    let known = known.and_then(|number| Register::ALL.get(number));
    let unknown = Failure::Refused(libc::EINVAL, "there is no such register");
    known.copied().ok_or(unknown)
}

/// Those that unwind tables tell of.
pub(crate) fn saved(number: u32) -> Option<Register> {
    let known = matches!(
        number,
        JITFD_REG_RBX | JITFD_REG_RSP | JITFD_REG_RBP | JITFD_REG_R12..=JITFD_REG_R15
    );
    general(number).ok().filter(|_| known)
}

/// Those that can carry a context.
pub(crate) fn context(number: u32) -> Result<Register, Failure> {
    use Register::{R8, R9, R10, Rcx, Rdi, Rdx, Rsi};
    let text = "a context is carried by rdi, rsi, rdx, rcx, r8, r9 or r10";
    match general(number) {
        Ok(register @ (Rdi | Rsi | Rdx | Rcx | R8 | R9 | R10)) => Ok(register),
        _ => Err(Failure::Refused(libc::EINVAL, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_has_one_number() {
        for (index, register) in (0..).zip(Register::ALL) {
            assert_eq!(general(index).unwrap(), register);
        }
        assert!(general(16).is_err());
        let carry = (0..16).filter(|&number| context(number).is_ok());
        assert_eq!(Vec::from_iter(carry), [1, 2, 6, 7, 8, 9, 10]);
        assert!(context(JITFD_REG_RAX).is_err() && saved(JITFD_REG_RDI).is_none());
    }
}
