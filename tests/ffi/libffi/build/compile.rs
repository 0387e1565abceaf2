// SPDX-License-Identifier: GPL-2.0
//! Compiles the tests, as many at once as there are CPUs.

use crate::cases::Case;
use crate::libffi::Built;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What the tests call and what it becomes: see `src/allocate.rs`.
const RENAMED: [(&str, &str); 2] = [
    ("ffi_closure_alloc", "tests_closure_alloc"),
    ("ffi_closure_free", "tests_closure_free"),
];

/// Makes an object of each case. Returns their paths.
pub fn all(cases: &[Case], libffi: &Built, folder: &Path) -> Vec<PathBuf> {
    fs::create_dir_all(folder).expect("OUT_DIR can be written");
    let objects: Vec<PathBuf> = cases
        .iter()
        .map(|case| folder.join(&case.symbol).with_extension("o"))
        .collect();
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(index) else { return };
                    one(case, libffi, &objects[index]);
                }
            });
        }
    });
    objects
}

fn one(case: &Case, libffi: &Built, object: &Path) {
    let is_c = case.source.extension().is_some_and(|end| end == "c");
    let mut compiler = Command::new(if is_c { "cc" } else { "c++" });
    // Position-independent, as Rust links; sections, so that what one of many
    // tests in a file does not need is dropped.
    compiler
        .args(["-w", "-fPIC", "-ffunction-sections", "-fdata-sections"])
        .args(&case.flags);
    for folder in &libffi.headers {
        compiler.arg("-I").arg(folder);
    }
    run(compiler.arg("-c").arg(&case.source).arg("-o").arg(object));

    let mut rename = Command::new("objcopy");
    rename.arg(format!("--redefine-sym=main={}", case.symbol));
    for (from, to) in RENAMED {
        rename.arg(format!("--redefine-sym={from}={to}"));
    }
    run(rename.arg(object));
    // The tests share names of functions. What C++ has once for each program
    // has to stay so.
    run(Command::new("objcopy")
        .args(["--wildcard", "--keep-global-symbol=DW.ref.*"])
        .arg(format!("--keep-global-symbol={}", case.symbol))
        .arg(object));
}

/// Puts objects into an archive.
pub fn archive(objects: &[PathBuf], archive: &Path) {
    let _ = fs::remove_file(archive);
    run(Command::new("ar").arg("rcs").arg(archive).args(objects));
}

/// The folder of the C++ compiler's static library.
pub fn cxx_libraries() -> PathBuf {
    let output = Command::new("c++")
        .arg("-print-file-name=libstdc++.a")
        .output()
        .expect("there is a C++ compiler");
    let path = String::from_utf8(output.stdout).expect("a path");
    Path::new(path.trim()).with_file_name("")
}

/// Runs a command of the build; its output is what cargo shows if it fails.
pub fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}
