// SPDX-License-Identifier: GPL-2.0

//! What `src/reduce.rs` leaves out makes no difference: runs in which each CPU
//! caches what it likes and has its number break the same promises, with all
//! rules and without each of them.

use jitfd_model::{
    cases,
    rules::{Drop, Rules},
    run::explore_all,
    scenario::Scenario,
};

fn broken(scenario: Scenario, rules: Rules) -> Vec<&'static str> {
    let found = explore_all(scenario, rules);
    let mut broken: Vec<_> = found.broken.iter().map(|&(property, _)| property).collect();
    broken.sort_unstable();
    broken
}

fn breaks_the_same(scenario: &Scenario, rules: Rules) {
    let name = scenario.name;
    let reduced = broken(scenario.clone(), rules);
    let all = broken(cases::reluctant(scenario.clone()), rules);
    assert_eq!(reduced, all, "{name}, {rules:?}");
}

#[test]
fn with_all_rules() {
    for scenario in [cases::append(), cases::straddle(), cases::unprotected()] {
        breaks_the_same(&scenario, Rules::default());
    }
}

fn without_each_rule(scenario: &Scenario) {
    // Every fault makes a page then: they have no end.
    let bounded = Drop::ALL
        .into_iter()
        .filter(|&rule| rule != Drop::AbsentNotMapped);
    for rule in bounded {
        breaks_the_same(scenario, Rules::without(rule));
    }
}

#[test]
fn without_each_rule_on_one_page() {
    without_each_rule(&cases::int3_of_two());
}

#[test]
#[ignore = "larger bounds: minutes"]
fn large_without_each_rule() {
    let large = [
        cases::append(),
        cases::straddle(),
        cases::other_page_waits(),
    ];
    for scenario in large
        .into_iter()
        .chain([cases::switches(), cases::full_queue()])
    {
        without_each_rule(&scenario);
    }
}
