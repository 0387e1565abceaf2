// SPDX-License-Identifier: MIT OR Apache-2.0

//! What every backend must do, as functions of the backend. They run on the host
//! (tests/backends.rs) and, over the kernel's backend too, in the guest
//! (tests/guest/src/bin/library.rs).
#![allow(clippy::unwrap_used, reason = "a test that fails, fails")]

pub mod adopt;
pub mod beside;
pub mod callers;
pub mod chain;
pub mod closure;
pub mod code;
pub mod limits;
mod process;
pub mod race;
pub mod random;
pub mod region;
pub mod registers;
pub mod save_all;
pub mod semantics;
pub mod shadow;
pub mod space;
pub mod stepping;
pub mod table;
pub mod thunk;
pub mod trap;
pub mod unwinder;

use jitfd::{Backend, Chunk, Error, Fallback, Jit, Reason, Region, Rules, validate};
use std::fs::File;
use std::os::unix::fs::FileExt;

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
            region::a_place_that_no_cursor_gives_is_refused,
            region::only_declared_entries_are_entered,
            region::reserved_ranges_are_filled_once,
            region::a_region_fills_up_and_can_be_sealed,
            region::capacities_have_bounds,
            region::somebody_else_may_publish_in_between,
            region::a_place_is_reached_whatever_it_was_asked_with,
            region::emitting_is_repeated_for_another_place,
            region::branches_between_chunks_are_checked,
            region::branches_leave_only_to_what_they_may,
            region::the_parts_work_alone,
            region::many_threads_append_to_one_region,
            region::a_region_lies_in_its_window,
            race::what_was_validated_is_what_is_published,
            space::code_is_found_by_every_address_in_it,
            space::sixteen_trap_bytes_precede_the_first_function_of_a_region,
            space::an_address_is_known_before_its_code,
            space::slots_of_others_and_slots_given_up_are_refused,
            space::a_compiler_that_panics_leaves_nothing_reserved,
            space::it_grows_until_its_bound,
            space::what_just_fits_is_taken,
            space::a_batch_stays_together,
            space::regions_reach_each_other_and_what_they_must,
            space::one_request_can_ask_for_a_place,
            space::branches_leave_for_the_start_of_a_function,
            space::linked_items_call_each_other_and_what_is_far,
            space::what_cannot_be_linked_leaves_no_function,
            space::no_item_decides_what_another_is,
            space::listeners_hear_of_all_code,
            space::many_threads_compile_at_once,
            space::signal_handlers_can_look_up,
            space::code_for_another_address_is_moved,
            space::linked_items_follow_the_rules,
            space::linked_code_enters_moved_code,
            space::code_stays_within_lines,
            space::the_largest_regions_reach_each_other,
            space::regions_for_perf_maps_work_like_others,
            unwinder::backtraces_go_through_generated_code,
            unwinder::panics_pass_through_generated_code,
            unwinder::many_tables_come_and_go,
            shadow::the_code_space_is_its_shadow,
            semantics::what_is_not_published_is_a_trap,
            semantics::code_may_cross_pages,
            semantics::refusals_come_in_their_order,
            semantics::a_refused_call_changes_nothing,
            semantics::counters_count,
            semantics::a_mapping_sees_what_comes_later,
            semantics::the_largest_region_costs_nothing_until_it_is_used,
            semantics::only_the_kernels_handles_are_descriptors,
            semantics::a_forked_child_runs_code_and_publishes_none,
            semantics::a_region_that_a_child_drops_stays,
            semantics::no_mapping_is_writable_and_executable,
            trap::reserved_code_traps_until_it_is_filled,
            trap::a_page_without_code_is_not_there,
            trap::a_store_to_code_is_refused,
            code::finished_code_runs,
            code::finished_code_may_be_large,
            code::branches_of_finished_code_are_checked,
            code::code_takes_the_place_of_pages,
            code::pages_become_code_and_memory_again,
            adopt::a_child_goes_on_at_the_same_addresses,
            adopt::what_the_parent_does_meanwhile_stays_its_own,
            adopt::a_late_copy_is_whole,
            adopt::a_copy_is_not_sealed,
            adopt::a_region_can_be_cloned_elsewhere,
            adopt::a_child_goes_on_with_a_code_space,
            adopt::a_child_of_a_region_for_any_process_needs_no_copy,
            limits::a_limit_on_files_is_an_error_and_no_signal,
            limits::a_limit_on_addresses_takes_no_code_away,
            limits::the_probe_and_the_choice_agree_under_a_limit_on_files,
            limits::a_probe_that_cannot_fork_says_so,
            limits::a_region_has_two_descriptors_at_most,
            limits::descriptors_that_the_program_closes_are_missed,
            beside::code_runs_while_more_is_appended,
            beside::code_runs_while_more_is_filled_in,
            table::the_carrier_has_the_context_and_all_else_is_as_it_was,
            table::many_trampolines_use_few_mappings,
            table::one_after_the_other_needs_one_copy,
            table::a_stale_call_is_a_trap,
            table::a_free_slot_holds_nothing_of_its_owner,
            table::raw_entries_stay_until_they_are_released,
            table::a_trampoline_released_twice_has_one_owner,
            table::a_thread_keeps_slots_of_several_tables,
            table::threads_never_share_a_slot,
            table::entries_may_be_dropped_by_other_threads,
            table::tables_do_not_mix,
            table::a_thread_outlives_its_tables,
            table::a_forked_child_has_entries_of_its_own,
            table::a_call_that_fails_changes_nothing,
            table::no_page_of_a_copy_is_writable_and_executable,
            thunk::all_registers_are_set_at_once,
            thunk::a_register_that_is_not_set_stays,
            thunk::values_are_pushed_in_order,
            thunk::another_stack_can_be_pushed_on,
            thunk::thunks_are_published_near_and_far,
            thunk::no_store_changes_a_thunk,
            closure::up_to_twelve_arguments_arrive,
            closure::arguments_of_all_types_arrive,
            closure::a_result_is_extended_as_its_type_says,
            closure::the_c_library_calls_closures,
            closure::a_leaked_closure_runs_when_the_process_ends,
            closure::what_is_captured_is_dropped_once,
            closure::a_call_after_the_drop_is_a_trap,
            closure::a_closure_that_changes_is_called_by_one_at_a_time,
            closure::a_closure_that_is_used_up_is_called_once,
            closure::panics_pass_or_end_the_process,
            closure::a_table_serves_the_types_that_leave_its_carrier_free,
            closure::a_closure_keeps_its_table,
            closure::many_closures_are_called_by_many_threads,
            registers::fourteen_mixed_arguments_are_read_in_order,
            registers::registers_and_stack_are_those_of_the_call,
            registers::a_variadic_function_knows_how_many_vector_registers_are_used,
            registers::two_registers_are_returned,
            registers::what_is_not_set_is_zero,
            registers::panics_pass_through_saved_registers,
            save_all::all_registers_are_seen_and_come_back,
            save_all::every_register_can_be_changed,
            save_all::wide_vectors_come_back,
            save_all::a_trampoline_jumps_elsewhere_with_changed_registers,
            save_all::a_handler_may_be_a_function,
            save_all::many_copies_know_which_trampoline_was_entered,
            save_all::panics_pass_through_a_return_trampoline,
            callers::handlers_find_their_callers,
            stepping::callers_are_found_in_every_instruction_of_a_closure,
            stepping::callers_are_found_in_every_instruction_that_saves_registers,
            stepping::callers_are_found_in_every_instruction_of_a_return_trampoline,
            stepping::callers_are_found_in_every_instruction_of_a_thunk,
            random::random_calls_do_what_a_model_does,
        }
    };
}

type Function = extern "C" fn() -> i32;

fn jit(backend: Backend) -> Jit {
    Jit::open(Fallback::Only(backend)).unwrap()
}

fn create(backend: Backend, capacity: usize) -> Region {
    let region = jit(backend).region(capacity).unwrap();
    assert_eq!(region.backend(), backend);
    region
}

/// Whether a branch to another chunk goes to none of its entries.
fn is_no_entry(error: &Error) -> bool {
    matches!(error, Error::Code(error) if matches!(error.reason, Reason::NotAnEntry { .. }))
}

/// A jump, which lies at the address `at`, to the address `to`, by these rules.
fn jump_to(at: usize, to: usize, rules: &Rules) -> Chunk {
    let distance = i32::try_from(to as i64 - (at + 5) as i64).unwrap();
    let code = [&[0xe9][..], &distance.to_le_bytes()].concat();
    validate(&code, rules).unwrap()
}

/// The branch and its target, if that is where it may not leave to.
fn leaves(error: &Error) -> Option<(usize, usize)> {
    match error {
        Error::Code(error) => match error.reason {
            Reason::LeavesTo { branch, target } => Some((branch, target)),
            _ => None,
        },
        _ => None,
    }
}

/// mov eax, value; ret
fn returns(value: i32) -> Chunk {
    let mut code = vec![0xb8];
    code.extend(value.to_le_bytes());
    code.push(0xc3);
    validate(&code, &Rules::new()).unwrap()
}

fn run(region: &Region, offset: usize) -> i32 {
    // SAFETY: the tests publish such functions at the offsets they run.
    unsafe { region.mapping().entry::<Function>(offset).unwrap()() }
}

/// The newest bytes, by a system call. A load may see older ones: 0xCC where code
/// was published without data.
fn read(region: &Region, offset: usize, len: usize) -> Vec<u8> {
    let memory = File::open("/proc/self/mem").unwrap();
    let mut bytes = vec![0; len];
    let at = region.mapping().address() + offset;
    memory.read_exact_at(&mut bytes, at as u64).unwrap();
    bytes
}

/// The same by loads: for what the region says can be read at once.
fn load(region: &Region, offset: usize, len: usize) -> Vec<u8> {
    assert!(offset + len <= region.mapping().len());
    let start: *const u8 = std::ptr::with_exposed_provenance(region.mapping().address() + offset);
    let at = |at| start.wrapping_add(at);
    // SAFETY: inside the region; the tests load from pages that have code.
    (0..len)
        .map(|offset| unsafe { at(offset).read_volatile() })
        .collect()
}
