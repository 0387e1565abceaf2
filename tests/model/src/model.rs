// SPDX-License-Identifier: GPL-2.0

//! The machine as `stateright` sees it: its steps and its properties.

use stateright::{Model, Property};

use crate::{
    cpu::Mode,
    judge::Wrong,
    rules::{Drop, Rules},
    scenario::Scenario,
    state::{Phase, State},
};

/// A scenario under some rules.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What is explored.
    pub scenario: Scenario,
    /// Which rules the module keeps.
    pub rules: Rules,
}

/// One step of one party.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The publication goes on.
    Publish,
    /// CPU, mapping, page: a walk of the page tables.
    Walk(usize, usize, usize),
    /// Mapping, page: a fault.
    Fault(usize, usize),
    /// A mapping's entries are cleared.
    Zap(usize),
    /// The kernel flushes for that.
    FlushZapped(usize),
    /// A CPU changes what it does.
    Go(usize, Mode),
    /// CPU, address space: out of the mask.
    Trim(usize, usize),
    /// An interrupted CPU flushes.
    Interrupt(usize),
    /// A CPU ticks.
    Tick(usize),
    /// Another region asks for an epoch.
    Ask,
    /// The reclaim thread starts an epoch.
    Begin,
    /// It looks at a CPU.
    Poll(usize),
    /// A mutation only: a timer that has flushed reads the epoch and notes it.
    Note(usize),
}

impl Machine {
    /// Steps that a CPU may have: those that it surely has not are left out.
    fn steps_of_cpu(&self, state: &State, cpu: usize, steps: &mut Vec<Step>) {
        let mode = state.cpus[cpu].mode;
        if mode.loaded().is_some() {
            let mapped = state.memory.mapped();
            steps.extend(mapped.map(|(mapping, page)| Step::Walk(cpu, mapping, page)));
        }
        if matches!(state.turn.phase, Phase::Flush(_)) {
            steps.push(Step::Interrupt(cpu));
        }
        if state.reclaim.flight.is_some() {
            steps.extend([Step::Tick(cpu), Step::Poll(cpu)]);
            if !self.rules.keep(Drop::EpochFirst) {
                steps.push(Step::Note(cpu));
            }
        }
        steps.extend(self.ways(mode).into_iter().map(|to| Step::Go(cpu, to)));
        if self.scenario.freedom.kernel {
            steps.extend((0..state.masks.len()).map(|mm| Step::Trim(cpu, mm)));
        }
    }

    fn steps_of_mapping(&self, state: &State, mapping: usize, steps: &mut Vec<Step>) {
        let entries = state.memory.entries[mapping].iter().enumerate();
        let absent = entries.filter(|(_, entry)| entry.is_none());
        steps.extend(absent.map(|(page, _)| Step::Fault(mapping, page)));
        steps.push(match state.memory.zapped[mapping] {
            true => Step::FlushZapped(mapping),
            false if state.remaps != 0 => Step::Zap(mapping),
            false => return,
        });
    }

    fn take(&self, state: &mut State, step: Step) -> bool {
        match step {
            Step::Publish => self.publish(state),
            Step::Walk(cpu, mapping, page) => self.walk(state, cpu, mapping, page),
            Step::Fault(mapping, page) => self.fault(state, mapping, page),
            Step::Zap(mapping) => self.zap(state, mapping),
            Step::FlushZapped(mapping) => self.flush_zapped(state, mapping),
            Step::Go(cpu, mode) => self.go(state, cpu, mode),
            Step::Trim(cpu, mm) => self.trim(state, cpu, mm),
            Step::Interrupt(cpu) => self.interrupt(state, cpu),
            Step::Tick(cpu) => self.tick(state, cpu),
            Step::Ask => self.ask(state),
            Step::Begin => self.begin(state),
            Step::Poll(cpu) => self.poll(state, cpu),
            Step::Note(cpu) => self.note(state, cpu),
        }
    }

    fn is_finished(&self, state: &State) -> bool {
        state.turn.publication == self.scenario.publications.len() && state.reclaim.queue.is_empty()
    }
}

impl Model for Machine {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(&self.scenario)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        steps.push(Step::Publish);
        if state.reclaim.is_wanted {
            steps.push(Step::Begin);
        } else if state.epochs != 0 {
            steps.push(Step::Ask);
        }
        for cpu in 0..self.scenario.cpus {
            self.steps_of_cpu(state, cpu, steps);
        }
        for mapping in 0..self.scenario.mappings.len() {
            self.steps_of_mapping(state, mapping, steps);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        state.wrong = 0;
        if !self.take(&mut state, step) {
            return None;
        }
        self.fill(&mut state);
        state.wrong |= self.judge(&state);
        self.reduce(&mut state);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn never<const BIT: u8>(_: &Machine, state: &State) -> bool {
            state.wrong & BIT == 0
        }
        vec![
            Property::always("no freed page is executed", never::<{ Wrong::Freed as u8 }>),
            Property::always("no torn or foreign code", never::<{ Wrong::Torn as u8 }>),
            Property::always("no false SIGTRAP", never::<{ Wrong::FalseTrap as u8 }>),
            Property::always("no lost SIGTRAP", never::<{ Wrong::LostTrap as u8 }>),
            Property::always("every retry ends", never::<{ Wrong::Endless as u8 }>),
            Property::always("no lost publication", never::<{ Wrong::Lost as u8 }>),
            Property::always("sync is sync", never::<{ Wrong::NotSync as u8 }>),
            Property::always(
                "no flush for another page's sake",
                never::<{ Wrong::Needless as u8 }>,
            ),
            Property::sometimes("all published, all freed", Machine::is_finished),
        ]
    }
}
