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

    /// Whether a byte `wanted` ends one of its spans, by `byte_at`.
    pub fn ends_in(&self, wanted: u8, byte_at: impl Fn(usize) -> u8) -> bool {
        self.spans
            .iter()
            .any(|&(start, len)| byte_at(start + len - 1) == wanted)
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
    /// Execute another program: for a moment the old address space is still loaded
    /// and the new one is `active_mm`, by which CPUs are spared.
    pub exec: bool,
    /// How often a mapping may be removed and made again.
    pub remaps: u8,
    /// How many epochs other regions may ask for.
    pub epochs: u8,
    /// An instruction inside one page may be fetched by two translations.
    pub split_fetch: bool,
    /// Each CPU caches what it likes, not all that it may ([`crate::reduce`]).
    pub reluctant: bool,
}

/// The Accessed bit: what the processor does, and what the module thinks.
#[derive(Clone, Copy, Debug)]
pub struct Accessed {
    /// A CPU sets it before it caches an entry. If not, it may set it later, in
    /// whatever the entry is by then, or never.
    pub is_set_first: bool,
    /// The module's parameter `accessed_bit`: whether an entry with a clear bit
    /// was never cached.
    pub is_trusted: bool,
}

impl Default for Accessed {
    /// What Intel promises, and the module relies on there.
    fn default() -> Self {
        Accessed {
            is_set_first: true,
            is_trusted: true,
        }
    }
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
    /// Address spaces beside these, which map nothing of the region.
    pub others: usize,
    /// All instructions.
    pub code: Vec<Instr>,
    /// All publications, in the order of their turns. Publishers are
    /// serialised by the turn, so this is any number of them.
    pub publications: Vec<Publication>,
    /// What else happens.
    pub freedom: Freedom,
    /// What there is to know from a clear Accessed bit.
    pub accessed: Accessed,
    /// The module's parameter `retired_region`: pages that may wait.
    pub bound: usize,
}

impl Scenario {
    /// Number of address spaces.
    pub fn mms(&self) -> usize {
        self.mappings.iter().max().map_or(0, |last| last + 1) + self.others
    }

    /// Whether the region is mapped in `mm`.
    pub fn maps(&self, mm: u8) -> bool {
        self.mappings.contains(&usize::from(mm))
    }

    /// Whether a CPU can be anywhere but in the address space that it began in.
    pub fn cpus_move(&self) -> bool {
        self.freedom.switch || self.freedom.kernel
    }

    /// The publication of an instruction.
    pub fn publication_of(&self, instr: &Instr) -> usize {
        let all = &self.publications;
        all.iter()
            .position(|publication| publication.covers(instr.at))
            .unwrap_or(all.len())
    }
}
