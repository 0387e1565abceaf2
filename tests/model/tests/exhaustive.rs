// SPDX-License-Identifier: GPL-2.0

//! The protocol as it is holds in every scenario, in all of its states. The
//! tests with larger bounds are ignored by default; run them by
//! `cargo test -p jitfd-model --release -- --ignored --nocapture`.

use jitfd_model::{cases, run::explore, scenario::Scenario};

fn holds(scenario: Scenario) {
    let name = scenario.name;
    let found = explore(scenario);
    assert!(found.broken.is_empty(), "{name}: {found:?}");
    assert!(found.finished, "{name}: never comes to an end");
}

#[test]
fn append() {
    holds(cases::append());
}

#[test]
fn straddle() {
    holds(cases::straddle());
}

#[test]
fn straddle_over_pages_that_wait() {
    holds(cases::first_page_waits());
    holds(cases::both_pages_wait());
    holds(cases::unused_version());
}

#[test]
fn other_page_waits() {
    holds(cases::other_page_waits());
}

#[test]
fn other_regions() {
    holds(cases::other_regions());
}

#[test]
fn full_queue() {
    holds(cases::full_queue());
    holds(cases::full_queue_of_two());
}

#[test]
fn synchronous() {
    holds(cases::synchronous());
}

#[test]
fn fresh() {
    holds(cases::fresh());
}

#[test]
fn int3() {
    holds(cases::int3());
    holds(cases::int3_of_two());
}

#[test]
fn switches() {
    holds(cases::switches());
}

#[test]
fn processes() {
    holds(cases::processes());
}

#[test]
fn spared() {
    holds(cases::spared());
    holds(cases::spared_and_forgotten());
    holds(cases::spared_by_exec());
}

#[test]
fn spared_when_it_is_flushed() {
    holds(cases::spared_straddle());
    holds(cases::spared_synchronous());
}

#[test]
fn mappings() {
    holds(cases::mappings());
}

#[test]
fn remap() {
    holds(cases::remap());
}

#[test]
fn on_three_cpus() {
    holds(cases::with_one_more_cpu(cases::append()));
    holds(cases::with_one_more_cpu(cases::straddle()));
    holds(cases::with_one_more_cpu(cases::mappings()));
}

#[test]
fn straddle_and_remap() {
    holds(cases::straddle_remap());
}

#[test]
fn remap_and_switches() {
    holds(cases::remap_switches());
}

#[test]
fn straddle_in_two_processes() {
    holds(cases::straddle_processes());
}

#[test]
#[ignore = "larger bounds: many seconds"]
fn large_switches_and_versions() {
    holds(cases::switches_and_versions());
}

#[test]
#[ignore = "larger bounds: many seconds"]
fn large_lazy_processes() {
    holds(cases::lazy_processes());
}

#[test]
#[ignore = "larger bounds: a minute"]
fn large_spared_lazily_when_it_is_flushed() {
    holds(cases::spared_lazy_straddle());
}

#[test]
#[ignore = "larger bounds: a minute"]
fn large_spared_on_three_cpus() {
    holds(cases::with_one_more_cpu(cases::spared()));
}
