// SPDX-License-Identifier: MIT OR Apache-2.0

//! What every backend must do, as functions of the backend. They run on the host
//! (tests/backends.rs) and, over the kernel's backend too, in the guest
//! (tests/guest/src/bin/library.rs).
#![allow(clippy::unwrap_used, reason = "a test that fails, fails")]

pub mod race;
pub mod region;
pub mod shadow;
pub mod space;

use jitfd::{Backend, Fallback, JitFd, Options, RegionOptions, Validated, validate};

/// Each test by its name: the argument is a macro that is given all of them.
#[macro_export]
macro_rules! each_behaviour {
    ($macro:ident) => {
        $macro! {
            region::appended_code_runs_where_it_is_said_to_be,
            region::a_batch_is_one_publication,
            region::too_many_chunks_are_refused,
            region::data_can_be_read_at_once,
            region::code_within_lines_starts_with_one,
            region::only_declared_entries_are_entered,
            region::reserved_ranges_are_filled_once,
            region::a_region_fills_up_and_can_be_sealed,
            region::capacities_have_bounds,
            region::somebody_else_may_publish_in_between,
            region::emitting_is_repeated_for_another_place,
            region::branches_between_chunks_are_checked,
            region::the_parts_work_alone,
            region::many_threads_append_to_one_region,
            region::a_region_lies_in_its_window,
            race::what_was_validated_is_what_is_published,
            space::code_is_found_by_every_address_in_it,
            space::sixteen_trap_bytes_precede_the_first_function_of_a_region,
            space::an_address_is_known_before_its_code,
            space::slots_of_others_and_slots_given_up_are_refused,
            space::it_grows_until_its_bound,
            space::a_batch_stays_together,
            space::regions_reach_each_other_and_what_they_must,
            space::one_request_can_ask_for_a_place,
            space::linked_items_call_each_other_and_what_is_far,
            space::what_cannot_be_linked_leaves_no_function,
            space::listeners_hear_of_all_code,
            space::many_threads_compile_at_once,
            space::signal_handlers_can_look_up,
            space::code_for_another_address_is_moved,
            shadow::the_code_space_is_its_shadow,
        }
    };
}

type Function = extern "C" fn() -> i32;

fn options(backend: Backend) -> RegionOptions {
    RegionOptions::new().fallback(Fallback::Only(backend))
}

fn create(backend: Backend, capacity: usize) -> JitFd {
    let region = options(backend).create(capacity).unwrap();
    assert_eq!(region.backend(), backend);
    region
}

/// mov eax, value; ret
fn returns(value: i32) -> Validated {
    let mut code = vec![0xb8];
    code.extend(value.to_le_bytes());
    code.push(0xc3);
    validate(&code, &Options::new()).unwrap()
}

fn run(region: &JitFd, offset: usize) -> i32 {
    // SAFETY: the tests publish such functions at the offsets they run.
    unsafe { region.entry::<Function>(offset).unwrap()() }
}

fn read(region: &JitFd, offset: usize, len: usize) -> Vec<u8> {
    assert!(offset + len <= region.capacity());
    let start = region.base().wrapping_add(offset);
    // SAFETY: inside the region; the tests read pages that have code.
    (0..len)
        .map(|at| unsafe { start.wrapping_add(at).read_volatile() })
        .collect()
}
