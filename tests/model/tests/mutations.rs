// SPDX-License-Identifier: GPL-2.0

//! Each rule is needed: without it the explorer finds a way to break a promise.

use jitfd_model::{
    cases::{
        append, first_page_waits, full_queue, full_queue_of_two, int3, int3_of_two, mappings,
        other_page_waits, other_regions, processes, remap, spared, spared_and_forgotten,
        spared_by_exec, spared_straddle, spared_synchronous, straddle, switches, synchronous,
        unprotected, unused_version, versions,
    },
    rules::{Drop, Rules},
    run::{explore, find_counterexample},
    scenario::Scenario,
};

const FREED: &str = "no freed page is executed";
const TORN: &str = "no torn or foreign code";
const FALSE_TRAP: &str = "no false SIGTRAP";
const LOST_TRAP: &str = "no lost SIGTRAP";
const ENDLESS: &str = "every retry ends";
const SYNC: &str = "sync is sync";
const NEEDLESS: &str = "no flush for another page's sake";

fn breaks(rule: Drop, scenario: Scenario, promise: &'static str) {
    println!("without {rule:?}:");
    let found = find_counterexample(scenario, Rules::without(rule), promise);
    assert!(
        found.breaks(promise),
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
    breaks(Drop::AmbiguousBefore, int3_of_two(), FALSE_TRAP);
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
fn r6_a_cpu_is_spared_only_if_it_runs_something_else() {
    breaks(Drop::FlushAtTick, spared(), FREED);
    breaks(Drop::FlushAtInterrupt, straddle(), TORN);
    breaks(Drop::FlushAtInterrupt, synchronous(), SYNC);
    breaks(Drop::FlushAtInterrupt, full_queue(), FREED);
    breaks(Drop::AllMms, processes(), FREED);
    breaks(Drop::LeaveUnloaded, switches(), FREED);
}

#[test]
fn r6_a_spared_cpu_flushes_when_it_comes_back() {
    breaks(Drop::Bump, spared(), FREED);
    breaks(Drop::Bump, spared_by_exec(), FREED);
    breaks(Drop::Bump, spared_straddle(), TORN);
    breaks(Drop::Bump, spared_synchronous(), SYNC);
    breaks(Drop::BumpBeforeMask, spared_and_forgotten(), FREED);
}

#[test]
fn r11_older_versions_count() {
    breaks(Drop::Outdated, straddle(), TORN);
    breaks(Drop::Outdated, synchronous(), SYNC);
}

#[test]
fn r12_tickets_are_drawn_late_and_over_late() {
    breaks(Drop::EpochAfterSwap, versions(), FREED);
    breaks(Drop::EpochAfterSwap, other_regions(), FREED);
    breaks(Drop::EpochFirst, other_regions(), FREED);
    breaks(Drop::DoneAtEnd, versions(), FREED);
    breaks(Drop::DoneAtEnd, straddle(), FREED);
    breaks(Drop::DoneAtEnd, synchronous(), SYNC);
}

#[test]
fn r13_each_page_has_its_own_ticket() {
    breaks(Drop::PerPage, first_page_waits(), NEEDLESS);
    breaks(Drop::PerPage, other_page_waits(), NEEDLESS);
    breaks(Drop::KeepTicket, unused_version(), TORN);
    breaks(Drop::OwnTicket, straddle(), TORN);
    breaks(Drop::OwnTicket, synchronous(), SYNC);
}

#[test]
fn a_fill_across_live_pages_is_flushed_for() {
    breaks(Drop::StraddleFlush, straddle(), TORN);
    breaks(Drop::StraddleFlush, first_page_waits(), TORN);
}

#[test]
fn a_synchronous_publication_flushes() {
    breaks(Drop::SyncFlush, synchronous(), SYNC);
    breaks(Drop::SyncFlush, other_page_waits(), SYNC);
}

#[test]
fn a_flush_is_for_all_that_waits_and_nothing_else() {
    breaks(Drop::FlushEarlier, straddle(), FREED);
    breaks(Drop::FlushEarlier, full_queue(), FREED);
    breaks(Drop::KeepBefore, full_queue_of_two(), FREED);
    breaks(Drop::EndEarlierOnly, straddle(), FREED);
}

/// Not a mutation: what is not promised does happen.
#[test]
fn the_documented_hazard_is_real() {
    let found = explore(unprotected());
    assert!(found.breaks(TORN));
}
