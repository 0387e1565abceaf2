// SPDX-License-Identifier: GPL-2.0
//! The model of a part of the address space, page by page.

use super::call::{ARENA, Remap};

/// What is on one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    Hole,
    /// Private memory, each byte the same.
    Memory {
        byte: u8,
        prot: i32,
    },
    Code(Mapped),
}

/// A page of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    pub region: usize,
    pub file: usize,
    /// The page of the region.
    pub page: usize,
    pub prot: i32,
    pub in_child: bool,
    /// Neighbours of the same number are one mapping to the kernel, which never
    /// merges mappings of code.
    pub area: u64,
}

/// The pages of the arena.
#[derive(Clone)]
pub struct Arena {
    pub cells: [Cell; ARENA],
    next_area: u64,
}

impl Arena {
    pub fn new() -> Self {
        Arena {
            cells: [Cell::Hole; ARENA],
            next_area: 1,
        }
    }

    fn new_area(&mut self) -> u64 {
        self.next_area += 1;
        self.next_area
    }

    pub fn range(&self, page: usize, pages: usize) -> &[Cell] {
        &self.cells[page..page + pages]
    }

    pub fn fill(&mut self, page: usize, pages: usize, cell: Cell) {
        self.cells[page..page + pages].fill(cell);
    }

    /// Maps `pages` pages of a region, from `first` on.
    pub fn map(&mut self, page: usize, pages: usize, first: Mapped) {
        let area = self.new_area();
        for index in 0..pages {
            self.cells[page + index] = Cell::Code(Mapped {
                page: first.page + index,
                area,
                ..first
            });
        }
    }

    /// Whether the page continues the mapping of the one before it.
    fn continues(&self, page: usize) -> bool {
        let Some(before) = page.checked_sub(1) else {
            return false;
        };
        match (self.cells[before], self.cells[page]) {
            (Cell::Code(one), Cell::Code(other)) => one.area == other.area,
            _ => false,
        }
    }

    /// The end of the mapping that has the page.
    fn area_end(&self, page: usize) -> usize {
        let rest = page + 1..ARENA;
        rest.into_iter()
            .find(|&next| !self.continues(next))
            .unwrap_or(ARENA)
    }

    /// Makes the parts of mappings in a range mappings of their own.
    fn split(&mut self, page: usize, pages: usize) {
        let starts: Vec<bool> = (page..page + pages)
            .map(|at| at == page || !self.continues(at))
            .collect();
        let mut area = self.next_area;
        for (at, starts) in (page..).zip(starts) {
            if starts {
                area = self.new_area();
            }
            if let Cell::Code(mapped) = &mut self.cells[at] {
                mapped.area = area;
            }
        }
    }

    /// mprotect(): goes on until the first page that refuses.
    pub fn protect(&mut self, page: usize, pages: usize, prot: i32) -> Result<(), i32> {
        for at in page..page + pages {
            match self.cells[at] {
                Cell::Hole => return Err(libc::ENOMEM),
                Cell::Memory { byte, .. } => self.cells[at] = Cell::Memory { byte, prot },
                Cell::Code(_) if prot & libc::PROT_WRITE != 0 => return Err(libc::EACCES),
                Cell::Code(mapped) => self.protect_code(at, page + pages, mapped, prot),
            }
        }
        Ok(())
    }

    /// One page of a mapping; at its first one the mapping is split.
    fn protect_code(&mut self, at: usize, end: usize, mapped: Mapped, prot: i32) {
        if mapped.prot == prot {
            return;
        }
        let count = self.area_end(at).min(end) - at;
        self.split(at, count);
        for cell in &mut self.cells[at..at + count] {
            if let Cell::Code(mapped) = cell {
                mapped.prot = prot;
            }
        }
    }

    /// MADV_DONTFORK: all that is mapped there, then ENOMEM for holes.
    pub fn keep_from_children(&mut self, page: usize, pages: usize) -> Result<(), i32> {
        for at in page..page + pages {
            if let Cell::Code(Mapped { in_child: true, .. }) = self.cells[at] {
                let count = self.area_end(at).min(page + pages) - at;
                self.split(at, count);
                for cell in &mut self.cells[at..at + count] {
                    if let Cell::Code(mapped) = cell {
                        mapped.in_child = false;
                    }
                }
            }
        }
        match self.range(page, pages).contains(&Cell::Hole) {
            true => Err(libc::ENOMEM),
            false => Ok(()),
        }
    }

    /// mremap(). The first page is no memory unless the call only moves.
    pub fn remap(&mut self, call: Remap) -> Result<(), i32> {
        let implies_place = call.flags & (libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP) != 0;
        check_remap(call, implies_place)?;
        if call.flags & libc::MREMAP_FIXED != 0 && call.old == call.new {
            return self.move_all(call);
        }
        if self.cells[call.page] == Cell::Hole {
            return Err(libc::EFAULT);
        }
        if implies_place || call.new > call.old {
            self.check_resize(call)?;
        }
        self.resize(call, implies_place);
        Ok(())
    }

    /// Moves every mapping in the range, and leaves holes as they are.
    fn move_all(&mut self, call: Remap) -> Result<(), i32> {
        if self.cells[call.page] == Cell::Hole {
            return Err(libc::EFAULT);
        }
        if call.flags & libc::MREMAP_DONTUNMAP != 0 {
            return Err(libc::EINVAL);
        }
        self.split(call.page, call.old);
        for index in 0..call.old {
            let cell = self.cells[call.page + index];
            if cell != Cell::Hole {
                self.cells[call.to + index] = cell;
                self.cells[call.page + index] = Cell::Hole;
            }
        }
        Ok(())
    }

    /// What refuses a new size or a new place of one mapping of code.
    fn check_resize(&self, call: Remap) -> Result<(), i32> {
        if call.flags & libc::MREMAP_DONTUNMAP != 0 {
            return Err(libc::EINVAL);
        }
        let needed = call.old.min(call.new);
        if call.new > call.old || needed > self.area_end(call.page) - call.page {
            return Err(libc::EFAULT);
        }
        Ok(())
    }

    fn resize(&mut self, call: Remap, implies_place: bool) {
        let kept = call.old.min(call.new);
        self.fill(call.page + kept, call.old - kept, Cell::Hole);
        if implies_place {
            self.split(call.page, kept);
            for index in 0..kept {
                self.cells[call.to + index] = self.cells[call.page + index];
                self.cells[call.page + index] = Cell::Hole;
            }
        }
    }

    /// Mappings of code: first page, pages, protection, page of the region.
    pub fn areas(&self) -> Vec<(usize, usize, Mapped)> {
        let mut areas = Vec::new();
        let mut page = 0;
        while page < ARENA {
            let end = self.area_end(page);
            if let Cell::Code(mapped) = self.cells[page] {
                areas.push((page, end - page, mapped));
            }
            page = end;
        }
        areas
    }
}

/// What mremap() refuses without a look at what is mapped.
fn check_remap(call: Remap, implies_place: bool) -> Result<(), i32> {
    let known = libc::MREMAP_FIXED | libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
    if call.flags & !known != 0 || call.new == 0 {
        return Err(libc::EINVAL);
    }
    if !implies_place {
        return Ok(());
    }
    let resized = call.flags & libc::MREMAP_DONTUNMAP != 0 && call.old != call.new;
    let overlaps = call.page + call.old > call.to && call.to + call.new > call.page;
    if call.flags & libc::MREMAP_MAYMOVE == 0 || resized || overlaps {
        return Err(libc::EINVAL);
    }
    Ok(())
}
