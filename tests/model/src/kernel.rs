// SPDX-License-Identifier: GPL-2.0

//! What happens beside publications: walks of the page tables, faults, address
//! space switches, and mappings that go and come back.

use jitfd_plan::lifecycle::{FaultAction, on_fault};

use crate::{
    cpu::{Cpu, Mode},
    memory::{Cell, Pte},
    model::Machine,
    rules::Drop,
    scenario::{Accessed, CELLS},
    state::State,
};

impl Machine {
    /// A CPU walks the page tables, for whatever reason, and caches what it
    /// finds. It sets the Accessed bit first, unless the scenario says otherwise:
    /// then this is when it sets the bit, and it caches at any time. False if
    /// that changes nothing that anybody looks at.
    pub fn walk(&self, state: &mut State, cpu: usize, mapping: usize, page: usize) -> bool {
        let mm = self.scenario.mappings[mapping] as u8;
        let uses = |cpu: &Cpu| cpu.mode.loaded() == Some(mm);
        let Some(entry) = &mut state.memory.entries[mapping][page] else {
            return false;
        };
        let Accessed {
            is_set_first,
            is_trusted,
        } = self.scenario.accessed;
        if !is_set_first && !is_trusted {
            return false;
        }
        let all_do = !self.scenario.freedom.reluctant;
        if all_do && (entry.accessed || state.cpus.iter().position(uses) != Some(cpu)) {
            return false;
        }
        let one = &mut state.cpus[cpu];
        if !uses(one) {
            return false;
        }
        entry.accessed = true;
        one.tlb[mapping][page] |= 1 << entry.frame;
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
            _ if !self.rules.keep(Drop::AbsentNotMapped) => {
                memory.allocate(page, [Cell::Fill; CELLS])
            }
            _ => return false,
        };
        memory.frames[frame as usize].seen = true;
        memory.entries[mapping][page] = Some(Pte::fresh(frame));
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

    /// What a CPU may do next. It enters an address space without the region in
    /// one step: that it does not serve interrupts meanwhile only delays them.
    pub fn ways(&self, now: Mode) -> Vec<Mode> {
        let freedom = self.scenario.freedom;
        let mut ways = match now {
            Mode::Entering(mm) => return vec![Mode::User(mm)],
            Mode::Offline => return vec![Mode::Kernel],
            Mode::User(mm) => self.ways_of_user(mm),
            Mode::Lazy(_) | Mode::Leaving(_) | Mode::Kernel => Vec::new(),
        };
        if freedom.switch {
            let others = (0..self.scenario.mms() as u8).filter(|&mm| now != Mode::User(mm));
            ways.extend(others.map(|mm| match self.scenario.maps(mm) {
                true => Mode::Entering(mm),
                false => Mode::User(mm),
            }));
        }
        match now {
            Mode::Kernel if freedom.hotplug => ways.push(Mode::Offline),
            Mode::User(_) | Mode::Lazy(_) if freedom.kernel => ways.push(Mode::Kernel),
            _ => {}
        }
        ways
    }

    fn ways_of_user(&self, mm: u8) -> Vec<Mode> {
        let freedom = self.scenario.freedom;
        let lazy = freedom.lazy.then_some(Mode::Lazy(mm));
        let leaving = freedom.exec.then_some(Mode::Leaving(mm));
        lazy.into_iter().chain(leaving).collect()
    }

    /// A CPU changes what it does.
    pub fn go(&self, state: &mut State, cpu: usize, to: Mode) -> bool {
        let one = &mut state.cpus[cpu];
        match (one.mode, to) {
            (Mode::Offline, Mode::Kernel) => {
                let has_ticked = one.has_ticked;
                *one = Cpu::new(to, self.scenario.mappings.len());
                one.has_ticked = has_ticked;
            }
            (Mode::Entering(_), Mode::User(mm)) => one.enter(mm, &self.scenario.mappings),
            (_, Mode::Entering(mm)) => state.masks[usize::from(mm)] |= 1 << cpu,
            _ => {}
        }
        state.cpus[cpu].mode = to;
        true
    }

    /// A CPU that has something else loaded is taken out of a CPU mask: by the kernel,
    /// at any time, or by the module, when it has interrupted the CPU.
    pub fn trim(&self, state: &mut State, cpu: usize, mm: usize) -> bool {
        let mode = state.cpus[cpu].mode;
        let uses = mode.loaded() == Some(mm as u8) || mode == Mode::Entering(mm as u8);
        let stays = uses && self.rules.keep(Drop::LeaveUnloaded);
        if stays || state.masks[mm] & (1 << cpu) == 0 {
            return false;
        }
        state.masks[mm] &= !(1 << cpu);
        true
    }
}
