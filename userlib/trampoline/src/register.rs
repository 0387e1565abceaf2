// SPDX-License-Identifier: MIT OR Apache-2.0

//! The registers that a trampoline sets.

use iced_x86::Register as Encoded;
use jitfd::{Error, Register};

/// As iced-x86 calls it.
pub(crate) const fn encoded(register: Register) -> Encoded {
    match register {
        Register::Rax => Encoded::RAX,
        Register::Rcx => Encoded::RCX,
        Register::Rdx => Encoded::RDX,
        Register::Rbx => Encoded::RBX,
        Register::Rsp => Encoded::RSP,
        Register::Rbp => Encoded::RBP,
        Register::Rsi => Encoded::RSI,
        Register::Rdi => Encoded::RDI,
        Register::R8 => Encoded::R8,
        Register::R9 => Encoded::R9,
        Register::R10 => Encoded::R10,
        Register::R11 => Encoded::R11,
        Register::R12 => Encoded::R12,
        Register::R13 => Encoded::R13,
        Register::R14 => Encoded::R14,
        Register::R15 => Encoded::R15,
    }
}

/// A register that a function of the System V ABI takes an integer argument in, or
/// `r10`: in which a trampoline can carry its context to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextRegister {
    /// The first integer argument.
    Rdi,
    /// The second integer argument.
    Rsi,
    /// The third integer argument.
    Rdx,
    /// The fourth integer argument.
    Rcx,
    /// The fifth integer argument.
    R8,
    /// The sixth integer argument.
    R9,
    /// The static chain.
    R10,
}

const NO_CONTEXT_REGISTER: Error = Error::Argument(
    "a context register is rdi, rsi, rdx, rcx, r8 or r9, which carry integer arguments, or r10",
);

impl TryFrom<Register> for ContextRegister {
    type Error = Error;

    fn try_from(register: Register) -> Result<Self, Error> {
        let mut all = Self::ALL.into_iter();
        all.find(|one| one.register() == register)
            .ok_or(NO_CONTEXT_REGISTER)
    }
}

impl ContextRegister {
    /// All of them: the integer arguments in order, then `r10`.
    pub(crate) const ALL: [Self; 7] = [
        Self::Rdi,
        Self::Rsi,
        Self::Rdx,
        Self::Rcx,
        Self::R8,
        Self::R9,
        Self::R10,
    ];

    /// The first that no integer argument is passed in, where there are so many.
    pub(crate) const fn behind(integers: usize) -> Self {
        if integers < 6 {
            Self::ALL[integers]
        } else {
            Self::R10
        }
    }

    /// The general register that it is.
    pub(crate) const fn register(self) -> Register {
        match self {
            Self::Rdi => Register::Rdi,
            Self::Rsi => Register::Rsi,
            Self::Rdx => Register::Rdx,
            Self::Rcx => Register::Rcx,
            Self::R8 => Register::R8,
            Self::R9 => Register::R9,
            Self::R10 => Register::R10,
        }
    }

    /// Why a table does not serve closures whose address is to come in this register.
    pub(crate) const fn wanted(self) -> Error {
        Error::Argument(match self {
            Self::Rdi => {
                "a closure of this type needs a table whose context register is rdi or r10"
            }
            Self::Rsi => {
                "a closure of this type needs a table whose context register is rsi or r10"
            }
            Self::Rdx => {
                "a closure of this type needs a table whose context register is rdx or r10"
            }
            Self::Rcx => {
                "a closure of this type needs a table whose context register is rcx or r10"
            }
            Self::R8 => "a closure of this type needs a table whose context register is r8 or r10",
            Self::R9 => "a closure of this type needs a table whose context register is r9 or r10",
            Self::R10 => "a closure of this type needs a table whose context register is r10",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_those_of_the_encoder() {
        for (number, register) in Register::ALL.into_iter().enumerate() {
            assert_eq!(register as usize, number);
            assert_eq!(encoded(register).number(), number);
            let name = format!("{register:?}").to_uppercase();
            assert_eq!(format!("{:?}", encoded(register)), name);
        }
    }

    #[test]
    fn a_context_is_carried_where_arguments_are_and_in_r10() {
        for register in Register::ALL {
            let known = ContextRegister::ALL
                .into_iter()
                .find(|one| one.register() == register);
            match (ContextRegister::try_from(register), known) {
                (Ok(one), Some(other)) => {
                    assert_eq!(one, other);
                    let name = format!("{register:?}").to_lowercase();
                    assert!(one.wanted().to_string().contains(&name));
                }
                (Err(error), None) => assert_eq!(error, NO_CONTEXT_REGISTER),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(ContextRegister::behind(2), ContextRegister::Rdx);
        assert_eq!(ContextRegister::behind(6), ContextRegister::R10);
    }
}
