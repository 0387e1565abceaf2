// SPDX-License-Identifier: GPL-2.0

//! "Never accessed = never cached" is an assumption: what goes wrong on a CPU that
//! caches an entry and sets its Accessed bit later, or never, if the module relies
//! on the bit; and that nothing does with `accessed_bit=0`.

use jitfd_model::{
    cases::{self, sets_accessed_late},
    rules::Rules,
    run::{explore, find_counterexample},
    scenario::Scenario,
};

fn holds_without_the_bit(scenario: Scenario) {
    let name = scenario.name;
    let found = explore(sets_accessed_late(scenario, false));
    assert!(found.broken.is_empty(), "{name}: {found:?}");
    assert!(found.finished, "{name}: never comes to an end");
}

fn breaks_with_the_bit(scenario: Scenario, promise: &'static str) {
    let late = sets_accessed_late(scenario, true);
    let found = find_counterexample(late, Rules::default(), promise);
    assert!(found.breaks(promise), "{promise:?} holds: {found:?}");
}

#[test]
fn relied_on_where_it_is_set_late() {
    breaks_with_the_bit(cases::versions(), "no freed page is executed");
    breaks_with_the_bit(cases::straddle(), "no freed page is executed");
    breaks_with_the_bit(cases::synchronous(), "sync is sync");
}

#[test]
fn not_relied_on_pages() {
    holds_without_the_bit(cases::append());
    holds_without_the_bit(cases::versions());
    holds_without_the_bit(cases::straddle());
    holds_without_the_bit(cases::first_page_waits());
    holds_without_the_bit(cases::other_page_waits());
    holds_without_the_bit(cases::unused_version());
    holds_without_the_bit(cases::synchronous());
    holds_without_the_bit(cases::int3_of_two());
    holds_without_the_bit(cases::full_queue());
}

#[test]
fn not_relied_on_mappings() {
    holds_without_the_bit(cases::mappings());
    holds_without_the_bit(cases::remap());
    holds_without_the_bit(cases::processes());
}

#[test]
fn not_relied_on_cpus_that_come_and_go() {
    holds_without_the_bit(cases::switches());
    holds_without_the_bit(cases::spared());
    holds_without_the_bit(cases::spared_synchronous());
}
