// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which bytes of a compiled image are data. The image is an ELF file that is
//! published whole, headers and tables included; only `.text` holds
//! instructions, and between them jump tables, constants and padding.

use crate::code;
use crate::compiler::BoxError;
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSection, ObjectSymbol};
use std::ops::Range;

/// Every byte of `image` that is not part of an instruction, in ascending
/// order.
pub fn data_ranges(image: &[u8]) -> Result<Vec<Range<usize>>, BoxError> {
    let elf = ElfFile64::<Endianness>::parse(image)?;
    let text = elf
        .section_by_name(".text")
        .ok_or("the image has no .text section")?;
    let (offset, _) = text.file_range().ok_or("the .text section has no bytes")?;
    let offset = usize::try_from(offset)?;
    let functions = functions(&elf)?;
    let is_code = code::find(text.data()?, &functions)?;
    let mut marks = vec![false; image.len()];
    marks[offset..offset + is_code.len()].copy_from_slice(&is_code);
    Ok(gaps(&marks))
}

fn functions(elf: &ElfFile64<'_, Endianness>) -> Result<Vec<Range<usize>>, BoxError> {
    elf.symbols()
        .filter(|symbol| symbol.size() > 0)
        .map(|symbol| {
            let start = usize::try_from(symbol.address())?;
            Ok(start..start + usize::try_from(symbol.size())?)
        })
        .collect()
}

/// The ranges in which `marks` is false.
fn gaps(marks: &[bool]) -> Vec<Range<usize>> {
    let mut gaps = Vec::new();
    let mut at = 0;
    for run in marks.chunk_by(|left, right| left == right) {
        if !run[0] {
            gaps.push(at..at + run.len());
        }
        at += run.len();
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::gaps;

    #[test]
    fn gaps_are_the_unmarked_runs() {
        assert_eq!(gaps(&[false, true, true, false, false]), [0..1, 3..5]);
        assert!(gaps(&[true]).is_empty());
    }
}
