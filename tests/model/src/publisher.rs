// SPDX-License-Identifier: GPL-2.0

//! One publication, step by step: the module's `publish.rs` and `pte.rs`. Every
//! decision is made by a function of `plan`; what is here are the actions.

use jitfd_plan::{
    ledger::{CpuView, is_clean},
    lifecycle::{Change, PageState, Swapped, change, must_flush_after, must_flush_before},
    span::{Descending, Span, Touched},
    stale::looks_like_int_3,
};

use crate::{
    cpu::Mode,
    kernel::free_if_clean,
    memory::{Cell, FrameId, Pte, byte},
    model::Machine,
    rules::Drop,
    scenario::{CELL, CELLS, PAGES, Publication},
    state::{Phase, State, Swap},
};

impl Machine {
    /// One step of the publication under way. False if there is none to take.
    pub fn publish(&self, state: &mut State) -> bool {
        match state.turn.phase {
            Phase::Start => return self.start(state),
            Phase::Page(index) => self.page(state, index),
            Phase::FlushBefore(index, 0) => {
                free_if_clean(state);
                self.look(state, index);
            }
            Phase::FlushAfter(0) => {
                free_if_clean(state);
                state.turn.phase = Phase::Retire;
            }
            Phase::FlushBefore(..) | Phase::FlushAfter(_) => return false,
            Phase::Write(index, seen) => self.write(state, index, seen),
            Phase::Scribble(index, cell) => self.scribble(state, index, cell),
            Phase::Exchange(index, swap) => self.exchange(state, index, swap),
            Phase::Bump(index, swap) => self.bump(state, index, swap),
            Phase::Mask(index, swap) => self.mask(state, index, swap),
            Phase::GiveUp(index, swap) => self.give_up(state, index, swap),
            Phase::End => self.end(state),
            Phase::Retire => self.retire(state),
        }
        true
    }

    fn publication(&self, state: &State) -> &Publication {
        &self.scenario.publications[state.turn.publication]
    }

    fn spans(&self, state: &State) -> Vec<Span> {
        self.publication(state).to_plan()
    }

    /// Rule R3: the pages in the order of publication.
    fn order(&self, state: &State) -> Vec<Touched> {
        let spans = self.spans(state);
        let mut order: Vec<Touched> = Descending::new(&spans).collect();
        if !self.rules.keep(Drop::Descending) {
            order.reverse();
        }
        order
    }

    fn start(&self, state: &mut State) -> bool {
        if state.turn.publication == self.scenario.publications.len() {
            return false;
        }
        let turn = &mut state.turn;
        turn.cpus.clear();
        turn.stale = false;
        turn.next = None;
        turn.phase = Phase::Page(0);
        true
    }

    /// The top of the loop in `commit()`.
    fn page(&self, state: &mut State, index: usize) {
        let Some(&touched) = self.order(state).get(index) else {
            state.turn.phase = Phase::End;
            return;
        };
        let after = match state.turn.next {
            Some((page, swapped)) if page == touched.page + 1 => swapped,
            _ => Swapped::default(),
        };
        let crosses = self.spans(state)[touched.to - 1].crosses_after(touched.page);
        if self.rules.keep(Drop::StraddleFlush) && must_flush_before(crosses, after) {
            state.turn.phase = Phase::FlushBefore(index, interrupt(state));
            return;
        }
        self.look(state, index);
    }

    fn look(&self, state: &mut State, index: usize) {
        let page = self.order(state)[index].page as usize;
        state.turn.phase = Phase::Write(index, state.memory.state(page));
    }

    fn write(&self, state: &mut State, index: usize, seen: PageState) {
        let page = self.order(state)[index].page as usize;
        let replaces = self.rules.keep(Drop::ReplaceMapped);
        match change(seen) {
            Change::Create => self.create(state, index, page),
            Change::InPlace if self.in_place(state, page) => {
                self.next_page(state, index, Swapped::default());
            }
            Change::InPlace if !self.rules.keep(Drop::RecheckSeen) => {
                state.turn.phase = Phase::Scribble(index, 0);
            }
            Change::InPlace | Change::Replace if replaces => self.replace(state, index, page),
            Change::InPlace | Change::Replace => state.turn.phase = Phase::Scribble(index, 0),
        }
    }

    /// The content of a page with this publication.
    fn content(&self, state: &State, page: usize, old: Option<FrameId>) -> [Cell; CELLS] {
        let publication = self.publication(state);
        let mut cells = match old {
            Some(old) => state.memory.frame(old).cells,
            None => [Cell::Fill; CELLS],
        };
        for (in_page, cell) in cells.iter_mut().enumerate() {
            let at = page * CELLS + in_page;
            if publication.covers(at) {
                *cell = self.code_at(at);
            }
        }
        cells
    }

    fn create(&self, state: &mut State, index: usize, page: usize) {
        let cells = self.content(state, page, None);
        let new = state.memory.allocate(cells);
        state.memory.slots[page] = Some(new);
        if !self.rules.keep(Drop::AbsentNotMapped) {
            // Mapped empty pages are swapped, without a thought of who has
            // cached them: they held no code.
            for entries in &mut state.memory.entries {
                if let Some(entry) = &mut entries[page] {
                    *entry = fresh(new);
                    state.memory.frames[new as usize].seen = true;
                }
            }
        }
        self.next_page(state, index, Swapped::default());
    }

    /// Under the slot lock, so it is one step.
    fn in_place(&self, state: &mut State, page: usize) -> bool {
        let Some(frame) = state.memory.slots[page] else {
            return false;
        };
        if state.memory.frame(frame).seen {
            return false;
        }
        let cells = self.content(state, page, Some(frame));
        state.memory.frames[frame as usize].cells = cells;
        true
    }

    fn scribble(&self, state: &mut State, index: usize, cell: usize) {
        let page = self.order(state)[index].page as usize;
        if cell == CELLS {
            self.next_page(state, index, Swapped::default());
            return;
        }
        if let Some(frame) = state.memory.slots[page] {
            let cells = self.content(state, page, Some(frame));
            state.memory.frames[frame as usize].cells[cell] = cells[cell];
        }
        state.turn.phase = Phase::Scribble(index, cell + 1);
    }

    /// Rule R4: the slot first.
    fn replace(&self, state: &mut State, index: usize, page: usize) {
        let Some(old) = state.memory.slots[page] else {
            return;
        };
        let cells = self.content(state, page, Some(old));
        let new = state.memory.allocate(cells);
        state.memory.frames[new as usize].seen = true;
        if self.rules.keep(Drop::SlotFirst) {
            state.memory.slots[page] = Some(new);
        }
        let found = Swapped::default();
        let mapping = 0;
        state.turn.phase = Phase::Exchange(
            index,
            Swap {
                new,
                old,
                mapping,
                found,
            },
        );
    }

    fn exchange(&self, state: &mut State, index: usize, mut swap: Swap) {
        if swap.mapping == self.scenario.mappings.len() {
            state.turn.phase = Phase::GiveUp(index, swap);
            return;
        }
        let page = self.order(state)[index].page as usize;
        if !self.exchange_one(state, page, &mut swap) {
            swap.mapping += 1;
            state.turn.phase = Phase::Exchange(index, swap);
            return;
        }
        swap.found.accessed = true;
        state.turn.phase = if self.rules.keep(Drop::BumpBeforeMask) {
            Phase::Bump(index, swap)
        } else {
            Phase::Mask(index, swap)
        };
    }

    /// The module's `swap_one()`, under the page table lock. Says whether a TLB
    /// may hold what was there.
    fn exchange_one(&self, state: &mut State, page: usize, swap: &mut Swap) -> bool {
        let memory = &mut state.memory;
        match &mut memory.entries[swap.mapping][page] {
            Some(entry) if entry.frame == swap.new && self.rules.keep(Drop::KeepAccessed) => false,
            Some(entry) => {
                let accessed = entry.accessed;
                *entry = fresh(swap.new);
                swap.found.entries += 1;
                accessed
            }
            None => memory.zapped[swap.mapping] && self.rules.keep(Drop::PendingFlush),
        }
    }

    fn bump(&self, state: &mut State, index: usize, mut swap: Swap) {
        let mm = self.scenario.mappings[swap.mapping];
        if self.rules.keep(Drop::Bump) {
            for cpu in &mut state.cpus {
                cpu.behind |= 1 << mm;
            }
        }
        state.turn.phase = if self.rules.keep(Drop::BumpBeforeMask) {
            Phase::Mask(index, swap)
        } else {
            swap.mapping += 1;
            Phase::Exchange(index, swap)
        };
    }

    fn mask(&self, state: &mut State, index: usize, mut swap: Swap) {
        let mm = self.scenario.mappings[swap.mapping];
        for cpu in 0..self.scenario.cpus {
            if state.masks[mm] & (1 << cpu) != 0 {
                state.turn.cpus.insert(cpu);
            }
        }
        state.turn.phase = if self.rules.keep(Drop::BumpBeforeMask) {
            swap.mapping += 1;
            Phase::Exchange(index, swap)
        } else {
            Phase::Bump(index, swap)
        };
    }

    fn give_up(&self, state: &mut State, index: usize, mut swap: Swap) {
        let page = self.order(state)[index].page as usize;
        state.memory.slots[page] = Some(swap.new);
        swap.found.outdated = self.rules.keep(Drop::Outdated) && state.reclaim.is_pending();
        if swap.found.accessed && self.rules.keep(Drop::WaitForCpus) {
            state.turn.retired |= 1 << swap.old;
        } else {
            state.memory.free(swap.old);
        }
        self.next_page(state, index, swap.found);
    }

    fn next_page(&self, state: &mut State, index: usize, swapped: Swapped) {
        let page = self.order(state)[index].page;
        state.turn.stale |= swapped.may_be_stale();
        state.turn.next = Some((page, swapped));
        state.turn.phase = Phase::Page(index + 1);
    }

    fn end(&self, state: &mut State) {
        let flush = match self.is_ambiguous(state) {
            true => self.rules.keep(Drop::AmbiguousFlush),
            false => self.publication(state).sync && self.rules.keep(Drop::SyncFlush),
        };
        state.turn.phase = if must_flush_after(flush, state.turn.stale) {
            Phase::FlushAfter(interrupt(state))
        } else {
            Phase::Retire
        };
    }

    /// As `is_ambiguous()` of the module.
    fn is_ambiguous(&self, state: &State) -> bool {
        let byte_at = |at: usize| {
            let cell = state.memory.authoritative(at);
            cell.map(|cell| byte(&self.scenario.code, cell))
        };
        let one = |&(start, len): &(usize, usize)| {
            let bytes: Vec<u8> = (start..start + len)
                .map(|at| byte(&self.scenario.code, self.code_at(at)))
                .collect();
            let before = start.checked_sub(1).and_then(byte_at);
            looks_like_int_3(before, [&bytes[..]], byte_at(start + len))
        };
        self.publication(state).spans.iter().any(one)
    }

    fn retire(&self, state: &mut State) {
        let turn = &mut state.turn;
        if turn.retired != 0 {
            state.reclaim.open.frames |= turn.retired;
            state.reclaim.open.cpus.union(&turn.cpus);
        }
        turn.retired = 0;
        turn.publication += 1;
        turn.phase = Phase::Start;
    }

    /// Whether a publication is between the slot and the entries of `page`.
    pub fn is_between(&self, state: &State, page: usize) -> bool {
        match state.turn.phase {
            Phase::Exchange(index, _) | Phase::Bump(index, _) | Phase::Mask(index, _) => {
                self.order(state)[index].page as usize == page
            }
            _ => false,
        }
    }

    fn code_at(&self, at: usize) -> Cell {
        for (number, instr) in self.scenario.code.iter().enumerate() {
            if (instr.at..instr.at + instr.bytes.len()).contains(&at) {
                return Cell::Code {
                    instr: number as u8,
                    index: (at - instr.at) as u8,
                };
            }
        }
        // Published, and no instruction: a gap that was asked for.
        Cell::Fill
    }
}

fn fresh(frame: FrameId) -> Pte {
    Pte {
        frame,
        accessed: false,
    }
}

/// The module's `retire::flush()`: for all CPUs that may hold anything stale,
/// those that are clean left out. Says which are interrupted. The reclaim
/// thread is locked out until they have flushed.
fn interrupt(state: &mut State) -> u8 {
    let reclaim = &mut state.reclaim;
    let mut cpus = state.turn.cpus.clone();
    for batch in [&mut reclaim.open, &mut reclaim.closing] {
        cpus.union(&batch.cpus);
        batch.cpus.clear();
    }
    reclaim.closing.frames |= core::mem::take(&mut reclaim.open.frames);
    cpus.retain(|cpu| !is_clean(view(state, cpu, false)));
    state.turn.cpus.clear();
    state.turn.stale = false;
    cpus.iter().fold(0, |set, cpu| set | (1 << cpu))
}

/// What the module sees of a CPU.
pub fn view(state: &State, cpu: usize, flushed: bool) -> CpuView {
    let mode = state.cpus[cpu].mode;
    CpuView {
        online: mode != Mode::Offline,
        lazy: matches!(mode, Mode::Lazy(_)),
        flushed,
    }
}

const _: () = assert!(PAGES as u64 * CELLS as u64 * CELL == 2 * 4096);
