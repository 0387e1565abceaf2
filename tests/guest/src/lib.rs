// SPDX-License-Identifier: GPL-2.0
//! The tests that run inside the guest. Each program of `bin/` runs one of these
//! suites; what they share (calls, processes, mappings, verdicts) is in `suite`.

pub mod faults;
pub mod fuzz;
pub mod hostile;
pub mod suite;
