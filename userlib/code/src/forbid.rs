// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which instructions a policy forbids. Pure: knows instructions, not chunks.

use iced_x86::{Code, Instruction, Mnemonic};
use std::fmt;

/// A class of instructions that a policy can forbid, with
/// [`Rules::forbid`](crate::Rules::forbid).
///
/// Only the instructions that the chunk consists of are judged. A wild indirect
/// jump could find others, in bytes inside an instruction or in data: this
/// keeps a compiler from emitting such instructions by mistake, and is no
/// sandbox.
///
/// ```
/// use jitfd::{Class, Rules, Reason, validate};
///
/// // What a compiler for a sandbox never means to emit: all of it.
/// let options = Class::FIXED.into_iter().fold(Rules::new(), Rules::forbid);
/// let error = validate(&[0x0f, 0x05, 0xc3], &options).unwrap_err(); // syscall; ret
/// assert_eq!(error.reason, Reason::Forbidden { class: Class::SystemCalls });
/// println!("emitted {}", Class::SystemCalls);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// `syscall`, `sysenter` and `int n`.
    SystemCalls,
    /// Instructions that write the protection-key register: `wrpkru`, and
    /// `xrstor` in all its forms.
    ProtectionKeys,
    /// Instructions that load the code segment register: far jumps, calls and
    /// returns, and `iret`.
    FarTransfers,
    /// Instructions that change a segment register or its base: `wrfsbase`,
    /// `wrgsbase`, `mov` and `pop` to a segment register, `lfs`, `lgs`, `lss`.
    Segments,
    /// Privileged instructions, which fault unless the CPL is 0 (or for `in`, `out`,
    /// `cli` and their like, unless the IOPL allows them): `hlt`, `wrmsr`, `mov` to
    /// control registers... Not those that fault in programs for other reasons, or
    /// only on some systems: `monitor`, `mwait`, `getsec`, `vmcall`, `vmmcall`.
    Privileged,
    /// Instructions that were named to
    /// [`Rules::forbid_mnemonic`](crate::Rules::forbid_mnemonic).
    Named,
}

impl Class {
    /// The classes that have fixed members: all but [`Class::Named`].
    pub const FIXED: [Self; 5] = [
        Self::SystemCalls,
        Self::ProtectionKeys,
        Self::FarTransfers,
        Self::Segments,
        Self::Privileged,
    ];

    /// What an instruction of this class is.
    const fn name(self) -> &'static str {
        match self {
            Self::SystemCalls => "a system call",
            Self::ProtectionKeys => "a write of the protection keys",
            Self::FarTransfers => "a far transfer",
            Self::Segments => "a write of a segment register or base",
            Self::Privileged => "a privileged instruction",
            Self::Named => "named in the rules",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Whether an instruction with this opcode belongs to the class.
    pub(crate) fn holds(self, code: Code) -> bool {
        match self {
            Self::SystemCalls => is_system_call(code),
            Self::ProtectionKeys => is_protection_keys(code),
            Self::FarTransfers => is_far(code),
            Self::Segments => is_segments(code),
            Self::Privileged => code.is_privileged(),
            Self::Named => false,
        }
    }
}

/// What an instruction of this class is, for error texts.
impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn is_system_call(code: Code) -> bool {
    matches!(code, Code::Syscall | Code::Sysenter | Code::Int_imm8)
}

fn is_protection_keys(code: Code) -> bool {
    use Code::{Wrpkru, Xrstor_mem, Xrstor64_mem, Xrstors_mem, Xrstors64_mem};
    matches!(
        code,
        Wrpkru | Xrstor_mem | Xrstor64_mem | Xrstors_mem | Xrstors64_mem
    )
}

fn is_far(code: Code) -> bool {
    use Mnemonic::{Iret, Iretd, Iretq, Retf};
    let indirect = matches!(
        code,
        Code::Jmp_m1616
            | Code::Jmp_m1632
            | Code::Jmp_m1664
            | Code::Call_m1616
            | Code::Call_m1632
            | Code::Call_m1664
    );
    indirect || matches!(code.mnemonic(), Retf | Iret | Iretd | Iretq)
}

fn is_segments(code: Code) -> bool {
    use Mnemonic::{Lfs, Lgs, Lkgs, Lss, Swapgs, Wrfsbase, Wrgsbase};
    let register = matches!(
        code,
        Code::Mov_Sreg_rm16
            | Code::Mov_Sreg_r32m16
            | Code::Mov_Sreg_r64m16
            | Code::Popw_FS
            | Code::Popq_FS
            | Code::Popw_GS
            | Code::Popq_GS
    );
    register
        || matches!(
            code.mnemonic(),
            Lfs | Lgs | Lkgs | Lss | Swapgs | Wrfsbase | Wrgsbase
        )
}

/// What a policy forbids.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Forbidden {
    /// By [`Class::bit`].
    classes: u8,
    named: Vec<Mnemonic>,
}

impl Forbidden {
    pub(crate) const NOTHING: Self = Self {
        classes: 0,
        named: Vec::new(),
    };

    pub(crate) const fn class(&mut self, class: Class) {
        self.classes |= class.bit();
    }

    /// Whether there is an instruction of this name.
    pub(crate) fn name(&mut self, name: &str) -> bool {
        let find = |name: &str| Mnemonic::values().find(|known| is_called(*known, name));
        let found = find(name).or_else(|| find(&usual(name)?));
        self.named.extend(found);
        found.is_some()
    }

    /// Whether the plain forms have to be looked at one by one. No class has
    /// any: the test of all plain forms in `length_table.rs` sees to it.
    pub(crate) fn concerns_plain_forms(&self) -> bool {
        !self.named.is_empty()
    }

    /// Why `instruction` is forbidden, if it is.
    #[inline]
    pub(crate) fn class_of(&self, instruction: &Instruction) -> Option<Class> {
        if self.classes == 0 && self.named.is_empty() {
            return None;
        }
        if self.named.contains(&instruction.mnemonic()) {
            return Some(Class::Named);
        }
        let mut active = Class::FIXED.into_iter();
        active.find(|class| self.classes & class.bit() != 0 && class.holds(instruction.code()))
    }
}

/// Conditions that have several names in Intel's manual, and the decoder's.
const CONDITIONS: [(&str, &str); 14] = [
    ("c", "b"),
    ("nae", "b"),
    ("nb", "ae"),
    ("nc", "ae"),
    ("z", "e"),
    ("nz", "ne"),
    ("na", "be"),
    ("nbe", "a"),
    ("pe", "p"),
    ("po", "np"),
    ("nge", "l"),
    ("nl", "ge"),
    ("ng", "le"),
    ("nle", "g"),
];

/// Whole mnemonics, likewise.
const NAMES: [(&str, &str); 4] = [
    ("fwait", "wait"),
    ("loopnz", "loopne"),
    ("loopz", "loope"),
    ("retn", "ret"),
];

/// The decoder's name for a mnemonic that has several.
fn usual(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let other = |table: &[(&str, &'static str)], name: &str| {
        let found = table.iter().find(|(known, _)| *known == name);
        found.map(|(_, usual)| *usual)
    };
    let condition = |kind: &&str| {
        let usual = other(&CONDITIONS, name.strip_prefix(kind)?)?;
        Some(format!("{kind}{usual}"))
    };
    let whole = other(&NAMES, &name).map(str::to_owned);
    whole.or_else(|| ["j", "set", "cmov"].iter().find_map(condition))
}

/// Whether `name`, in any case, is the name of `mnemonic`.
fn is_called(mnemonic: Mnemonic, name: &str) -> bool {
    mnemonic != Mnemonic::INVALID && format!("{mnemonic:?}").eq_ignore_ascii_case(name)
}

impl fmt::Debug for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let active = |class: &Class| self.classes & class.bit() != 0;
        f.debug_struct("Forbidden")
            .field(
                "classes",
                &Vec::from_iter(Class::FIXED.into_iter().filter(active)),
            )
            .field("named", &self.named)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of the opcodes in a class, each once.
    fn members(class: Class) -> Vec<String> {
        let codes = Code::values().filter(|&code| class.holds(code));
        let mut names = Vec::from_iter(codes.map(|code| format!("{:?}", code.mnemonic())));
        names.sort();
        names.dedup();
        names
    }

    #[test]
    fn all_names_of_a_mnemonic_are_known() {
        let named = |name: &str| {
            let mut forbidden = Forbidden::NOTHING;
            forbidden.name(name).then_some(forbidden.named)
        };
        for (name, usual) in NAMES {
            assert!(
                named(usual).is_some() && named(name) == named(usual),
                "{name}"
            );
        }
        for (condition, usual) in CONDITIONS {
            for kind in ["j", "set", "cmov"] {
                let usual = named(&format!("{kind}{usual}"));
                let found = named(&format!("{kind}{condition}"));
                assert!(usual.is_some() && found == usual, "{kind}{condition}");
            }
        }
        assert_eq!(named("JZ"), Some(vec![Mnemonic::Je]));
        for name in ["z", "loopc", "jj", "set", ""] {
            assert!(named(name).is_none(), "{name}");
        }
    }

    #[test]
    fn the_members_of_the_classes() {
        assert_eq!(members(Class::SystemCalls), ["Int", "Syscall", "Sysenter"]);
        assert_eq!(
            members(Class::ProtectionKeys),
            ["Wrpkru", "Xrstor", "Xrstor64", "Xrstors", "Xrstors64"]
        );
        assert_eq!(
            members(Class::FarTransfers),
            ["Call", "Iret", "Iretd", "Iretq", "Jmp", "Retf"]
        );
        assert_eq!(
            members(Class::Segments),
            [
                "Lfs", "Lgs", "Lkgs", "Lss", "Mov", "Pop", "Swapgs", "Wrfsbase", "Wrgsbase"
            ]
        );
        let privileged = members(Class::Privileged);
        for name in [
            "Hlt", "Wrmsr", "In", "Out", "Cli", "Invlpg", "Lgdt", "Sysret", "Xsetbv",
        ] {
            assert!(privileged.iter().any(|known| known == name), "{name}");
        }
        for name in ["Monitor", "Mwait", "Getsec", "Vmcall", "Vmmcall"] {
            assert!(!privileged.iter().any(|known| known == name), "{name}");
        }
        assert!(members(Class::Named).is_empty());
    }

    #[test]
    fn names_are_those_of_the_manual_in_any_case() {
        let mut forbidden = Forbidden::NOTHING;
        for name in ["cpuid", "RDTSC", "Vzeroupper"] {
            assert!(forbidden.name(name), "{name}");
        }
        for name in ["", "invalid", "mov rax", "nonsense"] {
            assert!(!forbidden.name(name), "{name}");
        }
        assert_eq!(forbidden.named.len(), 3);
    }
}
