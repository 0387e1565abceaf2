// SPDX-License-Identifier: GPL-2.0
//! What the model knows: descriptors, open files, regions, the arena.

use super::arena::{Arena, Cell};
use super::call::{At, CLIFF_BYTE, FOREIGN, SLOTS, Source};
use super::region::Region;
use crate::suite::sys::PAGE;

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    pub mode: i32,
    pub role: Role,
}

/// Which of the two handles a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `/dev/jit`, and its region if it has become one.
    Device(Option<usize>),
    Append(usize),
}

/// The module's parameters that bound one user.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub pages: usize,
    pub regions: usize,
}

/// Whether a call fails because of a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    Never,
    /// What was given up may count for a while.
    Maybe,
    Always,
}

/// A bound on pages that the fuzzer never comes near.
const FAR_AWAY: usize = 1 << 18;
/// The same of regions.
const FAR_AWAY_REGIONS: usize = 1 << 10;

/// The state of everything, as it should be.
#[derive(Clone)]
pub struct World {
    pub slots: [Option<usize>; SLOTS],
    /// By number.
    pub files: Vec<File>,
    pub regions: Vec<Region>,
    pub arena: Arena,
    pub limits: Limits,
    /// Whether this is the process that made the regions.
    pub owner: bool,
}

impl World {
    pub fn new(limits: Limits) -> Self {
        World {
            slots: [None; SLOTS],
            files: Vec::new(),
            regions: Vec::new(),
            arena: Arena::new(),
            limits,
            owner: true,
        }
    }

    /// The file of a slot, or EBADF, or ENOTTY for what is none of ours.
    pub fn file(&self, slot: usize) -> Result<File, i32> {
        if FOREIGN.contains(&slot) {
            return Err(libc::ENOTTY);
        }
        self.slots[slot]
            .map(|file| self.files[file])
            .ok_or(libc::EBADF)
    }

    /// The region of an append handle.
    pub fn append(&self, slot: usize) -> Result<usize, i32> {
        match self.file(slot)?.role {
            Role::Append(region) => Ok(region),
            Role::Device(_) => Err(libc::ENOTTY),
        }
    }

    /// The region of a device handle, if it is one.
    pub fn device(&self, slot: usize) -> Result<Option<usize>, i32> {
        match self.file(slot)?.role {
            Role::Device(region) => Ok(region),
            Role::Append(_) => Err(libc::ENOTTY),
        }
    }

    /// The region that either handle shows.
    pub fn shown(&self, slot: usize) -> Result<usize, i32> {
        match self.file(slot)?.role {
            Role::Append(region) | Role::Device(Some(region)) => Ok(region),
            Role::Device(None) => Err(libc::ENODATA),
        }
    }

    pub fn slots_where(&self, wanted: impl Fn(&File) -> bool) -> Vec<usize> {
        let is = |slot: &usize| self.slots[*slot].is_some_and(|file| wanted(&self.files[file]));
        (0..SLOTS).filter(is).collect()
    }

    pub fn free_slots(&self) -> Vec<usize> {
        (0..SLOTS)
            .filter(|&slot| self.slots[slot].is_none())
            .collect()
    }

    pub fn pages_where(&self, wanted: impl Fn(&Cell) -> bool) -> Vec<usize> {
        let cells = self.arena.cells.iter().enumerate();
        cells
            .filter(|(_, cell)| wanted(cell))
            .map(|(page, _)| page)
            .collect()
    }

    /// Whether `CREATE_CODE_FIXED` may take its place: memory, or an earlier code.
    pub fn is_replaceable(&self, cell: &Cell) -> bool {
        match cell {
            Cell::Hole => false,
            Cell::Memory { .. } => true,
            Cell::Code(mapped) => self.regions[mapped.region].created,
        }
    }

    /// Whether something still keeps the region.
    pub fn is_alive(&self, region: usize) -> bool {
        let by_file = |file: usize| match self.files[file].role {
            Role::Append(of) => of == region,
            Role::Device(of) => of == Some(region),
        };
        self.slots.iter().flatten().any(|&file| by_file(file))
            || self.arena.cells.iter().any(|cell| match cell {
                Cell::Code(mapped) => mapped.region == region || by_file(mapped.file),
                _ => false,
            })
    }

    /// A number for a new region: of one that is gone, or the next.
    pub fn add_region(&mut self, region: Region) -> usize {
        self.sweep();
        match self.regions.iter().position(|old| old.pages() == 0) {
            Some(number) => {
                self.regions[number] = region;
                number
            }
            None => {
                self.regions.push(region);
                self.regions.len() - 1
            }
        }
    }

    /// A number for a new file: of one that is gone, or the next.
    pub fn add_file(&mut self, file: File) -> usize {
        match (0..self.files.len()).find(|&old| !self.is_used(old)) {
            Some(number) => {
                self.files[number] = file;
                number
            }
            None => {
                self.files.push(file);
                self.files.len() - 1
            }
        }
    }

    fn is_used(&self, file: usize) -> bool {
        let maps = |cell: &Cell| matches!(cell, Cell::Code(mapped) if mapped.file == file);
        self.slots.contains(&Some(file)) || self.arena.cells.iter().any(maps)
    }

    /// Forgets the content of regions that are gone.
    pub fn sweep(&mut self) {
        for region in 0..self.regions.len() {
            if self.regions[region].pages() > 0 && !self.is_alive(region) {
                self.regions[region] = Region::new(0, false);
            }
        }
    }

    fn alive(&self) -> impl Iterator<Item = &Region> {
        self.regions.iter().filter(|region| region.pages() > 0)
    }

    /// Whether one more region is too many.
    pub fn region_quota(&self) -> Quota {
        let alive = self.alive().count();
        if alive >= self.limits.regions {
            return Quota::Always;
        }
        // Regions that are gone may count for a moment, while their pages wait.
        match self.limits.regions >= FAR_AWAY_REGIONS {
            true => Quota::Never,
            false => Quota::Maybe,
        }
    }

    /// Whether a bound on pages may be met.
    pub fn is_bounded(&self) -> bool {
        self.limits.pages < FAR_AWAY
    }

    /// Whether `more` pages are too many.
    pub fn page_quota(&self, more: usize) -> Quota {
        if more > self.limits.pages {
            return Quota::Always;
        }
        // Spare pages, replaced ones that wait and those of regions that are gone
        // count too: only a bound that is far away is surely not met.
        match self.is_bounded() {
            true => Quota::Maybe,
            false => Quota::Never,
        }
    }

    /// Whether an argument at `at` can be read.
    pub fn check_argument(at: At) -> Result<(), i32> {
        match at {
            At::Memory | At::ReadOnlyMemory => Ok(()),
            At::Cliff | At::Nowhere(_) => Err(libc::EFAULT),
        }
    }

    /// The address of a source, as far as the checks of arguments go.
    pub fn overflows(source: Source, len: u64) -> bool {
        matches!(source, Source::Nowhere(addr) if addr.checked_add(len).is_none())
    }

    /// The bytes of a source, or EFAULT. `None`: loads may still see old ones.
    pub fn bytes(&self, payload: &[u8], source: Source, len: u64) -> Result<Option<Vec<u8>>, i32> {
        let len = usize::try_from(len).map_err(|_| libc::EFAULT)?;
        match source {
            Source::Nowhere(_) => Err(libc::EFAULT),
            Source::Cliff(before) if len > before => Err(libc::EFAULT),
            Source::Cliff(_) => Ok(Some(vec![CLIFF_BYTE; len])),
            Source::Payload(start) => Ok(Some(payload[start..start + len].to_vec())),
            Source::Arena(start) => self.arena_bytes(start, len),
        }
    }

    fn arena_bytes(&self, start: usize, len: usize) -> Result<Option<Vec<u8>>, i32> {
        let mut bytes = Vec::with_capacity(len);
        let mut certain = true;
        let mut at = start;
        while at < start + len {
            let end = (start + len).min((at / PAGE + 1) * PAGE);
            match self.arena.cells.get(at / PAGE) {
                Some(&Cell::Memory { byte, prot }) if prot & libc::PROT_READ != 0 => {
                    bytes.resize(end - start, byte);
                }
                Some(Cell::Code(mapped)) if mapped.prot & libc::PROT_READ != 0 => {
                    let region = &self.regions[mapped.region];
                    if !region.live[mapped.page] {
                        return Err(libc::EFAULT);
                    }
                    let from = mapped.page * PAGE + at % PAGE;
                    let range = from..from + (end - at);
                    certain &= !region.soft[range.clone()].contains(&true);
                    bytes.extend_from_slice(&region.bytes[range]);
                }
                _ => return Err(libc::EFAULT),
            }
            at = end;
        }
        Ok(certain.then_some(bytes))
    }
}

impl Limits {
    /// Those of a module that was loaded with these parameters.
    pub fn parse(parameters: &str) -> Self {
        let value = |name: &str, default| {
            parameters
                .split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
                .unwrap_or(default)
        };
        Limits {
            pages: value("user_pages", 1 << 20),
            regions: value("user_regions", 1 << 16),
        }
    }
}
