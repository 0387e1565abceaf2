// SPDX-License-Identifier: GPL-2.0

//! The life of a page: every transition, and when a flush is due.

use jitfd_plan::lifecycle::{
    Change, FaultAction, PageState, Swapped, change, must_flush_after, must_flush_before, on_fault,
};

const STATES: [PageState; 3] = [PageState::Absent, PageState::Unseen, PageState::Live];

/// Rule R1.
#[test]
fn only_a_page_that_nobody_has_seen_is_written() {
    let changes = STATES.map(change);
    assert_eq!(changes, [Change::Create, Change::InPlace, Change::Replace]);
}

/// Rules R2 and R8.
#[test]
fn a_fault_maps_code_and_never_for_writing() {
    for state in STATES {
        let installs = on_fault(state, false) == FaultAction::Install;
        assert_eq!(installs, state != PageState::Absent);
        assert_eq!(on_fault(state, true), FaultAction::Refuse);
    }
}

#[test]
fn a_flush_is_due_where_a_cpu_may_hold_an_old_version() {
    for bits in 0u8..8 {
        let swapped = Swapped {
            entries: u32::from(bits & 4),
            accessed: bits & 1 != 0,
            outdated: bits & 2 != 0,
        };
        let stale = bits & 3 != 0;
        assert_eq!(swapped.may_be_stale(), stale);
        assert!(!must_flush_before(false, swapped));
        assert_eq!(must_flush_before(true, swapped), stale);
    }
    assert!(must_flush_after(true, true));
    assert!(!must_flush_after(false, true) && !must_flush_after(true, false));
}
