// SPDX-License-Identifier: GPL-2.0

//! What happens beside publications: walks of the page tables, faults, address
//! space switches, mappings that go and come back, and the reclaim thread with
//! its tickers.

use jitfd_plan::{
    ledger::is_clean,
    lifecycle::{FaultAction, on_fault},
};

use crate::{
    cpu::{Cpu, Mode},
    memory::{Cell, Pte},
    model::Machine,
    publisher::view,
    rules::Drop,
    scenario::CELLS,
    state::{Phase, State},
};

impl Machine {
    /// A CPU walks the page tables, for whatever reason, and caches what it
    /// finds. It sets the Accessed bit first. False if that changes nothing.
    pub fn walk(&self, state: &mut State, cpu: usize, mapping: usize, page: usize) -> bool {
        let mm = self.scenario.mappings[mapping] as u8;
        if state.cpus[cpu].mode.loaded() != Some(mm) {
            return false;
        }
        let Some(entry) = &mut state.memory.entries[mapping][page] else {
            return false;
        };
        entry.accessed = true;
        state.cpus[cpu].tlb[mapping][page] |= 1 << entry.frame;
        true
    }

    /// A page fault, under the slot lock.
    pub fn fault(&self, state: &mut State, mapping: usize, page: usize) -> bool {
        let memory = &mut state.memory;
        if memory.entries[mapping][page].is_some() || memory.zapped[mapping] {
            return false;
        }
        let frame = match (on_fault(memory.state(page), false), memory.slots[page]) {
            (FaultAction::Install, Some(frame)) => frame,
            _ if !self.rules.keep(Drop::AbsentNotMapped) => memory.allocate([Cell::Fill; CELLS]),
            _ => return false,
        };
        memory.frames[frame as usize].seen = true;
        memory.entries[mapping][page] = Some(Pte {
            frame,
            accessed: false,
        });
        true
    }

    /// munmap(): the entries are cleared; the flush comes later.
    pub fn zap(&self, state: &mut State, mapping: usize) -> bool {
        if state.remaps == 0 || state.memory.zapped[mapping] {
            return false;
        }
        state.remaps -= 1;
        state.memory.entries[mapping] = Default::default();
        state.memory.zapped[mapping] = true;
        true
    }

    /// The kernel's flush after munmap(). Then the mapping is made again.
    pub fn flush_zapped(&self, state: &mut State, mapping: usize) -> bool {
        if !state.memory.zapped[mapping] {
            return false;
        }
        let mm = self.scenario.mappings[mapping] as u8;
        for cpu in &mut state.cpus {
            cpu.behind |= 1 << mm;
            if cpu.mode == Mode::User(mm) {
                cpu.enter(mm, &self.scenario.mappings);
            }
        }
        state.memory.zapped[mapping] = false;
        true
    }

    /// A CPU changes what it does. False if it can't.
    pub fn go(&self, state: &mut State, cpu: usize, to: Mode) -> bool {
        let now = state.cpus[cpu].mode;
        match (now, to) {
            (Mode::User(old), Mode::Lazy(new)) if old == new => {}
            (Mode::User(_) | Mode::Lazy(_), Mode::Kernel) | (Mode::Kernel, Mode::Offline) => {}
            (Mode::Offline, Mode::Kernel) => {
                let flushed = state.cpus[cpu].flushed;
                state.cpus[cpu] = Cpu::new(to, self.scenario.mappings.len());
                state.cpus[cpu].flushed = flushed;
            }
            (Mode::User(old), Mode::Entering(new)) if old != new => set_mask(state, cpu, new),
            (Mode::Lazy(_) | Mode::Kernel, Mode::Entering(new)) => set_mask(state, cpu, new),
            (Mode::Entering(old), Mode::User(new)) if old == new => {
                state.cpus[cpu].enter(new, &self.scenario.mappings);
            }
            _ => return false,
        }
        state.cpus[cpu].mode = to;
        true
    }

    /// The kernel takes a CPU that runs something else out of a CPU mask.
    pub fn trim(&self, state: &mut State, cpu: usize, mm: usize) -> bool {
        let mode = state.cpus[cpu].mode;
        let uses = mode.loaded() == Some(mm as u8) || mode == Mode::Entering(mm as u8);
        if uses || state.masks[mm] & (1 << cpu) == 0 {
            return false;
        }
        state.masks[mm] &= !(1 << cpu);
        true
    }

    /// A CPU that the publication interrupted flushes.
    pub fn interrupt(&self, state: &mut State, cpu: usize) -> bool {
        let (Phase::FlushBefore(_, waits) | Phase::FlushAfter(waits)) = &mut state.turn.phase
        else {
            return false;
        };
        let mode = state.cpus[cpu].mode;
        if *waits & (1 << cpu) == 0 || mode == Mode::Offline {
            // One that has gone offline is not waited for.
            *waits &= !(u8::from(mode == Mode::Offline) << cpu);
            return false;
        }
        if !mode.takes_interrupts() {
            return false;
        }
        *waits &= !(1 << cpu);
        state.cpus[cpu].flush_loaded(&self.scenario.mappings);
        true
    }

    /// The tick of a CPU that is waited for.
    pub fn tick(&self, state: &mut State, cpu: usize) -> bool {
        let epoch = state.reclaim.epoch;
        let waits = state.reclaim.closing.cpus.iter().any(|one| one == cpu);
        let one = &mut state.cpus[cpu];
        if !waits || one.flushed == epoch || !one.mode.takes_interrupts() {
            return false;
        }
        if self.rules.keep(Drop::FlushAtTick) {
            one.flush_loaded(&self.scenario.mappings);
        }
        one.flushed = epoch;
        true
    }

    /// The reclaim thread starts an epoch.
    pub fn begin(&self, state: &mut State) -> bool {
        let is_locked = matches!(
            state.turn.phase,
            Phase::FlushBefore(..) | Phase::FlushAfter(_)
        );
        let reclaim = &mut state.reclaim;
        if is_locked || reclaim.closing.frames != 0 || reclaim.open.frames == 0 {
            return false;
        }
        core::mem::swap(&mut reclaim.open, &mut reclaim.closing);
        reclaim.epoch += 1;
        free_if_clean(state);
        true
    }

    /// The reclaim thread looks at one CPU.
    pub fn poll(&self, state: &mut State, cpu: usize) -> bool {
        let epoch = match self.rules.keep(Drop::Epoch) {
            true => state.reclaim.epoch,
            false => 1,
        };
        let view = view(state, cpu, state.cpus[cpu].flushed >= epoch);
        let waits = state.reclaim.closing.cpus.iter().any(|one| one == cpu);
        if !waits || !is_clean(view) {
            return false;
        }
        state.reclaim.closing.cpus.remove(cpu);
        free_if_clean(state);
        true
    }
}

fn set_mask(state: &mut State, cpu: usize, mm: u8) {
    state.masks[usize::from(mm)] |= 1 << cpu;
}

/// Frees the closing batch if no CPU is waited for.
pub fn free_if_clean(state: &mut State) {
    let closing = &mut state.reclaim.closing;
    if !closing.cpus.is_empty() {
        return;
    }
    for frame in (0..8).filter(|frame| closing.frames & (1 << frame) != 0) {
        state.memory.free(frame);
    }
    closing.frames = 0;
}
