// SPDX-License-Identifier: MIT OR Apache-2.0

//! Functions that refer to each other, relocated for the addresses they get and
//! published as one.

use crate::guard::{self, Failure};
use crate::pointer;
use crate::rules::{align, jitfd_range, range};
use crate::space::jitfd_space;
use crate::text;
use rust::Align;
use rust::space::{Item, Reloc, RelocKind, Target};
use std::ffi::{c_char, c_int, c_void};
use std::ptr::with_exposed_provenance_mut;

/// The address, 64 bits.
pub const JITFD_RELOC_ABS64: u32 = 1;
/// The address, which must fit 32 bits without a sign.
pub const JITFD_RELOC_ABS32: u32 = 2;
/// The address, which must fit 32 bits with a sign.
pub const JITFD_RELOC_ABS32S: u32 = 3;
/// The distance from the field, 64 bits.
pub const JITFD_RELOC_REL64: u32 = 4;
/// The distance from the field, 32 bits.
pub const JITFD_RELOC_REL32: u32 = 5;
/// The same in a call or jump. To an address that is too far away it goes by a stub
/// that changes r11; the addend must be -4 then.
pub const JITFD_RELOC_CALL32: u32 = 6;
/// The distance from the field, 8 bits.
pub const JITFD_RELOC_REL8: u32 = 7;

/// The target is the number of an item, counted from 0.
pub const JITFD_RELOC_TO_ITEM: u32 = 1;

/// One field of an item that depends on addresses. CPUs count a branch from the
/// instruction behind it, so the addend of one that ends with its field is -4.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jitfd_reloc {
    /// Where the field begins, in bytes from the start of the item.
    pub at: usize,
    /// One of JITFD_RELOC_.
    pub kind: u32,
    /// JITFD_RELOC_TO_ITEM, or 0 if the target is an address.
    pub flags: u32,
    /// What the field refers to.
    pub target: usize,
    /// Is added to the target's address.
    pub addend: i64,
}

/// One function, or constant, of several that are published as one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jitfd_item {
    /// The name under which it is found, in UTF-8; or null.
    pub name: *const c_char,
    /// Its bytes. What the fields of its records hold does not matter.
    pub bytes: *const c_void,
    /// The number of bytes, at least 1.
    pub len: usize,
    /// A power of two up to 4096; 0 is 16.
    pub align: usize,
    /// The ranges that are data.
    pub data: *const jitfd_range,
    /// How many ranges there are.
    pub data_count: usize,
    /// The fields that depend on addresses.
    pub relocs: *const jitfd_reloc,
    /// How many there are.
    pub reloc_count: usize,
    /// 0.
    pub reserved: [usize; 2],
}

/// # Safety
/// The pointers of `item` are null or valid for what its counts say.
unsafe fn read(item: &jitfd_item) -> Result<Item, Failure> {
    if item.reserved != [0; 2] {
        return Err(Failure::Refused(libc::EINVAL, "a reserved field is not 0"));
    }
    // SAFETY: as promised by the caller.
    let (name, bytes, data, relocs) = unsafe {
        (
            text::read(item.name)?,
            pointer::copy(item.bytes, item.len)?,
            pointer::array(item.data, item.data_count)?,
            pointer::array(item.relocs, item.reloc_count)?,
        )
    };
    let align = match item.align {
        0 => Align::FUNCTION,
        bytes => align(bytes)?,
    };
    let mut made = Item {
        align,
        ..Item::new(name, bytes)
    };
    made.data.extend(data.iter().map(range));
    for record in relocs {
        made.relocs.push(reloc(record)?);
    }
    Ok(made)
}

fn reloc(record: &jitfd_reloc) -> Result<Reloc, Failure> {
    let target = match record.flags {
        0 => Target::Address(record.target),
        JITFD_RELOC_TO_ITEM => Target::Item(record.target),
        _ => return Err(Failure::Refused(libc::EINVAL, "a flag is not known")),
    };
    let kind = match record.kind {
        JITFD_RELOC_ABS64 => RelocKind::Abs64,
        JITFD_RELOC_ABS32 => RelocKind::Abs32,
        JITFD_RELOC_ABS32S => RelocKind::Abs32Signed,
        JITFD_RELOC_REL64 => RelocKind::Rel64,
        JITFD_RELOC_REL32 => RelocKind::Rel32,
        JITFD_RELOC_CALL32 => RelocKind::Call32,
        JITFD_RELOC_REL8 => RelocKind::Rel8,
        _ => {
            let text = "there is no such kind of relocation";
            return Err(Failure::Refused(libc::EINVAL, text));
        }
    };
    Ok(Reloc::new(record.at, kind, target, record.addend))
}

/// Publishes items that refer to each other as one, relocated for the addresses
/// they get, and stores these. addresses has room for count of them, or is null.
///
/// Returns 0, or -1 with errno as jitfd_space_publish; EOVERFLOW if a field can't
/// hold what it refers to, is not inside its item or overlaps another; EILSEQ if the
/// relocated code is refused, or an item has data that is not inside of it or ends
/// inside an instruction; EINVAL also if an item is empty, has a reserved field that is not 0,
/// or a bad align, or there is no item. Nothing is published then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_space_link(
    space: *mut jitfd_space,
    items: *const jitfd_item,
    count: usize,
    addresses: *mut *mut c_void,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let space = pointer::object(space)?;
        let mut image = Vec::new();
        for item in pointer::array(items, count)? {
            image.push(read(item)?);
        }
        let functions = space.space.link(&image, None)?;
        let places = functions.iter().map(|function| function.address);
        pointer::store_all(addresses, places.map(with_exposed_provenance_mut));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn these_structs_never_grow() {
        assert_eq!(
            (size_of::<jitfd_reloc>(), size_of::<jitfd_item>()),
            (32, 80)
        );
    }

    #[test]
    fn unknown_kinds_are_refused() {
        let mut record = jitfd_reloc {
            at: 0,
            kind: 0,
            flags: 0,
            target: 0,
            addend: 0,
        };
        for kind in 0..9 {
            record.kind = kind;
            assert_eq!(reloc(&record).is_ok(), (1..8).contains(&kind), "{kind}");
        }
        record.flags = 2;
        assert!(reloc(&record).is_err());
    }
}
