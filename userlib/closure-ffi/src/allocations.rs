// SPDX-License-Identifier: MIT OR Apache-2.0

//! What was allocated: which place in which region each function has.

use crate::draft::{ALIGN, Draft};
use jitfd::internal::fill_at;
use jitfd::{Align, Error, Jit, Region, RegionOptions, Rules, Slot, validate};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What `closure_ffi` writes behind the code: the addresses of the closure and of
/// the code that goes on.
const DATA: usize = 16;

const NOT_HERE: Error = Error::Argument("no function was allocated at this address");
const TOO_LONG: Error = Error::Argument("a function does not fit a region");
const CHANGED: Error = Error::Argument("published code does not change");

/// Everything allocated, and the region where the next goes.
///
/// # Invariants
/// A region that holds something of `all` is mapped: each has a share in its
/// region.
#[derive(Debug)]
pub struct Allocations {
    current: Option<Arc<Region>>,
    /// By the address in the region.
    all: BTreeMap<usize, Allocation>,
}

/// Room for one function.
#[derive(Debug)]
pub struct Allocation {
    region: Arc<Region>,
    place: Slot,
    draft: Draft,
    /// What was published, and how far behind the start.
    published: Option<(usize, Vec<u8>)>,
}

impl Allocations {
    pub const fn new() -> Self {
        Self {
            current: None,
            all: BTreeMap::new(),
        }
    }

    /// The region where the next function goes.
    fn region(&mut self, jit: &Jit, options: RegionOptions) -> Result<Arc<Region>, Error> {
        match &self.current {
            Some(region) => Ok(Arc::clone(region)),
            None => self.next_region(jit, options),
        }
    }

    fn next_region(&mut self, jit: &Jit, options: RegionOptions) -> Result<Arc<Region>, Error> {
        let region = Arc::new(jit.region(options)?);
        self.current = Some(Arc::clone(&region));
        Ok(region)
    }

    /// Room for `len` bytes. Returns its address, and where to write them.
    pub fn add(
        &mut self,
        jit: &Jit,
        options: RegionOptions,
        len: usize,
    ) -> Result<(*const u8, *mut u8), Error> {
        let draft = Draft::new(len).ok_or(Error::Argument("no memory has this length"))?;
        let align = Align::new(ALIGN)?;
        if len > options.capacity {
            return Err(TOO_LONG);
        }
        let mut region = self.region(jit, options)?;
        let place = match region.reserve(len, align) {
            Ok(place) => place,
            // It is full, or that of the process from which this one was forked.
            Err(_) => {
                region = self.next_region(jit, options)?;
                region.reserve(len, align)?
            }
        };
        let code = std::ptr::with_exposed_provenance::<u8>(place.address);
        let write = draft.as_mut_ptr();
        let allocation = Allocation {
            region,
            place,
            draft,
            published: None,
        };
        self.all.insert(code.addr(), allocation);
        Ok((code, write))
    }

    /// Publishes `len` bytes of the function that has the address `at`.
    pub fn publish(&mut self, at: usize, len: usize) -> Result<(), Error> {
        let before = self.all.range_mut(..=at).next_back();
        let (&start, allocation) = before.ok_or(NOT_HERE)?;
        allocation.publish(at - start, len)
    }

    /// Forgets the function at an address. Its region is unmapped with the last
    /// share in it.
    pub fn remove(&mut self, address: usize) -> Option<Allocation> {
        self.all.remove(&address)
    }
}

impl Allocation {
    fn publish(&mut self, skip: usize, len: usize) -> Result<(), Error> {
        let bytes = self.draft.copy(skip, len).ok_or(NOT_HERE)?;
        if let Some((there, old)) = &self.published {
            let same = (*there, old) == (skip, &bytes);
            return if same { Ok(()) } else { Err(CHANGED) };
        }
        let data = len.saturating_sub(DATA)..len;
        let chunk = validate(&bytes, &Rules::new().data(data).threads(1))?;
        fill_at(&self.region, &self.place, skip, &chunk)?;
        self.published = Some((skip, bytes));
        Ok(())
    }
}

#[cfg(test)]
#[expect(unsafe_code, reason = "the tests write and call what was allocated")]
mod tests {
    use super::*;
    use jitfd::Fallback;

    const CAPACITY: usize = 4096;

    fn jit() -> Jit {
        Jit::open(Fallback::Any).unwrap()
    }

    /// What these tests make.
    fn add(all: &mut Allocations, len: usize) -> Result<(*const u8, *mut u8), Error> {
        all.add(&jit(), RegionOptions::from(CAPACITY), len)
    }

    /// `mov eax, [rip + 1]; ret` and two words, the first of which is loaded.
    fn write(draft: *mut u8, value: u8) {
        let code = [0x8b, 0x05, 1, 0, 0, 0, 0xc3, value];
        for (at, byte) in code.into_iter().enumerate() {
            // SAFETY: the tests make room for 23 bytes.
            unsafe { draft.add(at).write(byte) };
        }
    }

    fn call(code: *const u8) -> i32 {
        // SAFETY: it is what `write` has written, and published.
        let function: extern "C" fn() -> i32 = unsafe { std::mem::transmute(code) };
        function()
    }

    #[test]
    fn what_is_written_is_published_where_it_was_promised() {
        let mut all = Allocations::new();
        let made: Vec<_> = (1..=9)
            .map(|value| {
                let (code, draft) = add(&mut all, 23).unwrap();
                write(draft, value);
                all.publish(code.addr(), 23).unwrap();
                code
            })
            .collect();
        for (code, value) in made.into_iter().zip(1..) {
            assert_eq!(call(code), value);
        }
    }

    #[test]
    fn a_part_can_be_skipped_as_for_alignment() {
        let mut all = Allocations::new();
        let (code, draft) = add(&mut all, 30).unwrap();
        write(draft.wrapping_add(5), 77);
        let code = code.wrapping_add(5);
        all.publish(code.addr(), 23).unwrap();
        assert_eq!(call(code), 77);
    }

    #[test]
    fn published_twice_is_published_once() {
        let mut all = Allocations::new();
        let (code, draft) = add(&mut all, 23).unwrap();
        write(draft, 3);
        all.publish(code.addr(), 23).unwrap();
        all.publish(code.addr(), 23).unwrap();
        write(draft, 4);
        assert_eq!(all.publish(code.addr(), 23), Err(CHANGED));
        assert_eq!(call(code), 3);
    }

    #[test]
    fn what_is_no_code_is_refused() {
        let mut all = Allocations::new();
        let (code, draft) = add(&mut all, 40).unwrap();
        // SAFETY: it is inside.
        unsafe { draft.write(0x06) };
        assert!(matches!(all.publish(code.addr(), 40), Err(Error::Code(_))));
        // Outside of what was allocated, or nowhere.
        assert_eq!(all.publish(code.addr(), 41), Err(NOT_HERE));
        assert_eq!(all.publish(code.addr() - 1, 1), Err(NOT_HERE));
        assert!(all.remove(code.addr() + 1).is_none());
        assert!(all.remove(code.addr()).is_some());
    }

    #[test]
    fn a_region_goes_with_its_last_function() {
        let mut all = Allocations::new();
        let (first, _) = add(&mut all, 3000).unwrap();
        let region = Arc::downgrade(all.current.as_ref().unwrap());
        let (second, _) = add(&mut all, 1000).unwrap();
        let (elsewhere, _) = add(&mut all, 1000).unwrap();
        assert!(elsewhere.addr().abs_diff(first.addr()) >= CAPACITY);
        drop(all.remove(first.addr()));
        assert!(region.upgrade().is_some());
        drop(all.remove(second.addr()));
        assert!(region.upgrade().is_none());
    }

    #[test]
    fn too_much_for_a_region_is_refused() {
        let mut all = Allocations::new();
        assert!(add(&mut all, CAPACITY + 1).is_err());
        assert!(add(&mut all, 0).is_err());
        assert!(add(&mut all, CAPACITY).is_ok());
    }
}
