// SPDX-License-Identifier: GPL-2.0

//! Replaced pages until no TLB can hold a translation to them: the module's
//! `waiting.rs`, `retire.rs`, `reclaim.rs` and `percpu.rs`. The queue with its
//! tickets, the flush of a region's own, the epochs of the reclaim thread, and the
//! CPUs' timers.

use jitfd_plan::ledger::{Flushed, Ticket, Wait, is_clean, is_outdated};

use crate::{
    judge::Wrong,
    model::Machine,
    rules::Drop,
    state::{Next, Phase, State, Waiting},
    tlb::view,
};

impl Machine {
    /// Whether a TLB may hold an older version of a page that was last replaced
    /// under `ticket`.
    pub fn is_outdated(&self, state: &State, ticket: Ticket) -> bool {
        let oldest = state.reclaim.queue.first().map(|one| one.wait.ticket);
        if !self.rules.keep(Drop::PerPage) {
            return oldest.is_some();
        }
        self.rules.keep(Drop::Outdated) && ticket != 0 && is_outdated(ticket, oldest)
    }

    /// The module's `retire()`.
    pub fn retire(&self, state: &mut State) {
        let (turn, reclaim) = (&mut state.turn, &mut state.reclaim);
        reclaim.last += 1;
        let frames = core::mem::take(&mut turn.retired);
        if turn.now.set.is_empty() {
            // A flush came after the swap.
            free(state, frames);
        } else {
            let epoch = turn.early.unwrap_or(reclaim.started + 1);
            reclaim.open.union(&turn.now);
            reclaim.is_wanted = true;
            if !self.rules.keep(Drop::KeepBefore) {
                turn.before.clear();
            }
            turn.before.union(&turn.now);
            turn.now.clear();
            let wait = Wait {
                ticket: reclaim.last,
                epoch,
            };
            reclaim.queue.push(Waiting { frames, wait });
            self.harvest(state);
        }
        self.finish(state);
    }

    /// Gives back all that is over.
    fn harvest(&self, state: &mut State) {
        let reclaim = &mut state.reclaim;
        let flushed = Flushed {
            epoch: reclaim.completed,
            ticket: reclaim.flushed,
        };
        let over = reclaim
            .queue
            .partition_point(|one| one.wait.is_over(flushed));
        let done: Vec<Waiting> = reclaim.queue.drain(..over).collect();
        for one in done {
            free(state, one.frames);
        }
    }

    /// The module's `flush()`, for what may be stale of `pages`, if not for all.
    pub fn flush(&self, state: &mut State, next: Next, pages: Option<&[usize]>) {
        let waits = |&page: &usize| waits(state, page);
        if pages.is_some_and(|pages| !pages.iter().any(waits)) {
            state.wrong |= Wrong::Needless as u8;
        }
        let turn = &mut state.turn;
        if !self.rules.keep(Drop::FlushEarlier) {
            turn.before.clear();
        }
        turn.before.union(&turn.now);
        turn.now.clear();
        turn.phase = Phase::Flush(next);
        self.end_flush(state);
    }

    /// A CPU that a flush waits for is clean, or its interrupt comes: it flushes,
    /// unless it runs something else.
    pub fn interrupt(&self, state: &mut State, cpu: usize) -> bool {
        if !matches!(state.turn.phase, Phase::Flush(_)) || !state.turn.before.has(cpu) {
            return false;
        }
        if !is_clean(view(state, cpu, false)) {
            if !state.cpus[cpu].mode.takes_interrupts() {
                return false;
            }
            if self.rules.keep(Drop::FlushAtInterrupt) {
                let mms = state.turn.before.mms;
                state.cpus[cpu].flush_one_of(mms, &self.scenario.mappings);
            }
        }
        state.turn.before.set.remove(cpu);
        self.end_flush(state);
        true
    }

    /// All have flushed: the wait of everything up to the last ticket is over.
    fn end_flush(&self, state: &mut State) {
        let Phase::Flush(next) = state.turn.phase else {
            return;
        };
        if !state.turn.before.set.is_empty() {
            return;
        }
        state.turn.before.clear();
        let reclaim = &mut state.reclaim;
        reclaim.flushed = reclaim.last + Ticket::from(!self.rules.keep(Drop::EndEarlierOnly));
        self.harvest(state);
        self.go_on(state, next);
    }

    /// Another region retires something. Its CPUs make no difference here: they
    /// may have flushed at once.
    pub fn ask(&self, state: &mut State) -> bool {
        state.epochs -= 1;
        state.reclaim.is_wanted = true;
        true
    }

    /// The reclaim thread starts an epoch.
    pub fn begin(&self, state: &mut State) -> bool {
        let reclaim = &mut state.reclaim;
        if reclaim.flight.is_some() || !core::mem::take(&mut reclaim.is_wanted) {
            return false;
        }
        reclaim.flight = Some(reclaim.open.clone());
        reclaim.open.clear();
        reclaim.started += 1;
        if self.rules.keep(Drop::Epoch) {
            for cpu in &mut state.cpus {
                cpu.has_ticked = false;
            }
        }
        if !self.rules.keep(Drop::DoneAtEnd) {
            state.reclaim.completed = state.reclaim.started;
            self.harvest(state);
        }
        self.end_epoch(state);
        true
    }

    /// Ends the epoch in flight if all its CPUs are clean.
    fn end_epoch(&self, state: &mut State) {
        let reclaim = &mut state.reclaim;
        if reclaim
            .flight
            .as_ref()
            .is_some_and(|flight| flight.set.is_empty())
        {
            reclaim.flight = None;
            reclaim.completed = reclaim.started;
            self.harvest(state);
        }
    }

    /// The timer of a CPU that is waited for. (The epoch is read first, then the
    /// address spaces and the TLB flushed, then the epoch noted. Read earlier it
    /// is the same or older, and one that is over by then counts for nothing.)
    /// The interrupt of a CPU that did not tick does the same.
    pub fn tick(&self, state: &mut State, cpu: usize) -> bool {
        let Some(flight) = &state.reclaim.flight else {
            return false;
        };
        let one = &mut state.cpus[cpu];
        if !flight.has(cpu) || one.has_ticked || !one.mode.takes_interrupts() {
            return false;
        }
        if self.rules.keep(Drop::FlushAtTick) {
            one.flush_one_of(flight.mms, &self.scenario.mappings);
        }
        if !self.rules.keep(Drop::EpochFirst) && !one.is_ticking {
            one.is_ticking = true;
        } else {
            one.has_ticked = true;
        }
        true
    }

    /// The reclaim thread looks at one CPU.
    pub fn poll(&self, state: &mut State, cpu: usize) -> bool {
        let view = view(state, cpu, state.cpus[cpu].has_ticked);
        let Some(flight) = &mut state.reclaim.flight else {
            return false;
        };
        if !flight.has(cpu) || !is_clean(view) {
            return false;
        }
        flight.set.remove(cpu);
        self.end_epoch(state);
        true
    }

    /// A mutation only: the epoch is read and noted after the flush.
    pub fn note(&self, state: &mut State, cpu: usize) -> bool {
        let one = &mut state.cpus[cpu];
        one.has_ticked |= one.is_ticking;
        core::mem::take(&mut one.is_ticking)
    }
}

/// Whether an old version of `page` waits, or will.
fn waits(state: &State, page: usize) -> bool {
    let queued = state.reclaim.queue.iter().map(|one| one.frames);
    let frames = queued.fold(state.turn.retired, |all, some| all | some);
    let numbered = state.memory.frames.iter().enumerate();
    numbered
        .filter(|&(number, _)| frames & (1 << number) != 0)
        .any(|(_, frame)| frame.page == page)
}

fn free(state: &mut State, frames: u8) {
    for frame in (0..8).filter(|frame| frames & (1 << frame) != 0) {
        state.memory.free(frame);
    }
}
