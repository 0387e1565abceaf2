// SPDX-License-Identifier: MIT OR Apache-2.0

//! The verdict.

use crate::cpu;
use crate::lazy::Outcome;
use std::error::Error;

/// Any error: the demo only prints it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What all parts of the demo have found.
pub struct Findings {
    pub wrong_traps: u64,
    pub wrong_pictures: u64,
    pub lazy: Outcome,
}

impl Findings {
    /// The last line of a run that is right in everything.
    pub fn verdict(&self) -> Result<String, BoxError> {
        let wrong = self.wrong_traps + self.wrong_pictures + self.lazy.wrong;
        let stats = &self.lazy.stats;
        let counts = format!(
            "published={} swaps={} fixups={} retired={} freed={} ipis={} wrong={wrong}",
            stats.publications,
            stats.swaps,
            stats.fixups,
            stats.retired,
            stats.freed,
            self.lazy.ipis
        );
        if wrong > 0 {
            return Err(format!("wrong results: {counts}").into());
        }
        if stats.fixups == 0 && must_go_stale(self.lazy.cpus) {
            return Err(format!("no CPU ever saw an old page: {counts}").into());
        }
        Ok(format!("demo: ok {counts}"))
    }
}

/// Emulated CPUs keep translations until they are told to drop them, so with
/// two of them some must go stale. Real ones may drop them at any time.
fn must_go_stale(cpus: usize) -> bool {
    cpu::emulated() && cpus > 1
}
