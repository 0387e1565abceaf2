// SPDX-License-Identifier: GPL-2.0
//! Runs the tests of the set-up scripts: each is a function of `lib-test.sh`, which
//! needs root, for its mounts.

use std::path::Path;
use std::process::Command;

/// What `lib-test.sh` ends with where it can't run.
const SKIPPED: i32 = 77;

fn run(test: &str) {
    // Of this checkout, also if another was copied with its programs.
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(".".into());
    let script = Path::new(&folder).join("lib-test.sh");
    // A shell can't undo that a signal is ignored, as in jobs of the background.
    let output = Command::new("env")
        .arg("--default-signal=INT,TERM,HUP")
        .arg(script)
        .arg(test)
        .output()
        .expect("env starts lib-test.sh");
    let said = String::from_utf8_lossy(&output.stdout);
    match output.status.code() {
        Some(0) => {}
        Some(SKIPPED) => println!("skipped: {}", said.trim()),
        _ => panic!(
            "{test}: {}\n{said}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

macro_rules! tests {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name));
            }
        )*

        /// No function of the script is forgotten here.
        #[test]
        fn every_test_is_run() {
            let script = include_str!("../lib-test.sh");
            let tests = script.lines().filter_map(|line| line.strip_suffix("() { # test"));
            assert!(tests.eq([$(stringify!($name)),*]));
        }
    };
}

tests! {
    a_tree_is_deleted
    a_folder_that_is_mounted_twice_is_not_entered
    another_file_system_is_not_entered
    a_mounted_folder_is_not_deleted
    names_with_white_space_are_understood
    a_path_with_a_link_is_understood
    a_half_finished_folder_is_replaced
    mounts_below_a_folder_are_taken_away
    a_mount_on_the_folder_stays
    what_cannot_be_unmounted_is_an_error
    an_interrupted_script_says_so_and_leaves_nothing
    a_script_that_asks_another_ends_with_it
    ctrl_c_ends_what_is_in_a_box
    a_box_in_a_function_ends_too
    a_killed_script_leaves_nothing
    the_next_run_gets_the_lock_of_a_killed_one
    an_orphan_keeps_the_lock_until_it_ends
    who_waits_for_a_lock_can_be_interrupted
    an_answer_is_the_last_line
    a_box_is_closed_and_has_the_status_of_its_command
}
