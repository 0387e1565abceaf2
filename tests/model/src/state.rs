// SPDX-License-Identifier: GPL-2.0

//! One state of the whole machine, and the words it is made of.

use jitfd_plan::{ledger::CpuSet, lifecycle::Swapped};

use crate::{
    cpu::{Cpu, Mode},
    memory::{FrameId, Memory},
    scenario::Scenario,
};

/// A set of CPUs, as the module has it.
pub type Cpus = CpuSet<1>;

/// Replaced pages, and the CPUs that may hold translations to them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    /// The pages: a set of bits.
    pub frames: u8,
    /// The CPUs.
    pub cpus: Cpus,
}

/// The module's `retire.rs`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reclaim {
    /// What publications add to.
    pub open: Batch,
    /// What waits for its CPUs.
    pub closing: Batch,
    /// The number of the closing batch.
    pub epoch: u8,
}

impl Reclaim {
    /// Whether some replaced page is not freed yet: the region's `pending()`.
    pub fn is_pending(&self) -> bool {
        self.open.frames | self.closing.frames != 0
    }
}

/// How far the swap of one page has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Swap {
    /// The new version.
    pub new: FrameId,
    /// The one before.
    pub old: FrameId,
    /// The mapping at hand.
    pub mapping: usize,
    /// What was found so far.
    pub found: Swapped,
}

/// Where a publication stands. Each of its steps is one step of the model. The
/// first number is the index of a page in the order of publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The next publication, if there is one, has not begun.
    Start,
    /// Whether to flush before the page, and the look at its state.
    Page(usize),
    /// Waits for the CPUs interrupted before the page: a set of bits.
    FlushBefore(usize, u8),
    /// Makes a version and puts it into the slot. The state was seen before.
    Write(usize, jitfd_plan::lifecycle::PageState),
    /// A mutation only: writes cell after cell of a mapped page.
    Scribble(usize, usize),
    /// Swaps the entry of one mapping.
    Exchange(usize, Swap),
    /// Bumps the generation of that mapping's address space.
    Bump(usize, Swap),
    /// Reads the CPU mask.
    Mask(usize, Swap),
    /// Gives the old version up.
    GiveUp(usize, Swap),
    /// Whether to flush after the last page.
    End,
    /// Waits for the CPUs interrupted: a set of bits.
    FlushAfter(u8),
    /// Hands the replaced pages over.
    Retire,
}

/// The publication under way: the module's `Turn` and locals of `commit()`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Turn {
    /// Its number, which is the number of those that have returned.
    pub publication: usize,
    /// Where it stands.
    pub phase: Phase,
    /// CPUs that may hold entries that were replaced.
    pub cpus: Cpus,
    /// A TLB may hold an old version of a page of this publication.
    pub stale: bool,
    /// What became of the page after the one at hand.
    pub next: Option<(u64, Swapped)>,
    /// Replaced pages, to be retired: a set of bits.
    pub retired: u8,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Memory and page tables.
    pub memory: Memory,
    /// CPUs.
    pub cpus: Vec<Cpu>,
    /// `mm_cpumask` of each address space: a set of bits.
    pub masks: Vec<u8>,
    /// The publication under way.
    pub turn: Turn,
    /// Replaced pages.
    pub reclaim: Reclaim,
    /// How often a mapping may yet be removed and made again.
    pub remaps: u8,
    /// What is wrong with this state: a set of [`crate::judge::Wrong`].
    pub wrong: u8,
}

impl State {
    /// Nothing is published; CPU n executes in address space n, if there is
    /// one, else in the last.
    pub fn new(scenario: &Scenario) -> Self {
        let none = Cpus::new(scenario.cpus);
        let batch = Batch {
            frames: 0,
            cpus: none.clone(),
        };
        let mms = scenario.mms();
        let mut masks = vec![0; mms];
        let mut cpus = Vec::new();
        for cpu in 0..scenario.cpus {
            let mm = cpu.min(mms - 1);
            masks[mm] |= 1 << cpu;
            cpus.push(Cpu::new(Mode::User(mm as u8), scenario.mappings.len()));
        }
        State {
            memory: Memory::new(scenario),
            cpus,
            masks,
            turn: Turn {
                publication: 0,
                phase: Phase::Start,
                cpus: none,
                stale: false,
                next: None,
                retired: 0,
            },
            reclaim: Reclaim {
                open: batch.clone(),
                closing: batch,
                epoch: 0,
            },
            remaps: scenario.freedom.remaps,
            wrong: 0,
        }
    }
}
