// SPDX-License-Identifier: GPL-2.0
//! What the processes of these tests give up before they run any test.

use crate::suite::outcome::{Checked, OrFail, Outcome, refused};
use crate::suite::sys::{self, PAGE, RW, RX};

/// From now on, in this process and its children, no memory becomes executable
/// that was not so from its start.
pub fn give_up() -> Checked<()> {
    const PR_SET_MDWE: i32 = 65;
    const REFUSE_EXEC_GAIN: usize = 1;
    sys::prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN).or_fail("PR_SET_MDWE")?;
    Ok(())
}

/// The ways in which libffi made closures before it had static trampolines.
pub fn ordinary_ways_are_refused() -> Outcome {
    give_up()?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let result = sys::mmap(0, PAGE, RW | libc::PROT_EXEC, flags, -1, 0);
    refused("mmap W+X", result, libc::EACCES)?;
    let page = sys::mmap(0, PAGE, RW, flags, -1, 0).or_fail("mmap")?;
    refused(
        "mprotect W to X",
        sys::mprotect(page, PAGE, RX),
        libc::EACCES,
    )
}
