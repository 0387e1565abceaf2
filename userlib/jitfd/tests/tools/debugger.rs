// SPDX-License-Identifier: MIT OR Apache-2.0

//! gdb.

use crate::chain::chain;
use crate::run::{Folder, has, jit, text, tool};
use jitfd::space::SpaceOptions;
use jitfd::space::Symbol;
use jitfd::tools::GdbJit;

#[test]
#[ignore = "gdb runs it"]
fn child_stops_in_generated_code() {
    // int3; nop; ...
    let chain = chain(
        jit().space(SpaceOptions::default()).unwrap(),
        [0xcc, 0x90, 0x90, 0x90, 0x90],
        &[],
    );
    let gdb = GdbJit::default();
    let (inner, outer) = ([0; 14], [0; 14]);
    let codes = [
        Symbol {
            name: "jitfd_inner",
            address: chain.inner.address,
            bytes: &inner,
        },
        Symbol {
            name: "jitfd_outer",
            address: chain.outer.address,
            bytes: &outer,
        },
    ];
    gdb.add(&codes, chain.eh_frame().bytes());
    chain.call();
    drop(gdb);
    // Unknown from here on.
    chain.call();
}

#[test]
#[ignore = "gdb runs it"]
fn child_forks_and_stops_in_generated_code() {
    let chain = chain(
        jit().space(SpaceOptions::default()).unwrap(),
        [0xcc, 0x90, 0x90, 0x90, 0x90],
        &[],
    );
    let (inherited, own) = (GdbJit::default(), GdbJit::default());
    let code = [0; 14];
    let outer = Symbol {
        name: "jitfd_outer",
        address: chain.outer.address,
        bytes: &code,
    };
    inherited.add(&[outer], chain.eh_frame().bytes());
    // SAFETY: the child allocates, calls generated code, and ends.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            let inner = Symbol {
                name: "jitfd_inner",
                address: chain.inner.address,
                bytes: &code,
            };
            own.add(&[inner], &[]);
            chain.call();
            libc::_exit(0);
        }
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
}

#[test]
fn gdb_follows_a_forked_child() {
    if !has("gdb") {
        return;
    }
    let child = "debugger::child_forks_and_stops_in_generated_code";
    let mut commands = vec!["-nx", "-batch"];
    for command in [
        "set debuginfod enabled off",
        "set startup-with-shell off",
        "set follow-fork-mode child",
        "run",
        "backtrace",
    ] {
        commands.extend(["-ex", command]);
    }
    commands.push("--args");
    let output = tool("gdb", &Folder::new("gdb-fork"), &commands, Some(child));
    let text = text(&output);
    if !text.contains("SIGTRAP") {
        return crate::run::skip(&format!("gdb can't run a program here: {text}"));
    }
    for name in ["in jitfd_inner", "in jitfd_outer"] {
        assert!(text.contains(name), "no {name} in {text}");
    }
}

#[test]
fn gdb_shows_names_and_callers() {
    if !has("gdb") {
        return;
    }
    let child = "debugger::child_stops_in_generated_code";
    let commands = [
        "-nx",
        "-batch",
        "-ex",
        "set debuginfod enabled off",
        "-ex",
        "set startup-with-shell off",
        "-ex",
        "run",
        "-ex",
        "backtrace",
        "-ex",
        "info symbol $pc",
        "-ex",
        "continue",
        "-ex",
        "echo second:\\n",
        "-ex",
        "backtrace 1",
        "--args",
    ];
    let output = tool("gdb", &Folder::new("gdb"), &commands, Some(child));
    let text = text(&output);
    if !text.contains("SIGTRAP") {
        return crate::run::skip(&format!("gdb can't run a program here: {text}"));
    }
    let (first, second) = text.split_once("second:").unwrap();
    let mut rest = first;
    for frame in [
        "#0 ",
        "jitfd_inner",
        "#1 ",
        "jitfd_outer",
        "#2 ",
        "call",
        "child_stops",
    ] {
        let at = rest.find(frame);
        rest = &rest[at.unwrap_or_else(|| panic!("no {frame} in {text}"))..];
    }
    assert!(first.contains("jitfd_inner + 5 in section .text"), "{text}");
    assert!(!second.contains("jitfd_inner"), "{text}");
}
