// SPDX-License-Identifier: GPL-2.0

//! One publication, step by step: the module's `publish.rs`. Every decision is
//! made by a function of `plan`; what is here are the actions.

use jitfd_plan::{
    ledger::must_flush,
    lifecycle::{Change, PageState, Swapped, change, must_flush_after, must_flush_before},
    span::{Descending, Span, Touched},
    stale::{INT_IMM8, looks_like_int_3, wants_after},
};

use crate::{
    memory::{Cell, FrameId, byte},
    model::Machine,
    rules::Drop,
    scenario::{CELL, CELLS, PAGES, Publication},
    state::{Next, Phase, State, Swap},
};

impl Machine {
    /// One step of the publication under way. False if there is none to take.
    pub fn publish(&self, state: &mut State) -> bool {
        match state.turn.phase {
            Phase::Start => return self.start(state),
            Phase::Flush(_) => return false,
            Phase::Write(index, seen) => self.write(state, index, seen),
            Phase::Scribble(index, cell) => self.scribble(state, index, cell),
            Phase::Exchange(index, swap) => self.exchange(state, index, swap),
            Phase::Bump(index, swap) => self.bump(state, index, swap),
            Phase::Mask(index, swap) => self.mask(state, index, swap),
            Phase::GiveUp(index, swap) => self.give_up(state, index, swap),
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

    /// The page with this index.
    pub fn page_at(&self, state: &State, index: usize) -> usize {
        self.order(state)[index].page as usize
    }

    fn start(&self, state: &mut State) -> bool {
        if state.turn.publication == self.scenario.publications.len() {
            return false;
        }
        if self.is_full(state) {
            self.flush(state, Next::First, None);
        } else if let Some(page) = self.makes_old_ambiguous(state) {
            self.flush(state, Next::First, Some(&[page]));
        } else {
            self.go_on(state, Next::First);
        }
        true
    }

    /// As `is_full()` of the module: what replaced pages there may be beyond the
    /// bound. What waits is flushed first.
    fn is_full(&self, state: &State) -> bool {
        let queue = state.reclaim.queue.iter();
        let waiting = queue.map(|one| one.frames.count_ones() as usize).sum();
        let spans = self.publication(state).spans.len();
        let replaced = self.order(state).len().min(2 * spans);
        waiting != 0 && must_flush(self.scenario.bound, waiting, replaced)
    }

    /// After a flush, or without one.
    pub fn go_on(&self, state: &mut State, next: Next) {
        match next {
            Next::First => self.page(state, 0),
            Next::Write(index) => self.look(state, index),
            // Nobody sees the end of a publication that has replaced nothing.
            Next::Retire if state.turn.retired == 0 => self.finish(state),
            Next::Retire => state.turn.phase = Phase::Retire,
        }
    }

    /// The top of the loop in `commit()`.
    fn page(&self, state: &mut State, index: usize) {
        let Some(&touched) = self.order(state).get(index) else {
            return self.end(state);
        };
        let after = match state.turn.next {
            Some((page, swapped)) if page == touched.page + 1 => swapped,
            _ => Swapped::default(),
        };
        let crosses = self.spans(state)[touched.to - 1].crosses_after(touched.page);
        if self.rules.keep(Drop::StraddleFlush) && must_flush_before(crosses, after) {
            state.turn.stale = false;
            let after = touched.page as usize + 1;
            return self.flush(state, Next::Write(index), Some(&[after]));
        }
        self.look(state, index);
    }

    /// The look at the page's state belongs to the step before: what it says
    /// of a page that a fault maps later is looked at again.
    fn look(&self, state: &mut State, index: usize) {
        let page = self.page_at(state, index);
        state.turn.phase = Phase::Write(index, state.memory.state(page));
    }

    fn write(&self, state: &mut State, index: usize, seen: PageState) {
        let page = self.page_at(state, index);
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
        let new = state.memory.allocate(page, cells);
        state.memory.slots[page] = Some(new);
        if !self.rules.keep(Drop::AbsentNotMapped) {
            self.swap_empty(state, page, new);
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
        let page = self.page_at(state, index);
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
        let new = state.memory.allocate(page, cells);
        state.memory.frames[new as usize].seen = true;
        if self.rules.keep(Drop::SlotFirst) {
            state.memory.slots[page] = Some(new);
        }
        if !self.rules.keep(Drop::EpochAfterSwap) {
            state.turn.early = Some(state.reclaim.started + 1);
        }
        let swap = Swap {
            new,
            old,
            mapping: 0,
            found: Swapped::default(),
        };
        state.turn.phase = Phase::Exchange(index, swap);
    }

    /// The bottom of the loop in `commit()`.
    pub fn next_page(&self, state: &mut State, index: usize, swapped: Swapped) {
        let page = self.page_at(state, index);
        state.turn.stale |= swapped.may_be_stale();
        state.turn.next = Some((page as u64, swapped));
        self.page(state, index + 1);
    }

    fn end(&self, state: &mut State) {
        let sync = match self.is_ambiguous(state) {
            true => self.rules.keep(Drop::AmbiguousFlush),
            false => self.publication(state).sync && self.rules.keep(Drop::SyncFlush),
        };
        if must_flush_after(sync, state.turn.stale) {
            let order = self.order(state);
            let pages: Vec<usize> = order.iter().map(|touched| touched.page as usize).collect();
            return self.flush(state, Next::Retire, Some(&pages));
        }
        self.go_on(state, Next::Retire);
    }

    /// The publication returns. The next one has begun where it does so without a
    /// look at what others change.
    pub fn finish(&self, state: &mut State) {
        let turn = &mut state.turn;
        turn.retired = 0;
        turn.early = None;
        turn.next = None;
        turn.stale = false;
        turn.publication += 1;
        turn.phase = Phase::Start;
        let next = self.scenario.publications.get(state.turn.publication);
        let looks = |next: &Publication| {
            self.scenario.bound != usize::MAX || next.ends_in(INT_IMM8, |at| self.byte_at(at))
        };
        if next.is_some_and(|next| !looks(next)) {
            self.start(state);
        }
    }

    /// The byte of a cell that is published.
    fn byte_at(&self, at: usize) -> u8 {
        byte(&self.scenario.code, self.code_at(at))
    }

    /// As `is_ambiguous()` of the module. A mapping may start with any page: what
    /// lies before that can be anything.
    fn is_ambiguous(&self, state: &State) -> bool {
        let one = |&(start, len): &(usize, usize)| {
            let bytes: Vec<u8> = (start..start + len).map(|at| self.byte_at(at)).collect();
            let before = match start % CELLS {
                0 => Some(INT_IMM8),
                _ => self.authoritative(state, start - 1),
            };
            looks_like_int_3(before, [&bytes[..]], None)
        };
        self.publication(state).spans.iter().any(one)
    }

    /// As `makes_old_ambiguous()` of the module. Says which page holds the byte
    /// that was published earlier.
    fn makes_old_ambiguous(&self, state: &State) -> Option<usize> {
        let spans = self.publication(state).spans.iter();
        let ends = spans.map(|&(start, len)| start + len);
        let is_ambiguous = |&end: &usize| {
            let last = [self.byte_at(end - 1)];
            self.rules.keep(Drop::AmbiguousBefore)
                && wants_after(&last)
                && looks_like_int_3(None, [&last[..]], self.authoritative(state, end))
                && self.is_outdated(state, state.memory.replaced(end / CELLS))
        };
        ends.filter(is_ambiguous).map(|end| end / CELLS).next()
    }

    fn authoritative(&self, state: &State, at: usize) -> Option<u8> {
        let cell = state.memory.authoritative(at)?;
        Some(byte(&self.scenario.code, cell))
    }

    /// Whether a publication is between the slot and the entries of `page`.
    pub fn is_between(&self, state: &State, page: usize) -> bool {
        match state.turn.phase {
            Phase::Exchange(index, _) | Phase::Bump(index, _) | Phase::Mask(index, _) => {
                self.page_at(state, index) == page
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

const _: () = assert!(PAGES as u64 * CELLS as u64 * CELL == 2 * 4096);
