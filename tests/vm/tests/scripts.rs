// SPDX-License-Identifier: GPL-2.0
//! Runs the tests of the set-up scripts: each is a function of `lib-test.sh`, which
//! needs root, for its mounts.

use std::path::Path;
use std::process::Command;

/// What `lib-test.sh` ends with where it can't run.
const SKIPPED: i32 = 77;

fn run(test: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lib-test.sh");
    let output = Command::new(script)
        .arg(test)
        .output()
        .expect("lib-test.sh starts");
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
}
