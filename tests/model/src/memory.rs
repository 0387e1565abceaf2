// SPDX-License-Identifier: GPL-2.0

//! Page frames and what is in them, the authoritative slots, and the page-table
//! entries of each mapping.

use jitfd_plan::{ledger::Ticket, lifecycle::PageState};

use crate::scenario::{CELLS, Instr, PAGES, Scenario};

/// The content of a cell: nothing published (0xCC), somebody else's data, or
/// cell `index` of instruction `instr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cell {
    /// 0xCC.
    Fill,
    /// A part of an instruction.
    Code {
        /// Which.
        instr: u8,
        /// Which cell of it.
        index: u8,
    },
}

/// The byte of a cell.
pub fn byte(code: &[Instr], cell: Cell) -> u8 {
    match cell {
        Cell::Fill => jitfd_plan::abi::FILL,
        Cell::Code { instr, index } => code[instr as usize].bytes[index as usize],
    }
}

/// One page frame: a version of a page. Never used again once it is freed, so
/// that whoever executes it then is seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Which page of the region it is a version of.
    pub page: usize,
    /// Its content.
    pub cells: [Cell; CELLS],
    /// A page-table entry has pointed to it.
    pub seen: bool,
    /// It belongs to somebody else now.
    pub freed: bool,
    /// The module's `Version::replaced`: of the last publication that replaced a
    /// version of this page which a CPU had used. Kept for the newest only.
    pub replaced: Ticket,
}

/// A frame's number. At most eight, so that a set of them is a byte.
pub type FrameId = u8;

/// A present page-table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pte {
    /// Where it points.
    pub frame: FrameId,
    /// A CPU has used it.
    pub accessed: bool,
}

impl Pte {
    /// One that nobody has used.
    pub fn fresh(frame: FrameId) -> Self {
        Pte {
            frame,
            accessed: false,
        }
    }
}

/// All of memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Memory {
    /// Frames, by number.
    pub frames: Vec<Frame>,
    /// The newest version of each page.
    pub slots: [Option<FrameId>; PAGES],
    /// The entries of each mapping.
    pub entries: Vec<[Option<Pte>; PAGES]>,
    /// Mappings whose entries were cleared and not flushed yet.
    pub zapped: Vec<bool>,
}

impl Memory {
    /// Nothing published, nothing mapped.
    pub fn new(scenario: &Scenario) -> Self {
        Memory {
            frames: Vec::new(),
            slots: [None; PAGES],
            entries: vec![[None; PAGES]; scenario.mappings.len()],
            zapped: vec![false; scenario.mappings.len()],
        }
    }

    /// A new version of `page` with this content.
    pub fn allocate(&mut self, page: usize, cells: [Cell; CELLS]) -> FrameId {
        assert!(self.frames.len() < 8, "the scenario needs too many frames");
        self.frames.push(Frame {
            page,
            cells,
            seen: false,
            freed: false,
            replaced: 0,
        });
        (self.frames.len() - 1) as FrameId
    }

    /// A frame.
    pub fn frame(&self, id: FrameId) -> &Frame {
        &self.frames[id as usize]
    }

    /// Where there are entries: mapping and page.
    pub fn mapped(&self) -> impl Iterator<Item = (usize, usize)> {
        let mappings = self.entries.iter().enumerate();
        mappings.flat_map(|(mapping, entries)| {
            let present = entries
                .iter()
                .enumerate()
                .filter(|(_, entry)| entry.is_some());
            present.map(move |(page, _)| (mapping, page))
        })
    }

    /// What the world can have seen of a page: as the module's `state_of`.
    pub fn state(&self, page: usize) -> PageState {
        match self.slots[page] {
            None => PageState::Absent,
            Some(frame) if self.frame(frame).seen => PageState::Live,
            Some(_) => PageState::Unseen,
        }
    }

    /// The authoritative content of a cell of the region.
    pub fn authoritative(&self, at: usize) -> Option<Cell> {
        let frame = (*self.slots.get(at / CELLS)?)?;
        Some(self.frame(frame).cells[at % CELLS])
    }

    /// The ticket of the newest version of a page.
    pub fn replaced(&self, page: usize) -> Ticket {
        let newest = self.slots.get(page).copied().flatten();
        newest.map_or(0, |frame| self.frame(frame).replaced)
    }

    /// Gives a frame to somebody else.
    pub fn free(&mut self, frame: FrameId) {
        let frame = &mut self.frames[frame as usize];
        frame.freed = true;
        // What was in it makes no difference any more.
        frame.cells = [Cell::Fill; CELLS];
    }
}
