// SPDX-License-Identifier: MIT OR Apache-2.0

//! What refused bytes really are: an ELF file, or code of another processor. It only
//! explains a refusal, and never refuses anything itself.

use crate::error::{CodeError, Reason};

/// The error of refused `code`, which says so if the bytes are of another kind.
#[cold]
pub(crate) fn explained(code: &[u8], error: CodeError) -> CodeError {
    let about_bytes = !matches!(
        error.reason,
        Reason::NoMemory | Reason::Empty | Reason::TooLong { .. } | Reason::DataRange { .. }
    );
    match kind(code).filter(|_| about_bytes) {
        Some(reason) => CodeError { reason, ..error },
        None => error,
    }
}

fn kind(code: &[u8]) -> Option<Reason> {
    match elf_machine(code) {
        Some(machine) => Some(Reason::Elf { machine }),
        None => is_aarch64(code).then_some(Reason::Aarch64),
    }
}

/// The number of the processor that an ELF file is for.
fn elf_machine(file: &[u8]) -> Option<u16> {
    let is_elf = file.starts_with(b"\x7fELF");
    let machine = *file.get(18..)?.first_chunk()?;
    is_elf.then_some(u16::from_le_bytes(machine))
}

/// How many words are looked at.
const LOOK: usize = 4096;

/// Whether these are instructions of aarch64: words of 4 bytes, none of a group that
/// it does not have, one of which returns, begins a function or leaves it. x86-64 code
/// is not taken for that: in `ret`, which is the most frequent of these, is a byte that
/// is no instruction of 64-bit mode, and the others are rare bytes at rare places.
fn is_aarch64(code: &[u8]) -> bool {
    let words = code.chunks_exact(4).take(LOOK);
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_le_bytes);
    let mut all = words.map(word);
    code.len() % 4 == 0 && all.clone().all(has_group) && all.any(is_of_a_function)
}

/// Whether aarch64 has instructions of this group.
const fn has_group(word: u32) -> bool {
    !matches!(word >> 25 & 0xf, 0b0000 | 0b0001 | 0b0011)
}

const fn is_of_a_function(word: u32) -> bool {
    let frame = word & 0xffc0_7fff;
    // ret, br and blr to any register
    matches!(word & 0xffff_fc1f, 0xd65f_0000 | 0xd61f_0000 | 0xd63f_0000)
        // paciasp; bti c; mov x29, sp
        || matches!(word, 0xd503_233f | 0xd503_245f | 0x9100_03fd)
        // stp x29, x30, [sp, #-n]!; ldp x29, x30, [sp], #n
        || matches!(frame, 0xa980_7bfd | 0xa8c0_7bfd)
}

#[cfg(test)]
mod tests {
    use crate::{Reason, Rules, validate};

    fn reason(code: &[u8]) -> Reason {
        validate(code, &Rules::new()).unwrap_err().reason
    }

    #[test]
    fn code_of_aarch64_is_recognised() {
        let functions: [&[u32]; 4] = [
            // mov w0, #42; ret
            &[0x5280_0540, 0xd65f_03c0],
            // stp x29, x30, [sp, #-16]!; mov x29, sp; bl 0; ldp x29, x30, [sp], #16; ret
            &[
                0xa9bf_7bfd,
                0x9100_03fd,
                0x9400_0000,
                0xa8c1_7bfd,
                0xd65f_03c0,
            ],
            // add w0, w0, w1; br x16
            &[0x0b01_0000, 0xd61f_0200],
            // bti c; ldr x0, [x0]; ret
            &[0xd503_245f, 0xf940_0000, 0xd65f_03c0],
        ];
        for words in functions {
            let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            assert_eq!(super::kind(&code), Some(Reason::Aarch64), "{words:x?}");
        }
        // Short code of another processor can be code of this one, too.
        assert_eq!(
            reason(&[0x40, 5, 0x80, 0x52, 0xc0, 3, 0x5f, 0xd6]),
            Reason::Aarch64
        );
    }

    #[test]
    fn an_elf_file_is_recognised_and_its_processor() {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(64, 0);
        file[16..20].copy_from_slice(&[3, 0, 183, 0]);
        file.push(0x06);
        assert_eq!(reason(&file), Reason::Elf { machine: 183 });
        let text = validate(&file, &Rules::new()).unwrap_err().to_string();
        assert!(text.contains("ELF file for aarch64"), "{text}");
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
            assert_eq!(reason(&own), Reason::Elf { machine: 62 });
        }
    }

    /// What is wrong with x86-64 code is not taken for something else.
    #[test]
    fn refused_code_of_x86_64_stays_that() {
        // mov eax, 42; ret; nop; push es, which 64-bit mode does not have
        assert_eq!(
            reason(&[0xb8, 42, 0, 0, 0, 0xc3, 0x90, 0x06]),
            Reason::Invalid
        );
        // With the bytes of aarch64's `ret`, but not at a multiple of 4.
        let code = [0xb8, 0xc0, 0x03, 0x5f, 0xd6, 0xc3, 0x90, 0x06];
        assert_eq!(reason(&code), Reason::Invalid);
        assert_eq!(reason(&[0x7f, 0x45, 0x4c]), Reason::Truncated);
    }
}
