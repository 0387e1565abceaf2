// SPDX-License-Identifier: MIT OR Apache-2.0

//! What an `.eh_frame` section must be for unwinders to walk it. Pure.
//!
//! They go from record to record and from a function's record to its common one
//! without knowing where the section ends, so one wrong number sends them anywhere.

use crate::error::Error;
use crate::num::to_u64;

/// One record.
struct Record {
    /// Where it begins and ends.
    start: usize,
    end: usize,
    /// The distance from the field behind the length back to the common entry; 0 in
    /// a common entry.
    back: usize,
}

const CUT: Error = Error::Argument(
    "an unwind table ends in the middle of a record; give all of it, with the zero of four bytes \
     at its end",
);
const LONG: Error = Error::Argument(
    "an unwind table has a record in the 64-bit form, which not all unwinders read; make it in \
     the 32-bit form",
);
const SHORT: Error = Error::Argument(
    "an unwind table has a record that is too short for what all records of its kind have",
);
const STRAY: Error = Error::Argument(
    "an unwind table has a function whose common entry is not in the table before it",
);
const MORE: Error = Error::Argument(
    "an unwind table goes on behind the zero of four bytes that ends it; register each table by \
     itself",
);

/// In a common entry behind its length: the field that tells it is one, version, an
/// empty augmentation, two factors, the return address.
const COMMON: usize = 4 + 5;
/// In a function's entry: the distance to the common entry, address and length in
/// the shortest form that there is.
const FUNCTION: usize = 4 + 4;

/// The record at `start`; `None` is the zero at the end.
fn record(section: &[u8], start: usize) -> Result<Option<Record>, Error> {
    let word = |at: usize| {
        let bytes: Option<&[u8; 4]> = section.get(at..).and_then(<[u8]>::first_chunk);
        bytes.map(|&bytes| u32::from_le_bytes(bytes)).ok_or(CUT)
    };
    let small = |number| usize::try_from(number).map_err(|_| CUT);
    let len = match word(start)? {
        0 => return Ok(None),
        u32::MAX => return Err(LONG),
        len => small(len)?,
    };
    let field = start + 4;
    let end = field.checked_add(len).ok_or(CUT)?;
    if to_u64(end) > to_u64(section.len()) {
        return Err(CUT);
    }
    let back = small(word(field)?)?;
    if len < if back == 0 { COMMON } else { FUNCTION } {
        return Err(SHORT);
    }
    Ok(Some(Record { start, end, back }))
}

/// Checks that the records follow each other up to the zero that is the section's
/// end, and that each function's entry refers to a common entry before it. What they
/// say is not looked at.
pub(super) fn check(section: &[u8]) -> Result<(), Error> {
    let mut common = Vec::new();
    let mut at = 0;
    while let Some(record) = record(section, at)? {
        if record.back == 0 {
            common.push(record.start);
        } else {
            let start = (record.start + 4).checked_sub(record.back).ok_or(STRAY)?;
            common.binary_search(&start).map_err(|_| STRAY)?;
        }
        at = record.end;
    }
    if at + 4 == section.len() {
        Ok(())
    } else {
        Err(MORE)
    }
}

/// The entries of a section that are about functions.
pub(super) fn functions(section: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    let records = std::iter::from_fn(move || {
        let record = record(section, at).ok()??;
        at = record.end;
        Some(record)
    });
    records
        .filter(|record| record.back != 0)
        .filter_map(|record| section.get(record.start..record.end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::Register;
    use crate::tools::{EhFrame, Frame};
    use object::{Object, ObjectSection};
    use proptest::prelude::*;

    fn table(count: usize) -> Vec<u8> {
        let mut table = EhFrame::default();
        for number in 0..count {
            // Of different lengths.
            let frame = Frame::pointer().cfa(300 * number, Register::Rsp, 8);
            table.add(number << 12, 4096, &frame).unwrap();
        }
        table.into_bytes()
    }

    fn put(table: &mut [u8], at: usize, word: u32) {
        table[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }

    #[test]
    fn functions_are_told_from_the_common_entry() {
        let bytes = table(5);
        let starts: Vec<_> = functions(&bytes).map(|entry| entry[9]).collect();
        assert_eq!(starts, [0, 0x10, 0x20, 0x30, 0x40]);
        assert_eq!(functions(&[0; 4]).count(), 0);
        assert_eq!(functions(&[9, 0, 0, 0, 1]).count(), 0);
    }

    #[test]
    fn whole_tables_are_accepted() {
        assert_eq!(check(&[0; 4]), Ok(()));
        for count in 0..5 {
            assert_eq!(check(&table(count)), Ok(()));
        }
    }

    /// GNU's or LLVM's linker has made it, from what several compilers gave.
    #[test]
    fn the_table_of_this_program_is_accepted() {
        let file = std::fs::read("/proc/self/exe").unwrap();
        let file = object::File::parse(&*file).unwrap();
        let section = file.section_by_name(".eh_frame").unwrap();
        let section = section.data().unwrap();
        assert_eq!(check(section), Ok(()));
        assert!(functions(section).count() > 1000);
    }

    #[test]
    fn a_table_without_its_end_is_refused() {
        // The padding of the last entry is four zeros too.
        let whole = table(2);
        let cut = &whole[..whole.len() - 4];
        assert!(cut.ends_with(&[0; 4]));
        assert_eq!(check(cut), Err(CUT));
        assert_eq!(check(&[]), Err(CUT));
        assert_eq!(check(&[0; 3]), Err(CUT));
    }

    #[test]
    fn each_wrong_number_has_its_error() {
        let whole = table(2);
        let changed = |at, word| {
            let mut table = whole.clone();
            put(&mut table, at, word);
            check(&table)
        };
        assert_eq!(changed(24, 0x7fff_ffff), Err(CUT));
        assert_eq!(changed(24, 0xffff_fffe), Err(CUT));
        assert_eq!(changed(24, u32::MAX), Err(LONG));
        assert_eq!(changed(24, 0), Err(MORE));
        assert_eq!(changed(24, 7), Err(SHORT));
        assert_eq!(changed(0, 8), Err(SHORT));
        // Back before the table, into the common entry, to itself.
        assert_eq!(changed(28, 29), Err(STRAY));
        assert_eq!(changed(28, 20), Err(STRAY));
        assert_eq!(changed(28, 4), Err(STRAY));
        assert_eq!(changed(28, u32::MAX), Err(STRAY));
        assert_eq!(changed(28, 28), Ok(()));
    }

    /// As libgcc does it, which knows no end: the entries of functions, or that it
    /// would leave the table.
    fn walk(table: &[u8]) -> Option<usize> {
        let word = |at: usize| Some(u32::from_le_bytes(*table.get(at..)?.first_chunk()?));
        let mut at = 0_usize;
        let mut count = 0;
        while word(at)? != 0 {
            let back = usize::try_from(word(at + 4)?).ok()?;
            if back != 0 {
                // What it reads first of the common entry.
                table.get((at + 4).checked_sub(back)? + 8)?;
                count += 1;
            }
            at += usize::try_from(word(at)?).ok()? + 4;
        }
        Some(count)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn nobody_leaves_a_table_that_is_accepted(
            count in 0_usize..6,
            changes in prop::collection::vec((0_usize..60, 0_u32..80), 0..3),
            cut in 0_usize..40,
        ) {
            let mut table = table(count);
            let words = table.len() / 4;
            for (at, word) in changes {
                put(&mut table, at % words * 4, word);
            }
            table.truncate(table.len().saturating_sub(cut));
            if check(&table).is_ok() {
                prop_assert_eq!(walk(&table), Some(functions(&table).count()));
            }
        }

        #[test]
        fn no_part_of_a_table_is_accepted(count in 0_usize..6, len in 0_usize..400) {
            let table = table(count);
            let len = len.min(table.len() - 1);
            prop_assert!(check(&table[..len]).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = check(&bytes);
            let _ = functions(&bytes).count();
        }
    }
}
