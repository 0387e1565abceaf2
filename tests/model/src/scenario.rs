// SPDX-License-Identifier: GPL-2.0

//! What one run explores: the code that is published, where it is mapped, and
//! what CPUs and the kernel may do meanwhile. These are the bounds.

use jitfd_plan::{abi::PAGE_SIZE, span::Span};

/// Pages of the region.
pub const PAGES: usize = 2;
/// Cells of a page. A cell stands for the bytes of one quarter of a page, so
/// that the spans of the model are spans of `plan`.
pub const CELLS: usize = 4;
/// Bytes of a cell.
pub const CELL: u64 = (PAGE_SIZE / CELLS) as u64;

/// One instruction: one or two cells, each with a byte.
#[derive(Clone, Debug)]
pub struct Instr {
    /// Its first cell, counted from the start of the region.
    pub at: usize,
    /// Its bytes, a cell each.
    pub bytes: Vec<u8>,
    /// It is executed only after its publication has returned. If not set, it
    /// may be executed at any time, also before it is published.
    pub after_return: bool,
}

impl Instr {
    /// The page of its first cell.
    pub fn page(&self) -> usize {
        self.at / CELLS
    }

    /// Whether the instruction is an int3 of the program, in either form.
    pub fn is_int3(&self) -> bool {
        matches!(self.bytes.as_slice(), [0xcc] | [0xcd, 0x03])
    }
}

/// One publication.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Its spans, sorted, in cells: first and count.
    pub spans: Vec<(usize, usize)>,
    /// `PUBLISH_SYNC`.
    pub sync: bool,
}

impl Publication {
    /// The spans in bytes, as the module has them.
    pub fn to_plan(&self) -> Vec<Span> {
        let span = |&(start, len): &(usize, usize)| Span {
            start: start as u64 * CELL,
            len: len as u64 * CELL,
        };
        self.spans.iter().map(span).collect()
    }

    /// Whether cell `at` is one of its.
    pub fn covers(&self, at: usize) -> bool {
        self.spans
            .iter()
            .any(|&(start, len)| (start..start + len).contains(&at))
    }
}

/// What CPUs may do, beside executing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Freedom {
    /// Switch to an address space.
    pub switch: bool,
    /// Run a kernel thread in the address space that is loaded.
    pub lazy: bool,
    /// Switch to the kernel's own address space, and be taken out of the masks
    /// of others.
    pub kernel: bool,
    /// Go offline and come back.
    pub hotplug: bool,
    /// How often a mapping may be removed and made again.
    pub remaps: u8,
    /// An instruction inside one page may be fetched by two translations.
    pub split_fetch: bool,
}

/// The bounds of one run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name in the report.
    pub name: &'static str,
    /// Number of CPUs.
    pub cpus: usize,
    /// The address space of each mapping.
    pub mappings: Vec<usize>,
    /// All instructions.
    pub code: Vec<Instr>,
    /// All publications, in the order of their turns. Publishers are
    /// serialised by the turn, so this is any number of them.
    pub publications: Vec<Publication>,
    /// What else happens.
    pub freedom: Freedom,
}

impl Scenario {
    /// Number of address spaces.
    pub fn mms(&self) -> usize {
        self.mappings.iter().max().map_or(0, |last| last + 1)
    }

    /// The publication of an instruction.
    pub fn publication_of(&self, instr: &Instr) -> usize {
        let all = &self.publications;
        all.iter()
            .position(|publication| publication.covers(instr.at))
            .unwrap_or(all.len())
    }
}
