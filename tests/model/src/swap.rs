// SPDX-License-Identifier: GPL-2.0

//! The swap of one page's entries, mapping after mapping: the module's `pte.rs`,
//! and what `publish.rs` makes of it.

use jitfd_plan::{
    ledger::{Ticket, replaced_under},
    mms::Mms,
};

use crate::{
    memory::{FrameId, Pte},
    model::Machine,
    rules::Drop,
    state::{Phase, State, Swap},
};

impl Machine {
    /// The next mapping.
    pub fn exchange(&self, state: &mut State, index: usize, mut swap: Swap) {
        let page = self.page_at(state, index);
        if !self.exchange_one(state, page, &mut swap) {
            return self.next_mapping(state, index, swap);
        }
        let first = match self.rules.keep(Drop::BumpBeforeMask) {
            true => Phase::Bump(index, swap),
            false => Phase::Mask(index, swap),
        };
        if self.scenario.cpus_move() {
            state.turn.phase = first;
            return;
        }
        // Nobody is there to see the generation, and nobody changes the mask.
        self.bump_now(state, &swap);
        self.mask_now(state, &mut swap);
        self.next_mapping(state, index, swap);
    }

    /// The module's `swap_one()`, under the page table lock. Says whether a TLB
    /// may hold what was there.
    fn exchange_one(&self, state: &mut State, page: usize, swap: &mut Swap) -> bool {
        let memory = &mut state.memory;
        match &mut memory.entries[swap.mapping][page] {
            Some(entry) if entry.frame == swap.new && self.rules.keep(Drop::KeepAccessed) => false,
            Some(entry) => {
                let accessed = entry.accessed || !self.scenario.accessed.is_trusted;
                *entry = Pte::fresh(swap.new);
                swap.found.entries += 1;
                accessed
            }
            None => memory.zapped[swap.mapping] && self.rules.keep(Drop::PendingFlush),
        }
    }

    fn next_mapping(&self, state: &mut State, index: usize, mut swap: Swap) {
        swap.mapping += 1;
        let before = state.memory.frame(swap.old).replaced;
        state.turn.phase = if swap.mapping < self.scenario.mappings.len() {
            Phase::Exchange(index, swap)
        } else {
            Phase::GiveUp(index, swap)
        };
        // Then nothing that others change is looked at.
        let is_known = swap.found.accessed || before == 0 && self.rules.keep(Drop::PerPage);
        if matches!(state.turn.phase, Phase::GiveUp(..))
            && is_known
            && self.rules.keep(Drop::SlotFirst)
        {
            self.give_up(state, index, swap);
        }
    }

    /// The first half of the module's `add_mm()`.
    pub fn bump(&self, state: &mut State, index: usize, swap: Swap) {
        self.bump_now(state, &swap);
        match self.rules.keep(Drop::BumpBeforeMask) {
            true => state.turn.phase = Phase::Mask(index, swap),
            false => self.next_mapping(state, index, swap),
        }
    }

    fn bump_now(&self, state: &mut State, swap: &Swap) {
        let mm = self.scenario.mappings[swap.mapping];
        if self.rules.keep(Drop::Bump) {
            for cpu in &mut state.cpus {
                cpu.behind |= 1 << mm;
            }
        }
    }

    /// The second half.
    pub fn mask(&self, state: &mut State, index: usize, mut swap: Swap) {
        self.mask_now(state, &mut swap);
        match self.rules.keep(Drop::BumpBeforeMask) {
            true => self.next_mapping(state, index, swap),
            false => state.turn.phase = Phase::Bump(index, swap),
        }
    }

    fn mask_now(&self, state: &mut State, swap: &mut Swap) {
        let mm = self.scenario.mappings[swap.mapping];
        if !self.rules.keep(Drop::AllMms) {
            state.turn.now.mms = Mms::none();
        }
        swap.found.accessed |= state.turn.now.add_mm(mm, state.masks[mm]);
    }

    /// All mappings are swapped: the end of the module's `replace()`.
    pub fn give_up(&self, state: &mut State, index: usize, mut swap: Swap) {
        let page = self.page_at(state, index);
        state.memory.slots[page] = Some(swap.new);
        let old = &mut state.memory.frames[swap.old as usize];
        let before = core::mem::take(&mut old.replaced);
        let accessed = swap.found.accessed;
        swap.found.outdated = !accessed && self.is_outdated(state, before);
        let ticket = self.new_ticket(state, before, accessed);
        state.memory.frames[swap.new as usize].replaced = ticket;
        if accessed && self.rules.keep(Drop::WaitForCpus) {
            state.turn.retired |= 1 << swap.old;
        } else {
            state.memory.free(swap.old);
        }
        self.next_page(state, index, swap.found);
    }

    /// What the new version is marked with (rules R11, R13).
    fn new_ticket(&self, state: &State, before: Ticket, accessed: bool) -> Ticket {
        let next = state.reclaim.last + Ticket::from(self.rules.keep(Drop::OwnTicket));
        match replaced_under(before, accessed, next) {
            _ if !accessed && !self.rules.keep(Drop::KeepTicket) => 0,
            ticket => ticket,
        }
    }

    /// A mutation only: mapped empty pages are swapped, without a thought of who
    /// has cached them: they held no code.
    pub fn swap_empty(&self, state: &mut State, page: usize, new: FrameId) {
        for entries in &mut state.memory.entries {
            if let Some(entry) = &mut entries[page] {
                *entry = Pte::fresh(new);
                state.memory.frames[new as usize].seen = true;
            }
        }
    }
}
