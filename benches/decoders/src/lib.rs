// SPDX-License-Identifier: GPL-2.0

//! One check, by several decoders: each byte belongs to a complete instruction or
//! to data, and direct branches inside go to the start of an instruction or
//! behind a `lock` prefix. Everything but the decoding is shared, and cheap.

mod capstone;
mod iced;
mod ledger;
mod sample;
mod validator;
mod yaxpeax;
mod zydis;

pub use ledger::Ledger;
pub use sample::{Sample, samples};

/// Something that can be timed over a sample.
pub struct Contender {
    pub name: &'static str,
    /// Whether it has more threads than one, so that only the clock counts.
    pub threads: bool,
    /// Returns the number of instructions, 0 if it does not count; `None` if it
    /// refuses the sample.
    pub run: fn(&Sample) -> Option<usize>,
}

impl Contender {
    const fn new(name: &'static str, run: fn(&Sample) -> Option<usize>) -> Self {
        Self {
            name,
            threads: false,
            run,
        }
    }

    /// Whether it does the whole check of this sample, and finds what the others
    /// find. If not, its time says nothing.
    pub fn accepts(&self, sample: &Sample) -> bool {
        let count = (self.run)(sample);
        count == Some(0) || (count.is_some() && count == iced::check(sample))
    }
}

/// In the order of the report. The first is what the others are measured by.
pub const CONTENDERS: [Contender; 7] = [
    Contender::new("bare iced-x86", iced::bare),
    Contender::new("jitfd", validator::one_thread),
    Contender {
        name: "jitfd, all CPUs",
        threads: true,
        run: validator::all_threads,
    },
    Contender::new("iced-x86", iced::check),
    Contender::new("yaxpeax-x86", yaxpeax::check),
    Contender::new("Zydis", zydis::check),
    Contender::new("capstone", capstone::check),
];
