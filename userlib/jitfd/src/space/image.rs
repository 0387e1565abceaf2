// SPDX-License-Identifier: MIT OR Apache-2.0

//! Several functions, with the data between them, that are laid out, relocated
//! and published as one. Pure.
//!
//! ```text
//! | item 0 | CC | item 1 | CC CC | item 2 | CC | stub | stub |
//!   aligned       aligned          aligned       16 bytes each
//! ```

use super::area::Part;
use crate::abi;
use crate::error::{Call, Error};
use crate::os::fallible::{list, no_memory, room};
use jitfd_code::internal::{STUB, resolve, stub};
use jitfd_code::{Align, Chunk, CodeError, Reason, Reloc, RelocKind, Rules, Target};
use std::ops::Range;

/// A function, or data, that is published with others, by
/// [`CodeSpace::link`](super::CodeSpace::link): the functions of a module, say.
///
/// ```
/// use jitfd::Align;
/// use jitfd::space::{Item, Reloc, RelocKind, Target};
///
/// // mov rax, [rip + constant]; ret; and the constant, which is an address.
/// let code = vec![0x48, 0x8b, 0x05, 1, 0, 0, 0, 0xc3, 0, 0, 0, 0, 0, 0, 0, 0];
/// let item = Item {
///     align: Align::LINE,
///     relocs: vec![Reloc::new(8, RelocKind::Abs64, Target::Address(0x1234), 0)],
///     ..Item::new("load", code).data(8..16)
/// };
/// ```
#[derive(Clone, Debug)]
pub struct Item {
    /// What it is called.
    pub name: String,
    /// Its bytes. The fields of its records can hold anything.
    pub bytes: Vec<u8>,
    /// Which of them are data. A range that is empty or reaches beyond the item is
    /// refused.
    pub data: Vec<Range<usize>>,
    /// What its address is a multiple of.
    pub align: Align,
    /// What else it refers to. The fields of two must not overlap.
    pub relocs: Vec<Reloc>,
}

impl Item {
    /// An item of these bytes, all of them code, aligned to 16.
    #[must_use]
    pub fn new(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self {
            name: name.into(),
            bytes,
            data: Vec::new(),
            align: Align::FUNCTION,
            relocs: Vec::new(),
        }
    }

    /// Declares bytes as data, by their offsets in the item.
    #[must_use]
    pub fn data(mut self, range: Range<usize>) -> Self {
        self.data.push(range);
        self
    }

    /// The field's address if the item, of this number, has the address `base`.
    fn field(&self, number: usize, reloc: &Reloc, base: usize) -> Result<usize, Error> {
        let (kind, len) = (reloc.kind, self.bytes.len());
        let end = reloc.at.checked_add(reloc.kind.width());
        let inside = end.is_some_and(|end| end <= self.bytes.len());
        let field = base.checked_add(reloc.at).filter(|_| inside);
        field.ok_or_else(|| self.error(number, reloc.at, Reason::FieldOutside { kind, len }))
    }

    /// The first data range that is not inside of the item.
    fn bad_data(&self) -> Option<&Range<usize>> {
        let len = self.bytes.len();
        let inside = |range: &Range<usize>| range.start < range.end && range.end <= len;
        self.data.iter().find(|range| !inside(range))
    }

    /// Whether no byte is in the fields of two records.
    fn check_overlaps(&self, number: usize) -> Result<(), Error> {
        let mut sorted = list(self.relocs.iter()).ok_or(NO_MEMORY)?;
        sorted.sort_by_key(|reloc| reloc.at);
        let pairs = sorted.iter().zip(sorted.iter().skip(1));
        let mut overlaps = pairs.filter(|(first, next)| next.at - first.at < first.kind.width());
        overlaps.next().map_or(Ok(()), |(first, next)| {
            let (kind, other) = (next.kind, first.at);
            Err(self.error(number, next.at, Reason::FieldsOverlap { kind, other }))
        })
    }

    /// Whether each field is inside of the item, and refers to one of `items` items
    /// or to an address.
    fn check_records(&self, number: usize, items: usize) -> Result<(), Error> {
        for reloc in &self.relocs {
            self.field(number, reloc, 0)?;
            match reloc.target {
                Target::Item(other) if other >= items => {
                    return Err(self.no_item(number, reloc, other, items));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn no_item(&self, own: usize, reloc: &Reloc, number: usize, items: usize) -> Error {
        let kind = reloc.kind;
        let reason = Reason::NoItem {
            kind,
            number,
            items,
        };
        self.error(own, reloc.at, reason)
    }

    /// What is wrong at `offset` of this item, which has this number.
    fn error(&self, number: usize, offset: usize, reason: Reason) -> Error {
        CodeError::of_item(number, &self.name, offset, reason).into()
    }
}

/// Items that refer to each other, to be published as one.
#[derive(Clone, Copy)]
pub(super) struct Image<'a>(pub(super) &'a [Item]);

/// Where the parts of an image lie, from its start.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) len: usize,
    pub(super) align: Align,
    offsets: Vec<usize>,
    /// Addresses that have a stub, ascending, and where the first stub is.
    far: Vec<usize>,
    stubs: usize,
}

const NO_MEMORY: Error = no_memory(Call::Reserve);
const TOO_LARGE: Error = Error::Argument("an image has 1 byte to 1 GiB, and no empty items");

impl<'a> Image<'a> {
    /// The number of the item that has a byte at `offset`, and the offset in there.
    fn item_at(&self, layout: &Layout, offset: usize) -> Option<(usize, usize)> {
        let number = layout.offsets.partition_point(|&start| start <= offset);
        let number = number.checked_sub(1)?;
        let inner = offset - layout.offsets.get(number)?;
        (inner < self.0.get(number)?.bytes.len()).then_some((number, inner))
    }

    /// An error of the linked image as one of its item.
    pub(super) fn blame(&self, layout: &Layout, error: Error) -> Error {
        match error {
            Error::Code(error) if error.item.is_none() && !error.is_no_memory() => {
                let place = self.item_at(layout, error.offset);
                let item =
                    place.and_then(|(number, inner)| Some((self.0.get(number)?, number, inner)));
                match item {
                    Some((item, number, inner)) => error.in_item(number, &item.name, inner).into(),
                    None => error.into(),
                }
            }
            other => other,
        }
    }

    /// Each item is aligned to `least` at least.
    pub(super) fn layout(&self, least: Align) -> Result<Layout, Error> {
        self.check_items()?;
        let mut end = 0;
        let mut offsets = room(self.0.len()).ok_or(NO_MEMORY)?;
        for item in self.0 {
            let offset = item.align.max(least).up(end).ok_or(TOO_LARGE)?;
            offsets.push(offset);
            end = offset.checked_add(item.bytes.len()).ok_or(TOO_LARGE)?;
        }
        let far = self.far_targets()?;
        let stubs = end.checked_next_multiple_of(STUB).ok_or(TOO_LARGE)?;
        let len = if far.is_empty() {
            end
        } else {
            stubs.saturating_add(far.len().saturating_mul(STUB))
        };
        let empty = self.0.is_empty() || self.0.iter().any(|item| item.bytes.is_empty());
        if empty || crate::num::to_u64(len) > abi::MAX_CODE {
            return Err(TOO_LARGE);
        }
        Ok(Layout {
            len,
            align: self.align().max(least),
            offsets,
            far,
            stubs,
        })
    }

    /// Checks that each item is well formed by itself, so that it can't change
    /// what another one means; and finds the faults that do not depend on where
    /// the image lies.
    fn check_items(&self) -> Result<(), Error> {
        for (number, item) in self.0.iter().enumerate() {
            if let Some(range) = item.bad_data() {
                let (range, len) = (range.clone(), item.bytes.len());
                let at = range.start;
                return Err(item.error(number, at, Reason::DataRange { range, len }));
            }
            item.check_overlaps(number)?;
            item.check_records(number, self.0.len())?;
        }
        Ok(())
    }

    /// No item goes on behind its end: the next would begin inside an
    /// instruction. `chunk` is the image.
    pub(super) fn check_ends(&self, layout: &Layout, chunk: &Chunk) -> Result<(), Error> {
        for (item, start) in self.0.iter().zip(&layout.offsets) {
            let end = start + item.bytes.len();
            if chunk.is_inside_instruction(end) {
                let last = (*start..end).rev().find(|&at| chunk.is_boundary(at));
                let at = last.unwrap_or(*start);
                return Err(CodeError::at(chunk.bytes(), at, Reason::Truncated).into());
            }
        }
        Ok(())
    }

    fn align(&self) -> Align {
        let each = self.0.iter().map(|item| item.align);
        each.max().unwrap_or(Align::NONE).max(Align::FUNCTION)
    }

    /// The addresses that may be too far for a call, ascending.
    fn far_targets(&self) -> Result<Vec<usize>, Error> {
        let relocs = self.0.iter().flat_map(|item| &item.relocs);
        let targets = relocs.filter_map(stub_target);
        let mut far = room(targets.clone().count()).ok_or(NO_MEMORY)?;
        far.extend(targets);
        far.sort_unstable();
        far.dedup();
        Ok(far)
    }

    /// The items as parts of the reserved range.
    pub(super) fn parts(&self, layout: &Layout) -> Result<Vec<Part<'a>>, Error> {
        let pairs = self.0.iter().zip(&layout.offsets);
        let part = |(item, &offset): (&'a Item, &usize)| Part {
            name: &item.name,
            offset,
            len: item.bytes.len(),
        };
        list(pairs.map(part)).ok_or(NO_MEMORY)
    }

    /// `options` with the data ranges, and, if only declared entries may be
    /// entered, with the start of each item that is code.
    pub(super) fn options(&self, layout: &Layout, options: &Rules) -> Result<Rules, Error> {
        let mut options = self.with_data(layout, options)?;
        let pairs = self.0.iter().zip(&layout.offsets);
        let code = pairs.filter(|(item, _)| !item.data.iter().any(|data| data.contains(&0)));
        let starts = code.map(|(_, &offset)| offset);
        let room = options.add_starts(self.0.len(), starts);
        room.map_err(|_| NO_MEMORY)?;
        Ok(options)
    }

    fn with_data(&self, layout: &Layout, options: &Rules) -> Result<Rules, Error> {
        let mut options = options.clone();
        let count = self.0.iter().map(|item| item.data.len()).sum();
        let pairs = self.0.iter().zip(&layout.offsets);
        let ranges = pairs.flat_map(|(item, offset)| {
            let moved = move |data: &Range<usize>| data.start + offset..data.end + offset;
            item.data.iter().map(moved)
        });
        let room = options.add_data(count, ranges);
        room.map_err(|_| NO_MEMORY)?;
        Ok(options)
    }

    /// The bytes of the image for `base`, the address it will lie at.
    pub(super) fn relocated(&self, layout: &Layout, base: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = room(layout.len).ok_or(NO_MEMORY)?;
        bytes.resize(layout.len, abi::FILL);
        let pairs = self.0.iter().zip(&layout.offsets);
        for (number, (item, &offset)) in pairs.enumerate() {
            bytes[offset..offset + item.bytes.len()].copy_from_slice(&item.bytes);
            for reloc in &item.relocs {
                let (value, by_stub) = layout.value((number, item), reloc, base, base + offset)?;
                let (at, width) = (offset + reloc.at, reloc.kind.width());
                bytes[at..at + width].copy_from_slice(&value[..width]);
                // Stubs that no branch needs stay trap bytes.
                if let Some((at, target)) = by_stub {
                    bytes[at..at + STUB].copy_from_slice(&stub(target));
                }
            }
        }
        Ok(bytes)
    }
}

/// The stub that a record goes by: its offset, and its target.
type Detour = (usize, usize);

/// The address that needs a stub if it is too far.
fn stub_target(reloc: &Reloc) -> Option<usize> {
    match (reloc.kind, reloc.target) {
        (RelocKind::Call32, Target::Address(address)) if reloc.addend == -4 => Some(address),
        _ => None,
    }
}

impl Layout {
    /// The bytes of the field of `reloc` in `item`, which lies at `address`; and the
    /// stub that it goes by, if it does.
    fn value(
        &self,
        (own, item): (usize, &Item),
        reloc: &Reloc,
        base: usize,
        address: usize,
    ) -> Result<([u8; 16], Option<Detour>), Error> {
        let field = item.field(own, reloc, address)?;
        let target = match reloc.target.item() {
            Err(address) => address,
            Ok(number) => {
                let offset = self.offsets.get(number);
                let items = self.offsets.len();
                let none = || item.no_item(own, reloc, number, items);
                base + offset.ok_or_else(none)?
            }
        };
        let plus = |target: usize| target as i128 + i128::from(reloc.addend);
        let near = |target| resolve(reloc.kind, plus(target), field);
        let by_stub = || {
            let target = stub_target(reloc)?;
            let at = self.stub_of(target)?;
            Some((near(base + at)?, Some((at, target))))
        };
        let direct = near(target).map(|value| (value, None));
        direct.or_else(by_stub).ok_or_else(|| {
            let (kind, addend, address) = (reloc.kind, reloc.addend, target);
            let reason = Reason::TooFar {
                kind,
                field,
                address,
                addend,
            };
            item.error(own, reloc.at, reason)
        })
    }

    /// The offset of the stub for `target`.
    fn stub_of(&self, target: usize) -> Option<usize> {
        let number = self.far.binary_search(&target).ok()?;
        Some(self.stubs + number * STUB)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RET: u8 = 0xc3;

    fn image() -> Vec<Item> {
        let image = vec![
            Item::new("a", vec![RET; 3]),
            Item {
                align: Align::new(64).unwrap(),
                ..Item::new("b", vec![RET; 20]).data(4..8)
            },
            Item {
                align: Align::NONE,
                ..Item::new("c", vec![RET; 5]).data(0..1)
            },
        ];
        image
    }

    fn relocated(item: Item, base: usize) -> Result<Vec<u8>, Error> {
        let image = vec![item];
        Image(&image).relocated(&Image(&image).layout(Align::NONE)?, base)
    }

    #[test]
    fn items_lie_in_order_at_their_alignment() {
        let image = image();
        let layout = Image(&image).layout(Align::NONE).unwrap();
        assert_eq!(layout.offsets, [0, 64, 84]);
        assert_eq!((layout.len, layout.align.bytes()), (89, 64));
        let bytes = Image(&image).relocated(&layout, 0).unwrap();
        assert_eq!(bytes[3..64], [abi::FILL; 61]);
        let data = Rules::new().data(68..72).data(84..85);
        let with = |options| Image(&image).options(&layout, &options).unwrap();
        assert_eq!(with(Rules::new()), data);
        assert_eq!(with(Rules::new().entries_only()), data.entry(0).entry(64));
        assert_eq!(Image(&image).item_at(&layout, 65), Some((1, 1)));
        assert_eq!(Image(&image).item_at(&layout, 3), None);
        assert_eq!(Image(&image).item_at(&layout, 89), None);
    }

    #[test]
    fn empty_images_and_items_are_refused() {
        assert_eq!(Image(&[]).layout(Align::NONE), Err(TOO_LARGE));
        assert_eq!(relocated(Item::new("", vec![]), 0), Err(TOO_LARGE));
    }

    #[test]
    fn records_refer_to_items_and_addresses() {
        let mut image = image();
        let far = Reloc::new(0, RelocKind::Abs64, Target::Item(1), 2);
        let near = Reloc::new(8, RelocKind::Rel32, Target::Item(0), -4);
        image.push(Item {
            relocs: vec![far, near],
            ..Item::new("d", vec![0; 12]).data(0..12)
        });
        let layout = Image(&image).layout(Align::NONE).unwrap();
        let bytes = Image(&image).relocated(&layout, 0x10_0000).unwrap();
        assert_eq!(bytes[96..104], (0x10_0000_u64 + 66).to_le_bytes());
        assert_eq!(bytes[104..108], (-104_i32 - 4).to_le_bytes());
    }

    #[test]
    fn calls_too_far_go_by_a_stub() {
        let call = |target, addend| {
            let reloc = Reloc::new(1, RelocKind::Call32, Target::Address(target), 0);
            Item {
                relocs: vec![Reloc { addend, ..reloc }],
                ..Item::new("caller", vec![0xe8, 0, 0, 0, 0, RET])
            }
        };
        let near = relocated(call(0x1000, -4), 0x2000).unwrap();
        assert_eq!(near[1..5], (0x1000 - 0x2005_i32).to_le_bytes());
        assert_eq!(near[16..], [abi::FILL; STUB]);
        let far = relocated(call(1 << 40, -4), 0x2000).unwrap();
        assert_eq!(
            (far.len(), &far[1..5]),
            (32, &(16 - 5_i32).to_le_bytes()[..])
        );
        assert_eq!(far[16..], stub(1 << 40));
        let odd = relocated(call(1 << 40, 0), 0x2000);
        assert_eq!(odd.unwrap_err().errno(), libc::EOVERFLOW);
    }

    #[test]
    fn records_that_make_no_sense_are_refused() {
        let bad = |reloc: Reloc| {
            let error = relocated(
                Item {
                    relocs: vec![reloc],
                    ..Item::new("bad", vec![RET; 8])
                },
                1 << 40,
            );
            match error {
                Err(Error::Code(error)) => error.reason,
                other => panic!("{other:?}"),
            }
        };
        let here = Target::Item(0);
        for at in [5, 8, 9, usize::MAX - 3, usize::MAX] {
            assert_eq!(
                bad(Reloc::new(
                    at,
                    RelocKind::Abs32Signed,
                    Target::Address(0),
                    0
                )),
                Reason::FieldOutside {
                    kind: RelocKind::Abs32Signed,
                    len: 8
                }
            );
        }
        let none = bad(Reloc::new(0, RelocKind::Rel32, Target::Item(1), 0));
        let (kind, number, items) = (RelocKind::Rel32, 1, 1);
        assert_eq!(
            none,
            Reason::NoItem {
                kind,
                number,
                items
            }
        );
        let (kind, address, addend) = (RelocKind::Rel8, 1 << 40, 128);
        let far = bad(Reloc::new(0, RelocKind::Rel8, here, 128));
        let field = address;
        assert_eq!(
            far,
            Reason::TooFar {
                kind,
                field,
                address,
                addend
            }
        );
    }

    #[test]
    fn records_of_one_item_must_not_overlap() {
        let two = |first, next| {
            let record = |at, kind| Reloc::new(at, kind, Target::Address(0), 0);
            let item = Item {
                relocs: vec![
                    record(first, RelocKind::Abs64),
                    record(next, RelocKind::Abs32),
                ],
                ..Item::new("two", vec![0; 16])
            };
            relocated(item, 0)
        };
        let (long, short) = (RelocKind::Abs64, RelocKind::Abs32);
        for (first, next, at, other, kind) in
            [(2, 4, 4, 2, short), (2, 2, 2, 2, short), (5, 2, 5, 2, long)]
        {
            match two(first, next) {
                Err(Error::Code(error)) => {
                    let reason = Reason::FieldsOverlap { kind, other };
                    assert_eq!((error.offset, error.reason), (at, reason));
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(two(2, 10).is_ok() && two(6, 2).is_ok());
    }

    #[test]
    fn data_lies_inside_its_item() {
        let (start, end) = (usize::MAX - 15, 15);
        for range in [6..116, 6..7, 3..3, usize::MAX - 1..usize::MAX, start..end] {
            let image = vec![
                Item::new("first", vec![RET; 200]),
                Item::new("second", vec![RET; 6]).data(range.clone()),
            ];
            match Image(&image).layout(Align::NONE) {
                Err(Error::Code(error)) => {
                    assert_eq!(error.item, Some((1, "second".to_owned())));
                    assert_eq!(error.reason, Reason::DataRange { range, len: 6 });
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
