// SPDX-License-Identifier: GPL-2.0

//! jitfd by its ioctls, without the library: what the kernel costs.

use std::os::fd::{AsFd, OwnedFd};

use jitfd_plan::abi;

use crate::error::{Error, Result, last};
use crate::executors::Window;
use crate::function::{self, LEN, PER_PAGE};
use crate::methods::{JITFD, JITFD_BATCH, JITFD_RUN, Method};
use crate::module::Module;
use crate::sys::{self, Access, Area};

/// Functions that are there before the first turn: half a page, so that each
/// batch adds to a page which is in use.
const BEFORE: usize = PER_PAGE / 2;

/// A region.
pub struct Jitfd {
    _map: OwnedFd,
    append: OwnedFd,
    window: &'static Window,
    /// The publishing thread itself calls each function.
    runs: bool,
    number: usize,
    functions: usize,
    codes: Vec<u8>,
    segments: Vec<abi::Segment>,
}

impl Jitfd {
    /// Publishes `functions` in one call; has room for `rounds` turns.
    pub fn new(functions: usize, rounds: usize) -> Result<Self> {
        Jitfd::with(functions, rounds, false)
    }

    /// The same, one by one, where the publishing thread itself calls each
    /// function: every page is replaced, and no other CPU is concerned.
    pub fn run_by_publisher(rounds: usize) -> Result<Self> {
        Jitfd::with(1, rounds, true)
    }

    fn with(functions: usize, rounds: usize, runs: bool) -> Result<Self> {
        let count = BEFORE + rounds * calls(functions) * functions;
        let len = (count * LEN).next_multiple_of(4096);
        let map = sys::open(c"/dev/jit")?;
        let mut create = abi::Create {
            size: len as u64,
            ..Default::default()
        };
        let append = sys::ioctl(map.as_fd(), abi::JIT_CREATE, &mut create);
        let append = sys::own(append, "JIT_CREATE")?;
        let area = Area::map(Some(map.as_fd()), len, Access::Execute)?;
        let mut jitfd = Jitfd {
            _map: map,
            append,
            window: Window::new(area.address(), 0),
            runs,
            number: 0,
            functions: BEFORE,
            codes: Vec::new(),
            segments: Vec::new(),
        };
        jitfd.prepare();
        jitfd.call()?;
        jitfd.functions = functions;
        Ok(jitfd)
    }
}

fn calls(functions: usize) -> usize {
    if functions == 1 { 256 } else { 32 }
}

fn segment(code: &[u8]) -> abi::Segment {
    abi::Segment {
        source: code.as_ptr().addr() as u64,
        len: code.len() as u64,
        ..Default::default()
    }
}

/// A region's counters.
pub fn stats(append: &OwnedFd) -> Result<Module> {
    let mut stats = abi::Stats::default();
    if sys::ioctl(append.as_fd(), abi::JIT_STATS, &mut stats) != 0 {
        return Err(last("JIT_STATS"));
    }
    Ok(Module {
        swaps: stats.swaps,
        in_place: stats.in_place,
        fixups: stats.fixups,
        flushes: stats.flushes,
        ipis: stats.ipis,
        retired: stats.retired,
        freed: stats.freed,
    })
}

impl Method for Jitfd {
    fn name(&self) -> &'static str {
        match self.functions {
            1 if self.runs => JITFD_RUN,
            1 => JITFD,
            _ => JITFD_BATCH,
        }
    }

    fn functions(&self) -> usize {
        self.functions
    }

    fn calls(&self) -> usize {
        calls(self.functions)
    }

    fn prepare(&mut self) {
        self.codes = function::codes(self.number as u32, self.functions);
        if self.runs && self.number > 0 {
            // SAFETY: So many functions are published, and they stay.
            unsafe { sys::call(self.window.address(self.number - 1)) };
        }
    }

    fn call(&mut self) -> Result<()> {
        self.segments.clear();
        self.segments
            .extend(self.codes.chunks_exact(LEN).map(segment));
        let mut publish = abi::Publish {
            segments: self.segments.as_ptr().addr() as u64,
            count: self.functions as u32,
            expect: abi::ANY_OFFSET,
            ..Default::default()
        };
        let offset = sys::ioctl(self.append.as_fd(), abi::JIT_APPEND, &mut publish);
        if usize::try_from(offset) != Ok(self.number * LEN) {
            return Err(match offset {
                ..0 => last("JIT_APPEND"),
                _ => Error(format!("function {} is at offset {offset}", self.number)),
            });
        }
        self.number += self.functions;
        self.window.grow(self.number);
        Ok(())
    }

    fn window(&self) -> Option<&'static Window> {
        (!self.runs).then_some(self.window)
    }

    fn module(&self) -> Result<Option<Module>> {
        stats(&self.append).map(Some)
    }
}
