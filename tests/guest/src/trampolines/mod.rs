// SPDX-License-Identifier: GPL-2.0
//! What only the guest can show of trampolines, grouped by topic.

mod adder;

mod hardening;
mod scale;
mod sharing;

pub use hardening::harden;

use super::suite::harness::Test;

pub fn tests() -> Vec<Test> {
    let groups = [hardening::tests(), sharing::tests(), scale::tests()];
    groups.into_iter().flatten().collect()
}
