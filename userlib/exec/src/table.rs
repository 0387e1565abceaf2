// SPDX-License-Identifier: MIT OR Apache-2.0

//! A byte for each page of the address space: three levels of tables, made when a page
//! below them is first noted, and never given back. Reading takes no lock.

use core::ops::Range;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU8};

use crate::page::Page;
use crate::sys::{self, Errno, PAGE};

const TOP_BITS: u32 = 11;
const MIDDLE_BITS: u32 = 12;
const LEAF_BITS: u32 = 12;
const TOP: usize = 1 << TOP_BITS;
const MIDDLE: usize = 1 << MIDDLE_BITS;
const LEAF: usize = 1 << LEAF_BITS;
/// Pages that there are: of 47 bits of addresses.
const PAGES: usize = 1 << (TOP_BITS + MIDDLE_BITS + LEAF_BITS);

type Leaf = [AtomicU8; LEAF];
type Middle = [AtomicPtr<Leaf>; MIDDLE];

static TABLE: [AtomicPtr<Middle>; TOP] = [const { AtomicPtr::new(null_mut()) }; TOP];

fn middle(page: usize) -> Option<&'static Middle> {
    let slot = TABLE.get(page >> (MIDDLE_BITS + LEAF_BITS))?;
    // SAFETY: null, or memory of zeros that is never given back; all of it is atomic.
    unsafe { slot.load(Acquire).as_ref() }
}

fn leaf(page: usize) -> Option<&'static Leaf> {
    let slot = middle(page)?.get((page >> LEAF_BITS) % MIDDLE)?;
    // SAFETY: as above.
    unsafe { slot.load(Acquire).as_ref() }
}

/// What is noted about a page.
pub fn get(page: usize) -> Page {
    let note = leaf(page).and_then(|leaf| leaf.get(page % LEAF));
    note.map_or(Page::Ordinary, |byte| Page::from_byte(byte.load(Relaxed)))
}

/// The bytes of the pages of a range that have tables, in order.
fn bytes(pages: Range<usize>) -> impl Iterator<Item = &'static [AtomicU8]> {
    let mut page = pages.start;
    core::iter::from_fn(move || {
        while page < pages.end {
            let (step, found) = match (middle(page), leaf(page)) {
                (None, _) => (MIDDLE * LEAF, None),
                (_, None) => (LEAF, None),
                (_, Some(leaf)) => {
                    let first = page % LEAF;
                    let last = LEAF.min(first + (pages.end - page));
                    (LEAF, leaf.get(first..last))
                }
            };
            page = (page / step + 1) * step;
            if found.is_some() {
                return found;
            }
        }
        None
    })
}

/// Notes the same about all pages of a range. Where it has no tables, the pages stay
/// ordinary: see [`prepare`].
pub fn set(pages: Range<usize>, note: Page) {
    for byte in bytes(pages).flatten() {
        byte.store(note.to_byte(), Relaxed);
    }
}

/// Whether anything is noted about a page of the range.
pub fn any(pages: Range<usize>) -> bool {
    bytes(pages)
        .flatten()
        .any(|byte| byte.load(Relaxed) != Page::Ordinary.to_byte())
}

/// Makes the tables that the range needs. Fails with `ENOMEM`.
pub fn prepare(pages: Range<usize>) -> Result<(), Errno> {
    if pages.end > PAGES {
        return Err(libc::ENOMEM);
    }
    let mut page = pages.start;
    while page < pages.end {
        if leaf(page).is_none() {
            let slot = TABLE.get(page >> (MIDDLE_BITS + LEAF_BITS));
            make(slot.ok_or(libc::ENOMEM)?)?;
            let slot = middle(page).and_then(|middle| middle.get((page >> LEAF_BITS) % MIDDLE));
            make(slot.ok_or(libc::ENOMEM)?)?;
        }
        page = (page / LEAF + 1) * LEAF;
    }
    Ok(())
}

/// Makes a table, if there is none yet.
fn make<T>(slot: &AtomicPtr<T>) -> Result<(), Errno> {
    if !slot.load(Acquire).is_null() {
        return Ok(());
    }
    let len = size_of::<T>().next_multiple_of(PAGE);
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: new memory.
    let memory = unsafe { sys::mmap(0, len, access, flags, -1, 0)? };
    let table = core::ptr::with_exposed_provenance_mut(memory);
    if slot
        .compare_exchange(null_mut(), table, Release, Relaxed)
        .is_err()
    {
        // SAFETY: nobody else knows of it.
        let _ = unsafe { sys::munmap(memory, len) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_noted_and_found() {
        // No memory of this process is there, and of no other test.
        let first = PAGES - 3 * LEAF - 5;
        let all = first..PAGES;
        assert!(!any(all.clone()));
        set(all.clone(), Page::Idle);
        assert!(!any(all.clone()), "it has no tables");
        prepare(all.clone()).unwrap();
        assert!(!any(all.clone()));
        set(first + LEAF..first + LEAF + 1, Page::Writable);
        assert_eq!(get(first + LEAF), Page::Writable);
        assert_eq!(get(first + LEAF + 1), Page::Ordinary);
        assert!(any(all.clone()) && any(0..PAGES));
        assert!(any(first + LEAF..first + LEAF + 1));
        assert!(!any(first + LEAF + 1..PAGES) && !any(first..first + LEAF));
        set(all.clone(), Page::Idle);
        assert!(all.clone().all(|page| get(page) == Page::Idle));
        set(all.clone(), Page::Ordinary);
        assert!(!any(0..PAGES));
    }

    #[test]
    fn what_is_no_address_is_ordinary() {
        assert_eq!(get(PAGES), Page::Ordinary);
        assert_eq!(get(usize::MAX / PAGE), Page::Ordinary);
        assert!(!any(PAGES..PAGES + 10));
        assert_eq!(prepare(PAGES - 1..PAGES + 1), Err(libc::ENOMEM));
    }
}
