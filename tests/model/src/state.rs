// SPDX-License-Identifier: GPL-2.0

//! One state of the whole machine, and the words it is made of.

use jitfd_plan::{
    ledger::{Ticket, Wait},
    lifecycle::{PageState, Swapped},
};

use crate::{
    cpu::{Cpu, Mode},
    memory::{FrameId, Memory},
    scenario::Scenario,
    tlb::Cpus,
};

/// The pages that one publication has replaced, while they wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Waiting {
    /// The pages: a set of bits.
    pub frames: u8,
    /// What for.
    pub wait: Wait,
}

/// The module's `waiting.rs` and `reclaim.rs`: the region's queue, and the epochs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reclaim {
    /// The queue, in the order of tickets. What is over is not in it: whoever
    /// looks for it may be as early as this.
    pub queue: Vec<Waiting>,
    /// The last ticket that was drawn.
    pub last: Ticket,
    /// The last ticket before a flush of the region's own.
    pub flushed: Ticket,
    /// `OPEN`: CPUs that the next epoch has to wait for.
    pub open: Cpus,
    /// `OPEN.is_wanted`.
    pub is_wanted: bool,
    /// `STARTED`.
    pub started: i64,
    /// `COMPLETED`.
    pub completed: i64,
    /// The epoch in flight: CPUs that it waits for.
    pub flight: Option<Cpus>,
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

/// What comes after a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// The first page.
    First,
    /// The page with this index.
    Write(usize),
    /// The end.
    Retire,
}

/// Where a publication stands. Each of its steps is one step of the model; what
/// nobody else can see belongs to the step before. The first number is the index
/// of a page in the order of publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The next publication, if there is one, has not begun.
    Start,
    /// Waits for the CPUs of `Stale::before`.
    Flush(Next),
    /// Makes a version and puts it into the slot. The state was seen before.
    Write(usize, PageState),
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
    /// Hands the replaced pages over.
    Retire,
}

/// The publication under way: what the module's turn guards, and the locals of
/// `commit()`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Turn {
    /// Its number, which is the number of those that have returned.
    pub publication: usize,
    /// Where it stands.
    pub phase: Phase,
    /// CPUs that may hold entries that it has replaced.
    pub now: Cpus,
    /// CPUs that may hold entries that earlier ones have replaced.
    pub before: Cpus,
    /// A TLB may hold an old version of a page of this publication.
    pub stale: bool,
    /// What became of the page after the one at hand.
    pub next: Option<(u64, Swapped)>,
    /// Replaced pages, to be retired: a set of bits.
    pub retired: u8,
    /// A mutation only: the epoch that was drawn too early.
    pub early: Option<i64>,
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
    /// How many epochs other regions may yet ask for.
    pub epochs: u8,
    /// What is wrong with this state: a set of [`crate::judge::Wrong`].
    pub wrong: u8,
}

impl Turn {
    fn new(none: &Cpus) -> Self {
        Turn {
            publication: 0,
            phase: Phase::Start,
            now: none.clone(),
            before: none.clone(),
            stale: false,
            next: None,
            retired: 0,
            early: None,
        }
    }
}

impl Reclaim {
    fn new(none: &Cpus) -> Self {
        Reclaim {
            queue: Vec::new(),
            last: 0,
            flushed: 0,
            open: none.clone(),
            is_wanted: false,
            started: 0,
            completed: 0,
            flight: None,
        }
    }
}

impl State {
    /// Nothing is published; CPU n executes in address space n, if the region is
    /// mapped there, else in the last where it is.
    pub fn new(scenario: &Scenario) -> Self {
        let none = Cpus::none(scenario.cpus);
        let mms = scenario.mms();
        let mut masks = vec![0; mms];
        let mut cpus = Vec::new();
        for cpu in 0..scenario.cpus {
            let mm = cpu.min(mms - scenario.others - 1);
            masks[mm] |= 1 << cpu;
            cpus.push(Cpu::new(Mode::User(mm as u8), scenario.mappings.len()));
        }
        State {
            memory: Memory::new(scenario),
            cpus,
            masks,
            turn: Turn::new(&none),
            reclaim: Reclaim::new(&none),
            remaps: scenario.freedom.remaps,
            epochs: scenario.freedom.epochs,
            wrong: 0,
        }
    }
}
