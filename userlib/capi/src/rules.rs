// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a chunk may be, and where its data is: the caller's struct, checked.

use crate::guard::Failure;
use crate::pointer;
use crate::text;
use crate::versioned::{self, Versioned};
use rust::{Align, Class, Rules};
use std::ffi::{c_char, c_void};
use std::ops::Range;

/// Some bytes of a chunk.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jitfd_range {
    /// In bytes from the start of the chunk.
    pub offset: usize,
    /// The number of bytes.
    pub len: usize,
}

/// Allow direct branches that go behind the lock prefix of an instruction, as the C
/// library's own code has.
pub const JITFD_RULE_ALLOW_LOCK_SKIPS: u32 = 0x1;
/// Other chunks may branch to the declared entries only.
pub const JITFD_RULE_ENTRIES_ONLY: u32 = 0x2;
/// Each entry begins with endbr64; if none is declared, the first byte is one.
pub const JITFD_RULE_ENDBR64: u32 = 0x4;
/// No instruction crosses a border of 64 bytes, so that one fetch sees all of it.
/// The chunk is aligned to 64 bytes then.
pub const JITFD_RULE_WITHIN_LINES: u32 = 0x8;
/// Direct branches leave the region, or code space, to the declared addresses only.
pub const JITFD_RULE_LEAVES_ONLY: u32 = 0x10;
/// Refuse syscall, sysenter and int n.
pub const JITFD_FORBID_SYSTEM_CALLS: u32 = 0x100;
/// Refuse instructions that write the protection-key register.
pub const JITFD_FORBID_PROTECTION_KEYS: u32 = 0x200;
/// Refuse far jumps, calls and returns.
pub const JITFD_FORBID_FAR_TRANSFERS: u32 = 0x400;
/// Refuse instructions that change a segment register or its base.
pub const JITFD_FORBID_SEGMENTS: u32 = 0x800;
/// Refuse privileged (CPL 0) instructions.
pub const JITFD_FORBID_PRIVILEGED: u32 = 0x1000;

/// In an error only: one of the mnemonics that the rules forbid.
pub const JITFD_FORBID_NAMED: u32 = 0x2000;

/// What a chunk may be, and where its data is. All zero but for the size: no
/// data, no lock skips, nothing forbidden, every instruction is an entry.
#[repr(C)]
pub struct jitfd_rules {
    /// sizeof(struct jitfd_rules).
    pub size: usize,
    /// JITFD_RULE_ALLOW_LOCK_SKIPS, JITFD_RULE_ENTRIES_ONLY, JITFD_RULE_ENDBR64,
    /// JITFD_RULE_WITHIN_LINES, JITFD_RULE_LEAVES_ONLY, JITFD_FORBID_.
    pub flags: u32,
    /// The alignment at which the chunk is appended, in bytes: a power of two up
    /// to 4096. 0 is 16.
    pub align: u32,
    /// The ranges that are data: constants, jump tables. In any order. A chunk
    /// with data is published so that no CPU reads what was there before.
    pub data: *const jitfd_range,
    /// How many ranges there are.
    pub data_count: usize,
    /// Where other chunks may branch to, in bytes from the start of the chunk. If
    /// there is one, JITFD_RULE_ENTRIES_ONLY goes without saying.
    pub entries: *const usize,
    /// How many entries there are.
    pub entry_count: usize,
    /// How many threads may work on a chunk of more than 1 MiB. 0: as many as the
    /// process may use.
    pub threads: usize,
    /// Mnemonics that are refused, by their names in the manuals, in any case.
    /// Validation then takes about twice as long.
    pub forbidden: *const *const c_char,
    /// How many mnemonics there are.
    pub forbidden_count: usize,
    /// The addresses outside of the region, or code space, that direct branches may go
    /// to: the functions of the runtime that the code calls. It is checked where the
    /// chunk's address is known: when it is published. If there is one,
    /// JITFD_RULE_LEAVES_ONLY goes without saying.
    pub leaves: *const *const c_void,
    /// How many addresses there are.
    pub leave_count: usize,
}

// SAFETY: `repr(C)`, a word, two half words, nine words; zero is a value of all.
unsafe impl Versioned for jitfd_rules {
    const FIRST: usize = 56;
}

/// Which flag forbids which class.
const CLASSES: [(u32, Class); 5] = [
    (JITFD_FORBID_SYSTEM_CALLS, Class::SystemCalls),
    (JITFD_FORBID_PROTECTION_KEYS, Class::ProtectionKeys),
    (JITFD_FORBID_FAR_TRANSFERS, Class::FarTransfers),
    (JITFD_FORBID_SEGMENTS, Class::Segments),
    (JITFD_FORBID_PRIVILEGED, Class::Privileged),
];

/// The flag of a class; 0 if there is none.
pub(crate) fn flag_of(class: Class) -> u32 {
    let found = CLASSES.iter().find(|(_, known)| *known == class);
    match class {
        Class::Named => JITFD_FORBID_NAMED,
        _ => found.map_or(0, |&(flag, _)| flag),
    }
}

fn known() -> u32 {
    let forbid = CLASSES.iter().map(|(flag, _)| flag);
    forbid.sum::<u32>()
        | JITFD_RULE_ALLOW_LOCK_SKIPS
        | JITFD_RULE_ENTRIES_ONLY
        | JITFD_RULE_ENDBR64
        | JITFD_RULE_WITHIN_LINES
        | JITFD_RULE_LEAVES_ONLY
}

/// The rules as the library has them.
pub(crate) struct ChunkRules {
    pub(crate) options: Rules,
    /// Those that are part of the options.
    pub(crate) data: Vec<Range<usize>>,
    pub(crate) align: Align,
}

impl ChunkRules {
    /// # Safety
    /// `rules` is null or points to such a struct of the size it says, whose
    /// arrays have as many items as it says, and whose names are C strings.
    pub(crate) unsafe fn read(rules: *const jitfd_rules) -> Result<Self, Failure> {
        // SAFETY: as promised by the caller.
        let rules = unsafe { versioned::read(rules) }?;
        if rules.flags & !known() != 0 {
            return Err(Failure::Refused(libc::EINVAL, "a flag is not known"));
        }
        // SAFETY: as promised by the caller.
        let (data, entries, forbidden) = unsafe {
            let data = pointer::array(rules.data, rules.data_count)?;
            let entries = pointer::array(rules.entries, rules.entry_count)?;
            (
                data,
                entries,
                pointer::array(rules.forbidden, rules.forbidden_count)?,
            )
        };
        let data = pointer::list(data.iter().map(|one| Ok(range(one))))?;
        let mut options = with_flags(rules.flags).try_reserve(data.len(), entries.len())?;
        options = data.iter().cloned().fold(options, Rules::data);
        options = entries.iter().copied().fold(options, Rules::entry);
        for &name in forbidden {
            // SAFETY: as promised by the caller.
            options = options.forbid_mnemonic(unsafe { text::read(name) }?)?;
        }
        // SAFETY: as promised by the caller.
        let leaves = unsafe { pointer::array(rules.leaves, rules.leave_count)? };
        if rules.flags & JITFD_RULE_LEAVES_ONLY != 0 || !leaves.is_empty() {
            options = options.leaves_only_to(leaves.iter().map(|address| address.addr()));
        }
        if rules.threads != 0 {
            options = options.threads(rules.threads);
        }
        let align = align_of_chunk(rules.align)?;
        Ok(Self {
            options,
            data,
            align,
        })
    }

    /// The rules for code whose layout somebody else makes.
    ///
    /// # Safety
    /// As [`read`](Self::read).
    pub(crate) unsafe fn for_any_layout(rules: *const jitfd_rules) -> Result<Rules, Failure> {
        // SAFETY: as promised by the caller.
        let all = unsafe { versioned::read(rules) }?;
        if (all.data_count, all.entry_count, all.align) != (0, 0, 0) {
            let text = "rules for all code of a space have no data, no entries and no alignment";
            return Err(Failure::Refused(libc::EINVAL, text));
        }
        // SAFETY: as promised by the caller.
        unsafe { Self::read(rules) }.map(|rules| rules.options)
    }
}

fn with_flags(flags: u32) -> Rules {
    let mut options = Rules::new();
    if flags & JITFD_RULE_ALLOW_LOCK_SKIPS != 0 {
        options = options.allow_lock_skips();
    }
    if flags & JITFD_RULE_ENTRIES_ONLY != 0 {
        options = options.entries_only();
    }
    if flags & JITFD_RULE_ENDBR64 != 0 {
        options = options.endbr64();
    }
    if flags & JITFD_RULE_WITHIN_LINES != 0 {
        options = options.within_lines();
    }
    let forbidden = CLASSES.iter().filter(|(flag, _)| flags & flag != 0);
    forbidden.fold(options, |options, &(_, class)| options.forbid(class))
}

/// One that overflows ends behind every chunk, so it is refused as it is shown.
pub(crate) fn range(range: &jitfd_range) -> Range<usize> {
    range.offset..range.offset.saturating_add(range.len)
}

fn align_of_chunk(bytes: u32) -> Result<Align, Failure> {
    match bytes {
        0 => Ok(Align::FUNCTION),
        _ => align(usize::try_from(bytes).unwrap_or(usize::MAX)),
    }
}

pub(crate) fn align(bytes: usize) -> Result<Align, Failure> {
    Align::new(bytes).map_err(Failure::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn the_first_version_has_the_size_it_had() {
        assert_eq!(offset_of!(jitfd_rules, forbidden), jitfd_rules::FIRST);
        assert_eq!(size_of::<jitfd_rules>(), 88);
    }

    #[test]
    fn every_class_has_a_flag_of_its_own() {
        let mut flags = Class::FIXED.map(flag_of);
        assert_eq!(flags.iter().sum::<u32>(), 0x1f00);
        flags.sort_unstable();
        assert_eq!(flags, CLASSES.map(|(flag, _)| flag));
        assert_eq!(flag_of(Class::Named) & known(), 0);
    }
}
