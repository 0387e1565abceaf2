// SPDX-License-Identifier: MIT OR Apache-2.0

//! One region of a code space: the region, what is in it, and its counts.
//!
//! Locks: `order` makes one step of "take room at the cursor" and "add to the
//! index", so that the index is in ascending order. The region's own lock is
//! taken inside it. Filling takes only the latter.

use super::index::{Entry, Index};
use super::listener::Symbol;
use super::stats::{Counts, SpaceStats};
use crate::backend_name::Backend;
use crate::error::{Call, Error};
use crate::os::fallible::{list, no_memory, room, text};
use crate::region::options::RegionOptions;
use crate::region::slot::{Home, Published, Slot};
use crate::region::{Known, Region};
use jitfd_code::{Align, Chunk};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Why a child can't take a code space over.
pub(super) const FORKED_MEANWHILE: Error = Error::Argument(
    "another thread publishes in the code space, or did when the process was forked",
);

/// One function inside a range that is reserved as a whole.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) name: &'a str,
    /// From the start of the range.
    pub(super) offset: usize,
    pub(super) len: usize,
}

pub(super) struct Area {
    pub(super) region: Region,
    index: Index,
    counts: Counts,
    order: Mutex<()>,
}

pub(super) const NOT_HERE: Error =
    Error::Argument("the slot is of another code space, or was given up");
const TOO_MANY: Error = Error::Argument("a region has room for 2^32 functions");

/// Copies of the names that `call` is given.
fn names<'a>(
    call: Call,
    names: impl ExactSizeIterator<Item = &'a str>,
) -> Result<Vec<Box<str>>, Error> {
    let mut copies = room(names.len()).ok_or(no_memory(call))?;
    for name in names {
        copies.push(text(name).ok_or(no_memory(call))?);
    }
    Ok(copies)
}

impl Area {
    /// A region whose first `lead` bytes are never code.
    pub(super) fn create(
        backend: Backend,
        options: RegionOptions,
        lead: usize,
    ) -> Result<Self, Error> {
        let region = options.create(backend)?;
        let counts = Counts::default();
        if lead > 0 {
            region.reserve(lead, Align::NONE)?;
            counts.used_up_to(lead);
        }
        Ok(Self {
            region,
            index: Index::new(),
            counts,
            order: Mutex::new(()),
        })
    }

    pub(super) fn base(&self) -> usize {
        self.region.mapping().address()
    }

    pub(super) const fn capacity(&self) -> usize {
        self.region.mapping().len()
    }

    /// Whether something may fit that has this end if it begins at this cursor. If
    /// not, it never will: the cursor only grows.
    pub(super) fn may_have_room(&self, end: impl Fn(usize) -> Option<usize>) -> bool {
        end(self.counts.end()).is_some_and(|end| end <= self.capacity())
    }

    /// Publishes chunks at the cursor, all or none.
    pub(super) fn append(
        &self,
        batch: &[(&str, &Chunk)],
        known: Known<'_>,
    ) -> Result<Vec<Published>, Error> {
        let call = Call::Append;
        let chunks = list(batch.iter().map(|&(_, chunk)| chunk)).ok_or(no_memory(call))?;
        let names = names(call, batch.iter().map(|&(name, _)| name))?;
        let _order = self.order();
        self.make_room(call, batch.len())?;
        let placed = self.region.publish_beside(&chunks, known)?;
        for (at, name) in placed.iter().zip(names) {
            let entry = Entry::published(at.offset, at.len, name);
            self.index.add(entry).ok_or(TOO_MANY)?;
            self.counts.used_up_to(at.offset + at.len);
            self.counts.published(1, at.len);
        }
        Ok(placed)
    }

    /// For entries that are added under the lock that the caller holds.
    fn make_room(&self, call: Call, entries: usize) -> Result<(), Error> {
        let enough = self.index.make_room(entries);
        enough.then_some(()).ok_or(no_memory(call))
    }

    /// Sets one range aside for `parts`, which are in ascending order. This is
    /// region `area` of code space `space`.
    pub(super) fn reserve(
        &self,
        (space, area): (u64, usize),
        len: usize,
        align: Align,
        parts: &[Part<'_>],
    ) -> Result<Slot, Error> {
        let names = names(Call::Reserve, parts.iter().map(|part| part.name))?;
        let _order = self.order();
        self.make_room(Call::Reserve, parts.len())?;
        let slot = self.region.reserve(len, align)?;
        self.counts.used_up_to(slot.offset + len);
        self.counts.reserved(len);
        let mut entry = None;
        for (part, name) in parts.iter().zip(names) {
            let new = Entry::reserved(slot.offset + part.offset, part.len, name);
            entry = entry.or(Some(self.index.add(new).ok_or(TOO_MANY)?));
        }
        let home = Home {
            space,
            area,
            entry: entry.unwrap_or_default(),
            len,
        };
        Ok(Slot {
            home: Some(home),
            ..slot
        })
    }

    /// Publishes `chunk` in a slot and notes `parts` of it, as many as were
    /// reserved.
    pub(super) fn fill(
        &self,
        slot: &Slot,
        chunk: &Chunk,
        parts: &[Part<'_>],
        known: Known<'_>,
    ) -> Result<Published, Error> {
        let (first, _) = self.open_entry(slot)?;
        let published = self.region.fill_beside(slot, 0, chunk, known)?;
        self.counts.settled(slot.len);
        for (number, part) in parts.iter().enumerate() {
            let entry = self.index.get(first + number).ok_or(NOT_HERE)?;
            entry.publish(part.len);
            self.counts.published(1, part.len);
        }
        Ok(published)
    }

    /// Nothing will come into the slot.
    pub(super) fn abandon(&self, slot: &Slot) {
        if self
            .open_entry(slot)
            .is_ok_and(|(_, entry)| entry.abandon())
        {
            self.counts.settled(slot.len);
        }
    }

    /// The slot's first entry and its number, if its code is still to come.
    fn open_entry(&self, slot: &Slot) -> Result<(usize, &Entry), Error> {
        // The numbers of a slot can be changed by who has it.
        let home = slot.home.filter(|home| home.len == slot.len);
        let number = home.ok_or(NOT_HERE)?.entry;
        let entry = self.index.get(number);
        let open = |entry: &&Entry| entry.offset == slot.offset && !entry.is_given_up();
        Ok((number, entry.filter(open).ok_or(NOT_HERE)?))
    }

    /// Makes the region this process's own, after a fork.
    pub(super) fn adopt(&self) -> Result<(), Error> {
        // A lock that was held at the fork is never released in the child.
        let _order = match self.order.try_lock() {
            Ok(order) => order,
            Err(TryLockError::Poisoned(order)) => order.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(FORKED_MEANWHILE),
        };
        self.region.adopt()
    }

    /// The function at an address. Takes no lock.
    pub(super) fn lookup(&self, address: usize) -> Option<Symbol<'_>> {
        let offset = address.checked_sub(self.base())?;
        self.index.at(offset).map(|entry| self.symbol(entry))
    }

    /// Whether a function begins at `address`, published or still to come. Takes no
    /// lock.
    pub(super) fn begins_at(&self, address: usize) -> bool {
        let offset = address.checked_sub(self.base());
        offset.is_some_and(|offset| self.index.begins_at(offset))
    }

    /// What is published, by ascending address.
    pub(super) fn symbols(&self) -> impl Iterator<Item = Symbol<'_>> {
        let published = self.index.iter().filter(|entry| entry.is_published());
        published.map(|entry| self.symbol(entry))
    }

    /// `entry` is published.
    #[expect(unsafe_code, reason = "published code is memory that can be read")]
    fn symbol<'a>(&'a self, entry: &'a Entry) -> Symbol<'a> {
        let address = self.base() + entry.offset;
        let start = std::ptr::with_exposed_provenance(address);
        Symbol {
            name: &entry.name,
            address,
            // SAFETY: the code of a published entry is mapped readable as long as the
            // region is, and nothing writes to it until then.
            bytes: unsafe { std::slice::from_raw_parts(start, entry.len()) },
        }
    }

    pub(super) fn stats(&self) -> SpaceStats {
        self.counts.read(self.capacity())
    }

    pub(super) fn order(&self) -> MutexGuard<'_, ()> {
        // A panic can't leave anything half done that the order matters for.
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
