// SPDX-License-Identifier: MIT OR Apache-2.0

//! The registers that a trampoline sets.

use iced_x86::Register as Encoded;
use jitfd::Register;

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
    /// use jitfd::Register;
    /// use jitfd_trampoline::ContextRegister;
    ///
    /// assert_eq!(ContextRegister::R10.register(), Register::R10);
    /// ```
    #[must_use]
    pub const fn register(self) -> Register {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_those_of_the_encoder() {
        for (number, register) in Register::ALL.into_iter().enumerate() {
            assert_eq!(register.number(), number);
            assert_eq!(encoded(register).number(), number);
            let name = format!("{register:?}").to_uppercase();
            assert_eq!(format!("{:?}", encoded(register)), name);
        }
        for context_register in ContextRegister::ALL {
            let (context_register, register) = (context_register, context_register.register());
            assert_eq!(format!("{context_register:?}"), format!("{register:?}"));
        }
    }
}
