// SPDX-License-Identifier: GPL-2.0
//! closure-ffi's own tests, and some more, with functions that live in `jitfd`, in
//! processes that have set `PR_SET_MDWE`.
//!
//! ```text
//! closure-ffi [WORD...]   the tests whose name contains one of the words, or all
//! ```

#[path = "../../common/mod.rs"]
mod common;
mod more;
mod slab_alloc;

/// The harness of the guest's tests, and of its tools what that needs.
#[expect(
    dead_code,
    unused_macros,
    unused_imports,
    reason = "the guest's tests use all of it"
)]
#[path = "../../../guest/src/suite"]
mod suite {
    pub mod harness;
    pub mod outcome;
    pub mod patience;
    pub mod sys;
}

/// Modules with closure-ffi's tests, as the build script has made them.
macro_rules! theirs {
    ($($file:ident),*) => {
        $(
            #[allow(warnings, clippy::all, clippy::undocumented_unsafe_blocks, reason = "it is closure-ffi's")]
            mod $file {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($file), ".rs"));
            }
        )*
        const THEIRS: &[(&str, &[(&str, fn())])] = &[$((stringify!($file), $file::TESTS)),*];
    };
}
theirs!(builtin_alloc, custom_alloc, explicit_alloc, macros);

use common::hardening;
use std::process::ExitCode;
use suite::harness::{self, Test};

/// A test that panics if it fails.
fn test(file: &str, name: &str, run: fn()) -> Test {
    Test::new(format!("{file}::{name}"), move || {
        hardening::give_up()?;
        run();
        Ok(())
    })
}

fn main() -> ExitCode {
    let hardened = Test::new(
        "hardening::ordinary_ways_are_refused",
        hardening::ordinary_ways_are_refused,
    );
    let all = THEIRS.iter().chain([&("more", more::TESTS)]);
    let tests =
        all.flat_map(|(file, tests)| tests.iter().map(|(name, run)| test(file, name, *run)));
    harness::main([hardened].into_iter().chain(tests).collect())
}
