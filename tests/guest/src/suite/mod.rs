// SPDX-License-Identifier: GPL-2.0
//! The tests, grouped by topic, in the order in which they run.

pub(crate) mod harness;
pub(crate) mod outcome;
pub(crate) mod patience;
pub(crate) mod sys;

pub(crate) mod asm;
pub(crate) mod bad;
pub(crate) mod calls;
pub(crate) mod cgroup;
pub(crate) mod execute;
pub(crate) mod kmod;
pub(crate) mod memory;
pub(crate) mod passing;
pub(crate) mod process;
pub(crate) mod race;
pub(crate) mod random;
pub(crate) mod region;
pub(crate) mod shared;
mod tracer;

mod bad_code;
mod bad_create;
mod bad_handle;
mod bad_map;
mod bad_publish;
mod bad_reserve;

mod append;
mod code;
mod compat;
mod contended;
mod debugger;
mod doors_debug;
mod doors_kernel;
mod doors_map;
mod fill;
mod hangs;
mod lifetime;
mod mapping;
mod mdwe;
mod module;
mod pool;
mod quota;
mod resident;
mod segment;
mod sharing;
mod stale;
mod traps;
mod uprobe;

use std::process::ExitCode;

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    if let Some(status) = sharing::run_after_exec() {
        return status;
    }
    let groups = [
        hangs::tests(),
        bad_create::tests(),
        bad_publish::tests(),
        bad_reserve::tests(),
        bad_code::tests(),
        bad_map::tests(),
        bad_handle::tests(),
        code::tests(),
        append::tests(),
        fill::tests(),
        traps::tests(),
        compat::tests(),
        mapping::tests(),
        sharing::tests(),
        stale::tests(),
        contended::tests(),
        segment::tests(),
        doors_map::tests(),
        doors_debug::tests(),
        doors_kernel::tests(),
        mdwe::tests(),
        debugger::tests(),
        uprobe::tests(),
        lifetime::tests(),
        pool::tests(),
        resident::tests(),
        // These unload the module.
        quota::tests(),
        module::tests(),
    ];
    harness::main(groups.into_iter().flatten().collect())
}
