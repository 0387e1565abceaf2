// SPDX-License-Identifier: GPL-2.0

//! What keeps the number of states small, and why nothing is lost by it.
//!
//! * A CPU caches at once all that it may. Nobody decides by what a TLB holds,
//!   and whatever is wrong with a state is wrong with one in which a TLB holds
//!   more; so the fullest TLBs find everything. What is decided by is whether an
//!   entry was used: the first walk, which sets its Accessed bit, is a step and
//!   may come at any time. If hardware may cache without it, all entries are
//!   cached at once, and the bit is set at any time, or never.
//! * What can make no difference any more is forgotten.
//! * CPUs are alike, so two states that differ in their numbers are one.
//!
//! `tests/reduction.rs` compares with runs in which each CPU caches what it likes
//! and has its number.

use crate::{
    cpu::Cpu,
    model::Machine,
    rules::Drop,
    state::{Phase, State},
    tlb::Cpus,
};

impl Machine {
    /// All CPUs cache what they may.
    pub fn fill(&self, state: &mut State) {
        if self.scenario.freedom.reluctant {
            return;
        }
        let memory = &state.memory;
        for cpu in &mut state.cpus {
            let Some(mm) = cpu.mode.loaded() else {
                continue;
            };
            let owners = self.scenario.mappings.iter();
            for (mapping, _) in owners
                .enumerate()
                .filter(|&(_, &owner)| owner == usize::from(mm))
            {
                for (page, entry) in memory.entries[mapping].iter().enumerate() {
                    match entry {
                        Some(entry) if entry.accessed || !self.scenario.accessed.is_set_first => {
                            cpu.tlb[mapping][page] |= 1 << entry.frame;
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// One state for all that can't be told apart from here on.
    pub fn reduce(&self, state: &mut State) {
        self.forget_cpus(state);
        forget_tickets(state);
        if !self.scenario.freedom.reluctant {
            renumber(state);
        }
    }

    fn forget_cpus(&self, state: &mut State) {
        for (number, cpu) in state.cpus.iter_mut().enumerate() {
            // There is nothing to flush.
            for mm in 0..self.scenario.mms() {
                if cpu.is_empty_of(mm, &self.scenario.mappings) {
                    cpu.behind &= !(1 << mm);
                }
            }
            let flight = state.reclaim.flight.as_ref();
            let counts = flight.is_some_and(|flight| flight.has(number));
            cpu.has_ticked &= counts || !self.rules.keep(Drop::Epoch);
        }
    }
}

/// A ticket that is over stays so, and so does the flush that ended it. CPUs of
/// a queue that is empty have nothing to flush.
fn forget_tickets(state: &mut State) {
    let reclaim = &mut state.reclaim;
    let oldest = reclaim
        .queue
        .first()
        .map_or(reclaim.last + 1, |one| one.wait.ticket);
    for frame in &mut state.memory.frames {
        if frame.replaced < oldest {
            frame.replaced = 0;
        }
    }
    if reclaim.flushed <= reclaim.last {
        reclaim.flushed = 0;
    }
    if reclaim.queue.is_empty() && !matches!(state.turn.phase, Phase::Flush(_)) {
        state.turn.before.clear();
    }
}

/// Numbers CPUs by what they are and in what they take part.
fn renumber(state: &mut State) {
    let key = |number: usize| -> (&Cpu, u32) {
        let masks = state.masks.iter().map(|mask| mask >> number & 1 != 0);
        let sets = sets(state).map(|set| set.is_some_and(|set| set.has(number)));
        let parts = masks
            .chain(sets)
            .fold(0, |parts, one| parts << 1 | u32::from(one));
        (&state.cpus[number], parts)
    };
    let mut order: Vec<usize> = (0..state.cpus.len()).collect();
    order.sort_by(|&one, &other| key(one).cmp(&key(other)));
    if order.is_sorted() {
        return;
    }
    state.cpus = order.iter().map(|&old| state.cpus[old].clone()).collect();
    for mask in &mut state.masks {
        let bits = order.iter().enumerate();
        *mask = bits.fold(0, |new, (number, &old)| new | (*mask >> old & 1) << number);
    }
    let (turn, reclaim) = (&mut state.turn, &mut state.reclaim);
    let sets = [&mut turn.now, &mut turn.before, &mut reclaim.open];
    for set in sets.into_iter().chain(reclaim.flight.as_mut()) {
        set.renumber(&order);
    }
}

fn sets(state: &State) -> impl Iterator<Item = Option<&Cpus>> {
    let (turn, reclaim) = (&state.turn, &state.reclaim);
    let always = [&turn.now, &turn.before, &reclaim.open].map(Some);
    always.into_iter().chain([reclaim.flight.as_ref()])
}
