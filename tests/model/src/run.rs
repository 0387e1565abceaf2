// SPDX-License-Identifier: GPL-2.0

//! Runs the explorer and says what it found.

use std::{collections::BTreeSet, time::Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::{model::Machine, rules::Rules, scenario::Scenario};

/// What an exploration found.
#[derive(Debug)]
pub struct Found {
    /// Distinct states.
    pub states: usize,
    /// The longest path from the first state.
    pub depth: usize,
    /// Each broken property, and in how many steps.
    pub broken: Vec<(&'static str, usize)>,
    /// The state in which everything is published and freed was reached.
    pub finished: bool,
}

/// Two cores are what a developer has.
const THREADS: usize = 2;

impl Found {
    /// Whether this property is broken.
    pub fn breaks(&self, property: &str) -> bool {
        self.broken.iter().any(|&(name, _)| name == property)
    }
}

/// Explores all states, or until the first broken property.
pub fn explore(scenario: Scenario) -> Found {
    search(scenario, Rules::default(), HasDiscoveries::AnyFailures)
}

/// Explores until this property is broken.
pub fn find_counterexample(scenario: Scenario, rules: Rules, property: &'static str) -> Found {
    let until = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    search(scenario, rules, until)
}

/// Explores all states, whatever is broken.
pub fn explore_all(scenario: Scenario, rules: Rules) -> Found {
    search(scenario, rules, HasDiscoveries::All)
}

fn search(scenario: Scenario, rules: Rules, until: HasDiscoveries) -> Found {
    let start = Instant::now();
    let (name, cpus) = (scenario.name, scenario.cpus);
    let (mappings, publications) = (scenario.mappings.len(), scenario.publications.len());
    let machine = Machine { scenario, rules };
    let properties = machine.properties();
    let checker = machine.checker().threads(THREADS).finish_when(until);
    let checker = checker.spawn_bfs().join();
    let mut broken = Vec::new();
    let mut finished = false;
    for (property, path) in checker.discoveries() {
        let steps = path.into_actions();
        let is_goal = |one: &&stateright::Property<Machine>| one.name == property;
        match properties.iter().find(is_goal).map(|one| &one.expectation) {
            Some(Expectation::Sometimes) => finished = true,
            _ => {
                if std::env::var_os("JITFD_MODEL_PATHS").is_some() {
                    println!("    {property}: {steps:?}");
                }
                broken.push((property, steps.len()));
            }
        }
    }
    let found = Found {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        broken,
        finished,
    };
    for (property, steps) in &found.broken {
        println!("    broken: {property}, in {steps} steps");
    }
    println!(
        "{name}: {} states, depth {}, {:.1} s ({cpus} CPUs, {mappings} mappings, {publications} publications)",
        found.states,
        found.depth,
        start.elapsed().as_secs_f32(),
    );
    found
}
