// SPDX-License-Identifier: GPL-2.0
//! Attackers and victims: processes of two users, of which one does its worst with
//! `/dev/jit` and the other must not notice. Every test asserts what the victim
//! still does, and the errno with which the attack ends.
//!
//! What is measured is counted: memory by the kernel, progress by what somebody
//! else gets done meanwhile. A clock decides only that nothing moves any more.

mod bounds;
mod innocent;
mod work;

mod accounts;
mod bystander;
mod hoard;
mod holders;
mod killed;
mod no_memory;
mod staging;
mod starved;
mod visible;

use std::process::ExitCode;
use std::time::Duration;

use crate::suite::harness;

/// Most take a second. Longer than this, something has stalled, whatever else the
/// machine does.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let groups = [
        staging::tests(),
        hoard::tests(),
        killed::tests(),
        visible::tests(),
        holders::tests(),
        starved::tests(),
        no_memory::tests(),
        bystander::tests(),
        // These load the module anew.
        accounts::tests(),
    ];
    let tests = groups.into_iter().flatten();
    harness::main(tests.map(|test| test.within(LIMIT)).collect())
}
