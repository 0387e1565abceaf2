// SPDX-License-Identifier: GPL-2.0
//! Time told by work: how much somebody who needs nothing of the module gets done
//! until something happens. What holds up the whole guest holds up this too.

use crate::suite::sys;

/// System calls that do nothing, in one unit of work: less than a millisecond under
/// emulation.
const CALLS: usize = 400;

/// Works until `done`, and returns how many units that were.
pub fn until(mut done: impl FnMut() -> bool) -> u64 {
    let mut units = 0;
    while !done() {
        (0..CALLS).for_each(|_| sys::nothing());
        units += 1;
    }
    units
}
