// SPDX-License-Identifier: GPL-2.0
//! The region that most tests use: created, mapped once, with its handles.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use jitfd_plan::abi;

use super::calls;
use super::execute;
use super::memory::{self, Mapping};
use super::outcome::{Checked, OrFail, Outcome, equal};
use super::sys::{self, PAGE};

/// A region with a mapping of all of it.
pub struct Region {
    /// The handle that can map.
    pub device: OwnedFd,
    /// The handle that can append.
    pub append: OwnedFd,
    /// The mapping.
    pub map: Mapping,
}

impl Region {
    /// A region of `pages` pages, mapped.
    pub fn new(pages: usize) -> Checked<Self> {
        Region::with_flags(pages, 0)
    }

    /// The same with flags of `JIT_CREATE`.
    pub fn with_flags(pages: usize, flags: u32) -> Checked<Self> {
        let device = calls::open_device()?;
        let size = (pages * PAGE) as u64;
        let argument = abi::Create {
            size,
            flags,
            ..Default::default()
        };
        let append = calls::create(device.as_raw_fd(), &argument).or_fail("JIT_CREATE")?;
        let map = Mapping::of_file(device.as_raw_fd(), pages * PAGE, sys::RX, 0)
            .or_fail("mmap the region")?;
        Ok(Region {
            device,
            append,
            map,
        })
    }

    /// The append handle's number.
    pub fn fd(&self) -> RawFd {
        self.append.as_raw_fd()
    }

    /// Where the byte at `offset` is mapped.
    pub fn at(&self, offset: u64) -> usize {
        self.map.addr() + offset as usize
    }

    /// Appends one piece of code.
    pub fn append(&self, code: &[u8]) -> Checked<u64> {
        calls::append(self.fd(), code).or_fail("JIT_APPEND")
    }

    /// Appends one piece of code with flags.
    pub fn append_with(&self, code: &[u8], flags: u32) -> Checked<u64> {
        calls::append_with(self.fd(), code, flags).or_fail("JIT_APPEND with flags")
    }

    /// Moves the cursor to `offset` by reserving what is before.
    pub fn skip_to(&self, offset: u64) -> Outcome {
        let len = offset - self.stats()?.cursor;
        if len > 0 {
            calls::reserve(self.fd(), len, 0).or_fail("JIT_RESERVE")?;
        }
        Ok(())
    }

    /// Fills a part of a reserved range.
    pub fn fill(&self, offset: u64, code: &[u8]) -> Outcome {
        calls::fill(self.fd(), offset, code)
            .or_fail("JIT_FILL")
            .map(|_| ())
    }

    /// The counters.
    pub fn stats(&self) -> Checked<abi::Stats> {
        calls::stats(self.fd()).or_fail("JIT_STATS")
    }

    /// Runs the code at `offset` and fails unless it returns `wanted`.
    pub fn answers(&self, offset: u64, wanted: u32) -> Outcome {
        let what = format!("the code at {offset:#x}");
        execute::answers(&what, self.at(offset), wanted)
    }

    /// The authoritative bytes.
    pub fn content(&self) -> Checked<Vec<u8>> {
        memory::debugger_view(std::process::id(), self.map.addr(), self.map.len())
            .or_fail("read the region through /proc/self/mem")
    }

    /// Everything that a refused call must leave as it was.
    pub fn snapshot(&self) -> Checked<Snapshot> {
        let pages = (0..self.map.len()).step_by(PAGE);
        Ok(Snapshot {
            stats: steady(self.stats()?),
            content: self.content()?,
            seen: pages
                .map(|page| memory::seen(self.map.addr() + page))
                .collect::<Checked<_>>()?,
            mappings: memory::jit_mappings()?,
        })
    }

    /// Fails unless `call` leaves the region and the mappings of code as they
    /// were.
    pub fn unchanged_by(&self, call: impl FnOnce() -> Outcome) -> Outcome {
        let before = self.snapshot()?;
        call()?;
        self.snapshot()?.same_as(&before)
    }
}

/// What can be seen of a region.
pub struct Snapshot {
    stats: abi::Stats,
    content: Vec<u8>,
    seen: Vec<Option<Vec<u8>>>,
    mappings: Vec<String>,
}

impl Snapshot {
    /// The same, whatever the mappings are.
    pub fn without_mappings(self) -> Self {
        Snapshot {
            mappings: Vec::new(),
            ..self
        }
    }

    /// Fails unless both are the same.
    pub fn same_as(&self, before: &Snapshot) -> Outcome {
        equal("the counters afterwards", self.stats, before.stats)?;
        equal("the mappings afterwards", &self.mappings, &before.mappings)?;
        let same = self.content == before.content && self.seen == before.seen;
        equal("the content is as before", same, true)
    }
}

/// Leaves out the counters that change by themselves, after the call.
pub fn steady(stats: abi::Stats) -> abi::Stats {
    abi::Stats {
        freed: 0,
        fixups: 0,
        flushes: 0,
        ipis: 0,
        pooled: 0,
        ticks: 0,
        spared: 0,
        ..stats
    }
}
