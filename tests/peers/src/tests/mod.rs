// SPDX-License-Identifier: GPL-2.0
//! The tests, grouped by what they are about.

mod closures;
mod describe;
mod kernel;

use crate::suite::harness::Test;

pub(crate) fn all() -> Vec<Test> {
    let mut all = describe::tests();
    all.extend(kernel::tests());
    all.extend(closures::tests());
    all
}
