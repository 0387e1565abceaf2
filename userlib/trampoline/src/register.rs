// SPDX-License-Identifier: MIT OR Apache-2.0

//! The registers that a trampoline sets.

use iced_x86::Register;

/// A general register.
///
/// ```
/// use jitfd_trampoline::Gpr;
///
/// assert_eq!(Gpr::R10.number(), 10);
/// assert!(Gpr::ALL.iter().all(|&register| Gpr::ALL[register.number()] == register));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    missing_docs,
    reason = "they have the names that the manuals give them"
)]
pub enum Gpr {
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

impl Gpr {
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

    /// The number of the register in instructions, 0 to 15.
    #[must_use]
    pub const fn number(self) -> usize {
        self as usize
    }

    /// As iced-x86 calls it.
    pub(crate) const fn encoded(self) -> Register {
        match self {
            Self::Rax => Register::RAX,
            Self::Rcx => Register::RCX,
            Self::Rdx => Register::RDX,
            Self::Rbx => Register::RBX,
            Self::Rsp => Register::RSP,
            Self::Rbp => Register::RBP,
            Self::Rsi => Register::RSI,
            Self::Rdi => Register::RDI,
            Self::R8 => Register::R8,
            Self::R9 => Register::R9,
            Self::R10 => Register::R10,
            Self::R11 => Register::R11,
            Self::R12 => Register::R12,
            Self::R13 => Register::R13,
            Self::R14 => Register::R14,
            Self::R15 => Register::R15,
        }
    }
}

/// The register in which the trampolines of a [`Table`](crate::Table) carry their
/// context to the target: one that a function of the System V ABI takes an integer
/// argument in, or `r10`.
///
/// With an argument register the target sees the context as one more argument, if
/// what it is called with leaves that register free:
///
/// ```
/// use jitfd_trampoline::ContextRegister;
///
/// // Called as f(int, int), the target is f(int, int, void *context).
/// assert_eq!(ContextRegister::argument(2), Some(ContextRegister::Rdx));
/// assert_eq!(ContextRegister::argument(6), None); // on the stack
/// assert!(ContextRegister::ALL.contains(&ContextRegister::R10));
/// ```
///
/// `r10` is the *static chain* of the ABI: GCC's nested functions take their frame
/// there, Go and libffi's `ffi_prep_go_closure` a closure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

impl ContextRegister {
    /// All of them: the integer arguments in order, then `r10`.
    pub const ALL: [Self; 7] = [
        Self::Rdi,
        Self::Rsi,
        Self::Rdx,
        Self::Rcx,
        Self::R8,
        Self::R9,
        Self::R10,
    ];

    /// The register of the integer argument with this number, counted from 0;
    /// `None` if that is on the stack.
    #[must_use]
    pub const fn argument(number: usize) -> Option<Self> {
        if number < 6 {
            Some(Self::ALL[number])
        } else {
            None
        }
    }

    /// The general register that it is.
    ///
    /// ```
    /// use jitfd_trampoline::{ContextRegister, Gpr};
    ///
    /// assert_eq!(ContextRegister::R10.register(), Gpr::R10);
    /// ```
    #[must_use]
    pub const fn register(self) -> Gpr {
        match self {
            Self::Rdi => Gpr::Rdi,
            Self::Rsi => Gpr::Rsi,
            Self::Rdx => Gpr::Rdx,
            Self::Rcx => Gpr::Rcx,
            Self::R8 => Gpr::R8,
            Self::R9 => Gpr::R9,
            Self::R10 => Gpr::R10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_those_of_the_encoder() {
        for (number, register) in Gpr::ALL.into_iter().enumerate() {
            assert_eq!(register.number(), number);
            assert_eq!(register.encoded().number(), number);
            let name = format!("{register:?}").to_uppercase();
            assert_eq!(format!("{:?}", register.encoded()), name);
        }
        for context_register in ContextRegister::ALL {
            let (context_register, register) = (context_register, context_register.register());
            assert_eq!(format!("{context_register:?}"), format!("{register:?}"));
        }
    }
}
