// SPDX-License-Identifier: GPL-2.0

//! Each rule is needed: without it the explorer finds a way to break a promise.

use jitfd_model::{
    cases::{
        append, int3, mappings, processes, remap, straddle, switches, synchronous, unprotected,
    },
    rules::Drop,
    run::{explore, find_counterexample},
    scenario::Scenario,
};

const FREED: &str = "no freed page is executed";
const TORN: &str = "no torn or foreign code";
const FALSE_TRAP: &str = "no false SIGTRAP";
const LOST_TRAP: &str = "no lost SIGTRAP";
const ENDLESS: &str = "every retry ends";
const SYNC: &str = "sync is sync";

fn breaks(rule: Drop, scenario: Scenario, promise: &str) {
    let found = find_counterexample(scenario, rule);
    println!("without {rule:?}: {:?}", found.broken);
    let names = found
        .broken
        .iter()
        .any(|&(property, _)| property == promise);
    assert!(
        names,
        "{rule:?} may be dropped and {promise:?} still holds: {found:?}"
    );
}

#[test]
fn r1_mapped_versions_are_not_written() {
    breaks(Drop::ReplaceMapped, append(), TORN);
    breaks(Drop::RecheckSeen, append(), TORN);
}

#[test]
fn r2_pages_without_code_are_not_mapped() {
    breaks(Drop::AbsentNotMapped, append(), TORN);
}

#[test]
fn r3_the_last_page_is_first() {
    breaks(Drop::Descending, straddle(), TORN);
}

#[test]
fn r4_the_slot_is_first() {
    breaks(Drop::SlotFirst, append(), FALSE_TRAP);
}

#[test]
fn r5_the_right_one_of_retry_and_sigtrap() {
    breaks(Drop::Resume, append(), FALSE_TRAP);
    breaks(Drop::Deliver, append(), LOST_TRAP);
    breaks(Drop::Deliver, int3(), LOST_TRAP);
    breaks(Drop::TellInt3, int3(), LOST_TRAP);
    breaks(Drop::FlushBeforeRetry, append(), ENDLESS);
    breaks(Drop::AmbiguousFlush, int3(), FALSE_TRAP);
}

#[test]
fn r6_every_cpu_is_waited_for() {
    breaks(Drop::WaitForCpus, append(), FREED);
    breaks(Drop::FlushAtTick, append(), FREED);
    breaks(Drop::Bump, switches(), FREED);
    breaks(Drop::BumpBeforeMask, switches(), FREED);
    breaks(Drop::Epoch, append(), FREED);
    breaks(Drop::Bump, processes(), FREED);
    breaks(Drop::PendingFlush, remap(), FREED);
    breaks(Drop::KeepAccessed, mappings(), FREED);
}

#[test]
fn a_fill_across_live_pages_is_flushed_for() {
    breaks(Drop::StraddleFlush, straddle(), TORN);
    breaks(Drop::Outdated, straddle(), TORN);
}

#[test]
fn a_synchronous_publication_flushes() {
    breaks(Drop::SyncFlush, synchronous(), SYNC);
    breaks(Drop::Outdated, synchronous(), SYNC);
}

/// Not a mutation: what is not promised does happen.
#[test]
fn the_documented_hazard_is_real() {
    let found = explore(unprotected());
    assert!(found.broken.iter().any(|&(property, _)| property == TORN));
}
