// SPDX-License-Identifier: GPL-2.0

//! How a run ends badly: one line that says what happened and which seed
//! repeats it, and an exit status. Works from signal handlers and from
//! children.

use std::fmt::Display;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

static SEED: AtomicU64 = AtomicU64::new(0);

/// The exit status of a process that saw a failure.
pub const FAILED: i32 = 1;

/// To be called before anything can fail.
pub fn set_seed(seed: u64) {
    SEED.store(seed, Ordering::Relaxed);
}

/// Ends this process; its parent notices.
pub fn fail(what: impl Display) -> ! {
    let seed = SEED.load(Ordering::Relaxed);
    let _ = writeln!(
        std::io::stdout(),
        "stress: FAILED: {what}; repeat with --seed {seed}"
    );
    let _ = std::io::stdout().flush();
    // Not exit(): threads and handlers of this process may be anywhere.
    crate::sys::exit_now(FAILED)
}

/// A function returned what it must not.
pub fn wrong(id: usize, offset: usize, x: u32, result: u32) -> ! {
    let expected = crate::emit::expected(id as u32, x);
    fail(format_args!(
        "function {id} at offset {offset:#x} returned {result:#x} for {x:#x}, not {expected:#x}"
    ))
}

/// The value of a call that must succeed.
pub fn must<T, E: Display>(result: Result<T, E>, what: &str) -> T {
    result.unwrap_or_else(|error| fail(format_args!("{what}: {error}")))
}
