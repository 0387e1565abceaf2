// SPDX-License-Identifier: MIT OR Apache-2.0

//! An ELF object in memory that tells a debugger the names of code which lies
//! elsewhere. Pure.
//!
//! ```text
//! header | symbols | names | unwind table | section names | section headers
//! ```
//!
//! The section with the code has an address and a length but no bytes: the
//! debugger reads those from the program.

use crate::num::to_u64;
use crate::space::Symbol;
use std::ops::Range;

const HEADER: usize = 64;
const SECTION: u16 = 64;
const SYMBOL: u64 = 24;

// e_type, e_machine, sh_type, sh_flags, st_info: as in the ELF specification.
const EXECUTABLE: u16 = 2;
const X86_64: u16 = 62;
const PROGBITS: u32 = 1;
const SYMTAB: u32 = 2;
const STRTAB: u32 = 3;
const NOBITS: u32 = 8;
const ALLOC: u64 = 2;
const EXEC: u64 = 4;
const GLOBAL_FUNCTION: u8 = 0x12;

/// The section of the code, by its number: symbols refer to it.
const TEXT: u16 = 1;
const NAMES: u32 = 3;
const SECTION_NAMES: u16 = 5;

/// One section header; the fields that are not here are 0.
#[derive(Clone, Copy, Default)]
struct Section {
    name: &'static str,
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    len: u64,
    link: u32,
    info: u32,
    align: u64,
    entry: u64,
}

/// The object for `codes`, whose bytes are not used, and an `.eh_frame` section
/// about them, which can be empty.
pub(super) fn object(codes: &[Symbol<'_>], eh_frame: &[u8]) -> Vec<u8> {
    let text = extent(codes);
    let mut file = vec![0; HEADER];
    let (symbols, names) = symbols(codes);
    let symbols = append(&mut file, &symbols);
    let names = append(&mut file, &names);
    let frames = append(&mut file, eh_frame);
    let mut sections = [
        Section::default(),
        Section {
            name: ".text",
            kind: NOBITS,
            flags: ALLOC | EXEC,
            address: to_u64(text.start),
            len: to_u64(text.len()),
            align: 16,
            ..Section::default()
        },
        Section {
            name: ".symtab",
            kind: SYMTAB,
            link: NAMES,
            info: 1,
            entry: SYMBOL,
            ..at(&symbols)
        },
        Section {
            name: ".strtab",
            kind: STRTAB,
            ..at(&names)
        },
        Section {
            name: ".eh_frame",
            kind: PROGBITS,
            flags: ALLOC,
            ..at(&frames)
        },
        Section {
            name: ".shstrtab",
            kind: STRTAB,
            ..Section::default()
        },
    ];
    finish(file, &mut sections)
}

/// From the first byte of all codes to the last one.
fn extent(codes: &[Symbol<'_>]) -> Range<usize> {
    let start = codes.iter().map(|code| code.address).min();
    let end = codes
        .iter()
        .map(|code| code.address.saturating_add(code.bytes.len()))
        .max();
    start.unwrap_or_default()..end.unwrap_or_default()
}

/// The symbol table, which begins with an empty one, and its names.
fn symbols(codes: &[Symbol<'_>]) -> (Vec<u8>, Vec<u8>) {
    let (mut table, mut names) = (vec![0; 24], vec![0]);
    for code in codes {
        let name = code.name.split('\0').next().unwrap_or_default();
        table.extend(offset32(names.len()).to_le_bytes());
        table.extend([GLOBAL_FUNCTION, 0]);
        table.extend(TEXT.to_le_bytes());
        table.extend(to_u64(code.address).to_le_bytes());
        table.extend(to_u64(code.bytes.len()).to_le_bytes());
        names.extend(name.as_bytes());
        names.push(0);
    }
    (table, names)
}

fn offset32(at: usize) -> u32 {
    // Names of 4 GiB are not worth an error: they are cut off.
    u32::try_from(at).unwrap_or(0)
}

/// Adds bytes, aligned to 8; says where they are.
fn append(file: &mut Vec<u8>, bytes: &[u8]) -> Range<usize> {
    file.resize(file.len().next_multiple_of(8), 0);
    let start = file.len();
    file.extend(bytes);
    start..file.len()
}

fn at(range: &Range<usize>) -> Section {
    Section {
        offset: to_u64(range.start),
        len: to_u64(range.len()),
        align: 8,
        ..Section::default()
    }
}

/// Adds the section names, the section headers and the header.
fn finish(mut file: Vec<u8>, sections: &mut [Section; 6]) -> Vec<u8> {
    let mut names = Vec::new();
    let starts = sections.map(|section| {
        let start = names.len();
        names.extend(section.name.as_bytes());
        names.push(0);
        offset32(start)
    });
    let place = append(&mut file, &names);
    if let Some(last) = sections.last_mut() {
        (last.offset, last.len) = (to_u64(place.start), to_u64(place.len()));
    }
    let headers = append(&mut file, &[]).start;
    for (section, start) in sections.iter().zip(starts) {
        section_header(&mut file, section, start);
    }
    header(&mut file, headers);
    file
}

fn section_header(file: &mut Vec<u8>, section: &Section, name: u32) {
    file.extend(name.to_le_bytes());
    file.extend(section.kind.to_le_bytes());
    for word in [section.flags, section.address, section.offset, section.len] {
        file.extend(word.to_le_bytes());
    }
    file.extend(section.link.to_le_bytes());
    file.extend(section.info.to_le_bytes());
    file.extend(section.align.to_le_bytes());
    file.extend(section.entry.to_le_bytes());
}

/// Fills in the first bytes of the file.
fn header(file: &mut [u8], section_headers: usize) {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    bytes.resize(16, 0);
    bytes.extend(EXECUTABLE.to_le_bytes());
    bytes.extend(X86_64.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    // No entry point, no segments.
    for word in [0, 0, to_u64(section_headers)] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(0_u32.to_le_bytes());
    for half in [64, 0, 0, SECTION, 6, SECTION_NAMES] {
        bytes.extend(half.to_le_bytes());
    }
    for (to, from) in file.iter_mut().zip(bytes) {
        *to = from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::object::{Object, ObjectSection, ObjectSymbol, SectionKind};

    /// No such code can be, but safe programs can name it.
    #[test]
    fn addresses_end_with_the_address_space() {
        let codes = [Symbol {
            name: "last",
            address: usize::MAX,
            bytes: &[0x90, 0xc3],
        }];
        assert_eq!(extent(&codes), usize::MAX..usize::MAX);
        let file = object(&codes, &[]);
        assert!(::object::File::parse(&*file).is_ok());
    }

    #[test]
    fn another_reader_finds_everything() {
        let codes = [
            Symbol {
                name: "one",
                address: 0x7f00_0000_1000,
                bytes: &[0; 16],
            },
            Symbol {
                name: "two",
                address: 0x7f00_0000_1020,
                bytes: &[0; 5],
            },
        ];
        let file = object(&codes, &[1, 2, 3, 4]);
        let read = ::object::File::parse(&*file).unwrap();
        let text = read.section_by_name(".text").unwrap();
        assert_eq!((text.address(), text.size()), (0x7f00_0000_1000, 0x25));
        assert_eq!(text.kind(), SectionKind::UninitializedData);
        let frames = read.section_by_name(".eh_frame").unwrap();
        assert_eq!(frames.data().unwrap(), [1, 2, 3, 4]);
        let symbols: Vec<_> = read
            .symbols()
            .map(|one| (one.name().unwrap().to_owned(), one.address(), one.size()))
            .collect();
        let expected = codes.map(|code| {
            let len = to_u64(code.bytes.len());
            (code.name.to_owned(), to_u64(code.address), len)
        });
        assert_eq!(symbols, expected);
        assert!(
            read.symbols()
                .all(|one| one.section_index() == Some(text.index()))
        );
    }
}
