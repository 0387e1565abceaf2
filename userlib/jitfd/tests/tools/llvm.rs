// SPDX-License-Identifier: MIT OR Apache-2.0

//! LLVM's unwinder in place of libgcc's: the behaviours that unwind, in a process
//! in which it was loaded first.

use std::path::PathBuf;
use std::process::Command;

/// Debian's packages of it, one for each version.
fn library() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let folders = versions.map(|entry| entry.path());
    let mut found: Vec<_> = folders
        .filter(|path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with("llvm-")
        })
        .map(|path| path.join("lib/libunwind.so.1"))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop()
}

#[test]
fn llvm_unwinds_generated_code() {
    let required = std::env::var_os("JITFD_TOOLS").is_some_and(|word| word == "required");
    let Some(library) = library() else {
        assert!(!required, "LLVM's libunwind is not installed");
        eprintln!("SKIP: LLVM's libunwind is not installed; tests/tools.sh does that");
        return;
    };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["through_generated_code", "many_tables_come_and_go"]);
    command
        .env("LD_PRELOAD", &library)
        .env("LD_DEBUG", "bindings");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{library:?}: {text}");
    assert!(text.contains("ok. 9 passed"), "{text}");
    // It was this unwinder, not libgcc's.
    let bindings = String::from_utf8_lossy(&output.stderr);
    for symbol in ["__register_frame", "_Unwind_Backtrace"] {
        let of_llvm = |line: &str| {
            let to = line.split_once(" to ").unwrap_or_default().1;
            to.contains(symbol) && to.starts_with(&*library.to_string_lossy())
        };
        assert!(bindings.lines().any(of_llvm), "{symbol}: {bindings}");
    }
}
