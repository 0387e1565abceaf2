// SPDX-License-Identifier: MIT OR Apache-2.0

//! That code does not come from the kernel is said once per process, on standard
//! error or to the hook. Both are of the whole process, so each is tried in a
//! process of its own.

use jitfd::{Backend, Error, Fallback, Jit, Region, Rules, set_fallback_hook, validate};
use jitfd_trampoline::Closure;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs one of the tests that are ignored here; what it writes to standard error.
fn run(test: &str) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command
        .args(["--exact", test, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

fn region(fallback: Fallback) -> Result<Region, Error> {
    Jit::open(fallback)?.region(4096)
}

#[test]
#[ignore = "a process of the other tests"]
fn process_without_a_hook() {
    let chunk = validate(&[0xc3], &Rules::new()).unwrap();
    for _ in 0..3 {
        region(Fallback::Only(Backend::DualMapping)).unwrap();
        Jit::open(Fallback::Any).unwrap().code(&chunk).unwrap();
    }
}

static CALLS: AtomicUsize = AtomicUsize::new(0);

#[test]
#[ignore = "a process of the other tests"]
fn process_with_a_hook() {
    let first = set_fallback_hook(|jit| {
        assert_eq!(jit.backend(), Backend::ProtectFlips);
        // No lock is held, so the library can be used.
        region(Fallback::Only(Backend::DualMapping)).unwrap();
        CALLS.fetch_add(1, Ordering::Relaxed);
    });
    assert!(first && !set_fallback_hook(|_| ()));
    for _ in 0..3 {
        region(Fallback::Only(Backend::ProtectFlips)).unwrap();
    }
    assert_eq!(CALLS.load(Ordering::Relaxed), 1);
}

#[test]
#[ignore = "a process of the other tests"]
fn process_with_closures() {
    let jit = Jit::open(Fallback::Any).unwrap();
    Closure::new(&jit, || ()).unwrap();
    Closure::new(&jit, |number: i32| number).unwrap();
}

#[test]
#[ignore = "a process of the other tests"]
fn process_that_asks_for_no_fallback() {
    let _ = region(Fallback::Never);
}

fn lines_of_ours(text: &str) -> Vec<&str> {
    let ours = |line: &&str| line.starts_with("jitfd: ");
    text.lines().filter(ours).collect()
}

#[test]
fn a_fallback_is_reported_once() {
    assert_eq!(
        lines_of_ours(&run("process_without_a_hook")),
        ["jitfd: code is made by dual mapping in this process, as it asked for"]
    );
}

/// The other end of a pipe may be gone as well.
#[test]
fn a_full_standard_error_is_no_error() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let full = File::options().write(true).open("/dev/full").unwrap();
    command.args(["--exact", "process_without_a_hook", "--ignored"]);
    let output = command.arg("--nocapture").stderr(full).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_tables_of_the_process_say_why_they_are_not_the_kernels() {
    let text = run("process_with_closures");
    let lines = lines_of_ours(&text);
    if Path::new("/dev/jit").exists() {
        assert!(lines.is_empty());
    } else {
        assert!(
            lines.len() == 1 && lines[0].contains("not by /dev/jit"),
            "{text}"
        );
    }
}

#[test]
fn a_hook_is_called_instead() {
    assert!(lines_of_ours(&run("process_with_a_hook")).is_empty());
}

#[test]
fn without_a_fallback_nothing_is_said() {
    assert!(lines_of_ours(&run("process_that_asks_for_no_fallback")).is_empty());
}
