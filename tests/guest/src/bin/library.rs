// SPDX-License-Identifier: GPL-2.0
//! What the library promises of regions and code, over each of its backends:
//! the functions of `userlib/jitfd/tests/behaviour`, which run on the host too. Here
//! the kernel's backend is one of them.
//!
//! ```text
//! library [WORD...]   the tests whose name contains one of the words, or all
//! ```

#[path = "../../../../userlib/jitfd/tests/behaviour/mod.rs"]
mod behaviour;

/// The harness of the suite, and of its tools what that needs.
#[expect(
    dead_code,
    unused_macros,
    unused_imports,
    reason = "the suite uses all of it"
)]
#[path = "../suite"]
mod suite {
    pub mod harness;
    pub mod outcome;
    pub mod patience;
    pub mod sys;
}

use jitfd::{Backend, Fallback, Jit};
use std::time::Duration;
use suite::harness::{self, Test};

/// A test of one backend, which has to be there.
fn test(backend: Backend, name: &str, run: fn(Backend)) -> Test {
    let short = match backend {
        Backend::Kernel => "kernel",
        Backend::DualMapping => "dual",
        _ => "flips",
    };
    let test = Test::new(format!("{short}::{name}"), move || {
        if let Err(error) = Jit::open(Fallback::Only(backend)) {
            return suite::outcome::failed(format!("no {backend}: {error}"));
        }
        run(backend);
        Ok(())
    });
    // Where each publication interrupts the other CPUs, emulation is slow.
    test.within(Duration::from_secs(120))
}

macro_rules! list {
    ($($file:ident::$name:ident),* $(,)?) => {
        [$((concat!(stringify!($file), "::", stringify!($name)), behaviour::$file::$name as fn(Backend))),*]
    };
}

fn main() -> std::process::ExitCode {
    // Each test is a process of its own, and would say what it was told to use.
    jitfd::set_fallback_hook(|_| {});
    let tests = Backend::ALL
        .into_iter()
        .flat_map(|backend| each_behaviour!(list).map(|(name, run)| test(backend, name, run)));
    harness::main(tests.collect())
}
