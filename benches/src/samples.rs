// SPDX-License-Identifier: GPL-2.0

//! What was measured: one [`Series`] for each method in each [`Scenario`].

use crate::error::{Error, Result};
use crate::interrupts::Interrupts;
use crate::methods::JITFD_RUN;
use crate::module::Module;

/// One turn of one method.
#[derive(Default)]
pub struct Slice {
    /// The duration of each call, in ticks.
    pub calls: Vec<u64>,
    /// From the last publication to the last free, in ticks.
    pub drained: Option<u64>,
    /// Interrupts, from before the first call until all was freed.
    pub interrupts: Interrupts,
    /// Calls by executing threads while this thread published.
    pub executed: u64,
    /// How long that took, in ticks.
    pub lasted: u64,
}

/// All turns of one method in one scenario.
pub struct Series {
    pub method: &'static str,
    /// Functions that one call publishes; 0 if it publishes none.
    pub functions: usize,
    pub slices: Vec<Slice>,
    pub module: Option<Module>,
}

impl Series {
    /// The publications: calls that published.
    pub fn publications(&self) -> u64 {
        let calls = self.slices.iter().map(|slice| slice.calls.len() as u64);
        calls.sum()
    }

    /// Nanoseconds for each function, or each call where none is published,
    /// ascending.
    pub fn sorted(&self, rate: f64) -> Vec<f64> {
        let divisor = rate * self.functions.max(1) as f64;
        let calls = self.slices.iter().flat_map(|slice| &slice.calls);
        let mut all: Vec<f64> = calls.map(|&ticks| ticks as f64 / divisor).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// The median, in nanoseconds for each function.
    pub fn median(&self, rate: f64) -> Option<f64> {
        percentile(&self.sorted(rate), 50)
    }

    /// Interrupts of all turns.
    pub fn interrupts(&self) -> Interrupts {
        let mut sum = Interrupts::default();
        for slice in &self.slices {
            sum += slice.interrupts;
        }
        sum
    }

    /// Calls of executing threads per microsecond.
    pub fn call_rate(&self, rate: f64) -> f64 {
        let calls: u64 = self.slices.iter().map(|slice| slice.executed).sum();
        let ticks: u64 = self.slices.iter().map(|slice| slice.lasted).sum();
        calls as f64 * 1000.0 * rate / ticks.max(1) as f64
    }

    /// Times from the last publication to the last free, in ms, ascending.
    pub fn drains(&self, rate: f64) -> Vec<f64> {
        let ticks = self.slices.iter().filter_map(|slice| slice.drained);
        let mut all: Vec<f64> = ticks.map(|ticks| ticks as f64 / rate / 1e6).collect();
        all.sort_by(f64::total_cmp);
        all
    }
}

/// The value below which `percent` of `sorted` lie.
pub fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let index = (sorted.len() * percent / 100).min(sorted.len().checked_sub(1)?);
    sorted.get(index).copied()
}

/// All methods with the same number of executing threads.
pub struct Scenario {
    pub threads: usize,
    pub series: Vec<Series>,
}

impl Scenario {
    /// The series of a method.
    pub fn of(&self, method: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.method == method)
    }

    /// Whether the module did what the scenario is about. With executing threads
    /// live pages must be replaced; all that is replaced must be freed.
    pub fn check(&self) -> Result<()> {
        for series in &self.series {
            let Some(module) = series.module else {
                continue;
            };
            let (name, threads) = (series.method, self.threads);
            let executed = threads > 0 || name == JITFD_RUN;
            if executed && module.swaps == 0 {
                return Err(Error(format!(
                    "{name}, {threads} threads: nothing was swapped"
                )));
            }
            if !executed && module.in_place == 0 {
                return Err(Error(format!(
                    "{name}, no thread: nothing was written in place"
                )));
            }
            if module.retired != module.freed {
                return Err(Error(format!(
                    "{name}, {threads} threads: pages were not freed"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_of_few_values() {
        assert_eq!(percentile(&[], 50), None);
        assert_eq!(percentile(&[1.0, 2.0, 3.0], 50), Some(2.0));
        assert_eq!(percentile(&[1.0, 2.0, 3.0], 99), Some(3.0));
    }
}
