// SPDX-License-Identifier: GPL-2.0

//! The machine as `stateright` sees it: its steps and its properties.

use stateright::{Model, Property};

use crate::{
    cpu::Mode,
    judge::Wrong,
    rules::Rules,
    scenario::{PAGES, Scenario},
    state::State,
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
    /// The reclaim thread starts an epoch.
    Begin,
    /// It looks at a CPU.
    Poll(usize),
}

impl Machine {
    fn steps_of_cpu(&self, cpu: usize, steps: &mut Vec<Step>) {
        let mms = self.scenario.mms();
        for mapping in 0..self.scenario.mappings.len() {
            steps.extend((0..PAGES).map(|page| Step::Walk(cpu, mapping, page)));
        }
        steps.extend([Step::Interrupt(cpu), Step::Tick(cpu), Step::Poll(cpu)]);
        let freedom = self.scenario.freedom;
        for mm in 0..mms as u8 {
            if freedom.switch {
                steps.extend([Mode::User(mm), Mode::Entering(mm)].map(|to| Step::Go(cpu, to)));
            }
            if freedom.lazy {
                steps.push(Step::Go(cpu, Mode::Lazy(mm)));
            }
            if freedom.kernel {
                steps.push(Step::Trim(cpu, usize::from(mm)));
            }
        }
        if freedom.kernel {
            steps.push(Step::Go(cpu, Mode::Kernel));
        }
        if freedom.hotplug {
            steps.push(Step::Go(cpu, Mode::Offline));
        }
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
            Step::Begin => self.begin(state),
            Step::Poll(cpu) => self.poll(state, cpu),
        }
    }

    fn is_finished(&self, state: &State) -> bool {
        state.turn.publication == self.scenario.publications.len() && !state.reclaim.is_pending()
    }
}

impl Model for Machine {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(&self.scenario)]
    }

    fn actions(&self, _: &State, steps: &mut Vec<Step>) {
        steps.extend([Step::Publish, Step::Begin]);
        for cpu in 0..self.scenario.cpus {
            self.steps_of_cpu(cpu, steps);
        }
        for mapping in 0..self.scenario.mappings.len() {
            steps.extend((0..PAGES).map(|page| Step::Fault(mapping, page)));
            steps.extend([Step::Zap(mapping), Step::FlushZapped(mapping)]);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        if !self.take(&mut state, step) {
            return None;
        }
        state.wrong = self.judge(&state);
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
            Property::sometimes("all published, all freed", Machine::is_finished),
        ]
    }
}
