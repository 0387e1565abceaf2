// SPDX-License-Identifier: GPL-2.0

//! What must never be. An instruction changes nothing in this model, so it is
//! not a step: in each state, everything that any CPU could execute right now
//! is tried, with every choice of cached translations.
//!
//! That also covers migration (a thread may be on any CPU that has its address
//! space loaded) and any number of threads.

use jitfd_plan::stale::{Bytes, Source, Verdict, verdict};

use crate::{
    cpu::Mode,
    memory::{Cell, FrameId, byte},
    model::Machine,
    rules::Drop,
    scenario::{CELLS, Instr},
    state::State,
};

/// What can be wrong with a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A page is executed that belongs to somebody else.
    Freed = 1,
    /// Parts of two versions are executed as one instruction, or something
    /// that was never published there.
    Torn = 2,
    /// Code that is published makes a SIGTRAP.
    FalseTrap = 4,
    /// An int3 of the program makes none.
    LostTrap = 8,
    /// A retry meets the same 0xCC again, though nobody is publishing.
    Endless = 16,
    /// An entry stays behind, so a published instruction may never be seen.
    Lost = 32,
    /// `PUBLISH_SYNC` has returned and old bytes can still be read.
    NotSync = 64,
    /// A publication interrupts CPUs though no old version of its pages waits.
    Needless = 128,
}

/// One way to look at an instruction: a mapping on a CPU.
struct Place<'a> {
    machine: &'a Machine,
    state: &'a State,
    cpu: usize,
    mapping: usize,
}

impl Machine {
    /// Everything that is wrong with `state`.
    pub fn judge(&self, state: &State) -> u8 {
        let mut wrong = self.judge_entries(state);
        for (cpu, one) in state.cpus.iter().enumerate() {
            let Mode::User(mm) = one.mode else { continue };
            for (mapping, &owner) in self.scenario.mappings.iter().enumerate() {
                if owner == usize::from(mm) {
                    let place = Place {
                        machine: self,
                        state,
                        cpu,
                        mapping,
                    };
                    wrong |= place.judge();
                }
            }
        }
        wrong
    }

    /// Every entry points to the newest version, but for one being swapped.
    fn judge_entries(&self, state: &State) -> u8 {
        let memory = &state.memory;
        let pages = memory.entries.iter().flat_map(|one| one.iter().enumerate());
        let behind = |(page, entry): (usize, &Option<crate::memory::Pte>)| {
            entry.is_some_and(|entry| memory.slots[page].is_some_and(|slot| slot != entry.frame))
                && !self.is_between(state, page)
        };
        flag(pages.into_iter().any(behind), Wrong::Lost)
    }
}

fn flag(condition: bool, wrong: Wrong) -> u8 {
    if condition { wrong as u8 } else { 0 }
}

fn frames(set: u8) -> impl Iterator<Item = FrameId> {
    (0..8).filter(move |frame| set & (1 << frame) != 0)
}

impl Place<'_> {
    fn judge(&self) -> u8 {
        let code = self.machine.scenario.code.iter().enumerate();
        code.filter(|(_, instr)| self.may_execute(instr))
            .fold(self.judge_sync(), |wrong, (number, instr)| {
                wrong | self.execute(number as u8, instr)
            })
    }

    fn has_returned(&self, publication: usize) -> bool {
        publication < self.state.turn.publication
    }

    fn may_execute(&self, instr: &Instr) -> bool {
        !instr.after_return || self.has_returned(self.machine.scenario.publication_of(instr))
    }

    fn cached(&self, page: usize) -> u8 {
        self.state.cpus[self.cpu].tlb[self.mapping][page]
    }

    fn cell(&self, frame: FrameId, at: usize) -> Cell {
        self.state.memory.frame(frame).cells[at % CELLS]
    }

    fn is_freed(&self, frame: FrameId) -> bool {
        self.state.memory.frame(frame).freed
    }

    /// Fetches the first cell by every translation there is.
    fn execute(&self, number: u8, instr: &Instr) -> u8 {
        let head = Cell::Code {
            instr: number,
            index: 0,
        };
        frames(self.cached(instr.page())).fold(0, |wrong, frame| {
            wrong
                | match self.cell(frame, instr.at) {
                    _ if self.is_freed(frame) => Wrong::Freed as u8,
                    Cell::Fill => self.trap(instr),
                    cell if cell == head => self.finish(number, instr, frame),
                    Cell::Code { .. } => Wrong::Torn as u8,
                }
        })
    }

    /// Fetches the rest, and executes.
    fn finish(&self, number: u8, instr: &Instr, first: FrameId) -> u8 {
        if instr.bytes.len() > 1 {
            let tail = Cell::Code {
                instr: number,
                index: 1,
            };
            let at = instr.at + 1;
            for frame in frames(self.second_fetch(instr, first)) {
                if self.is_freed(frame) {
                    return Wrong::Freed as u8;
                }
                if self.cell(frame, at) != tail {
                    return Wrong::Torn as u8;
                }
            }
        }
        let last = instr.at + instr.bytes.len() - 1;
        flag(
            instr.is_int3() && self.handler(last) != Verdict::Deliver,
            Wrong::LostTrap,
        )
    }

    /// The translations that the second half of a fetch may use.
    fn second_fetch(&self, instr: &Instr, first: FrameId) -> u8 {
        let page = (instr.at + 1) / CELLS;
        if page == instr.page() && !self.machine.scenario.freedom.split_fetch {
            return 1 << first;
        }
        self.cached(page)
    }

    /// The #BP handler (rule R5). A trap that it puts off is judged in a later
    /// state, as one that comes then is: what is code stays code.
    fn handler(&self, at: usize) -> Verdict {
        let rules = self.machine.rules;
        if !rules.keep(Drop::Resume) {
            return Verdict::Deliver;
        }
        if !rules.keep(Drop::Deliver) {
            return Verdict::Resume;
        }
        let before = at.checked_sub(1).filter(|_| rules.keep(Drop::TellInt3));
        verdict(Source::Authoritative(Bytes {
            before_last: before.and_then(|at| self.authoritative(at)),
            last: self.authoritative(at),
        }))
    }

    fn authoritative(&self, at: usize) -> Option<u8> {
        let cell = self.state.memory.authoritative(at)?;
        Some(byte(&self.machine.scenario.code, cell))
    }

    /// A 0xCC was met where `instr` starts, or is to start.
    fn trap(&self, instr: &Instr) -> u8 {
        if instr.bytes == [0xcc] {
            return flag(self.handler(instr.at) != Verdict::Deliver, Wrong::LostTrap);
        }
        match self.handler(instr.at) {
            Verdict::Deliver => flag(self.is_visible(instr), Wrong::FalseTrap),
            Verdict::Resume => {
                flag(!self.is_authoritative(instr), Wrong::LostTrap) | self.retry(instr)
            }
            Verdict::Later => unreachable!("no mapping is being changed while a trap is judged"),
        }
    }

    fn is_authoritative(&self, instr: &Instr) -> bool {
        let cell = self.state.memory.authoritative(instr.at);
        cell.is_some_and(|cell| cell != Cell::Fill)
    }

    /// Whether some CPU can have executed it: then nobody may be told that it
    /// is not there.
    fn is_visible(&self, instr: &Instr) -> bool {
        let entries = self.state.memory.entries.iter();
        let mapped = entries
            .filter_map(|entries| entries[instr.page()])
            .any(|entry| self.cell(entry.frame, instr.at) != Cell::Fill);
        mapped || self.is_authoritative(instr)
    }

    /// The handler has flushed the address and stepped back: the next fetch
    /// walks the page tables, or faults.
    fn retry(&self, instr: &Instr) -> u8 {
        let page = instr.page();
        if self.machine.is_between(self.state, page) {
            return 0;
        }
        let memory = &self.state.memory;
        let entry = memory.entries[self.mapping][page].map(|entry| entry.frame);
        let fetched = if self.machine.rules.keep(Drop::FlushBeforeRetry) {
            entry.or(memory.slots[page]).map_or(0, |frame| 1 << frame)
        } else {
            self.cached(page)
        };
        let meets_fill = |frame: FrameId| self.cell(frame, instr.at) == Cell::Fill;
        flag(frames(fetched).any(meets_fill), Wrong::Endless)
    }

    /// The promise of `PUBLISH_SYNC`, data included.
    fn judge_sync(&self) -> u8 {
        let publications = self.machine.scenario.publications.iter().enumerate();
        let broken = publications
            .filter(|(number, publication)| publication.sync && self.has_returned(*number))
            .flat_map(|(_, publication)| publication.spans.iter())
            .flat_map(|&(start, len)| start..start + len)
            .any(|at| {
                frames(self.cached(at / CELLS)).any(|frame| self.cell(frame, at) == Cell::Fill)
            });
        flag(broken, Wrong::NotSync)
    }
}
