// SPDX-License-Identifier: GPL-2.0
//! Trampolines in a process that has given up the ordinary ways to make memory
//! executable (`PR_SET_MDWE`): what the library promises of them over each backend
//! that still works, and what only the guest can show.
//!
//! ```text
//! trampolines [WORD...]   the tests whose name contains one of the words, or all
//! ```

#[path = "../../../../userlib/jitfd/tests/behaviour/mod.rs"]
mod behaviour;

/// The harness of the suite, and of its tools what these tests need.
#[expect(dead_code, reason = "the suite uses all of it")]
#[path = "../suite"]
mod suite {
    pub mod harness;
    pub mod outcome;
    pub mod patience;
    pub mod process;
    pub mod sys;
}

#[path = "../trampolines/mod.rs"]
mod trampolines;

use jitfd::Backend;
use std::time::Duration;
use suite::harness::{self, Test};

/// The behaviours that are of trampolines.
const FILES: [&str; 7] = [
    "thunk::",
    "table::",
    "closure::",
    "registers::",
    "save_all::",
    "callers::",
    "stepping::",
];

/// Those that work under `PR_SET_MDWE`.
const BACKENDS: [(&str, Backend); 2] =
    [("kernel", Backend::Kernel), ("dual", Backend::DualMapping)];

macro_rules! list {
    ($($file:ident::$name:ident),* $(,)?) => {
        [$((concat!(stringify!($file), "::", stringify!($name)), behaviour::$file::$name as fn(Backend))),*]
    };
}

fn behaviours() -> Vec<Test> {
    let all = each_behaviour!(list);
    for file in FILES {
        let known = all.iter().any(|(name, _)| name.starts_with(file));
        assert!(known, "no behaviour is in a file {file}: was it renamed?");
    }
    let ours = |name: &str| FILES.iter().any(|file| name.starts_with(file));
    let ours = all.iter().filter(|(name, _)| ours(name));
    let on_each = ours.flat_map(|&(name, run)| {
        BACKENDS.map(|(short, backend)| {
            let test = Test::new(format!("{short}::{name}"), move || {
                run(backend);
                Ok(())
            });
            test.within(Duration::from_secs(120))
        })
    });
    on_each.collect()
}

fn main() -> std::process::ExitCode {
    // Each test is a process of its own, and would say what it was told to use.
    jitfd::set_fallback_hook(|_| {});
    if let Err(error) = trampolines::harden() {
        eprintln!("PR_SET_MDWE: {error}");
        return std::process::ExitCode::FAILURE;
    }
    let mut tests = trampolines::tests();
    tests.extend(behaviours());
    harness::main(tests)
}
