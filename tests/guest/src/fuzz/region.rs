// SPDX-License-Identifier: GPL-2.0
//! The model of one region: its bytes, reservations and counters, by the words
//! of Documentation/userspace-api/jit.rst and with nothing of the module's code.

use jitfd_plan::abi::{self, Stats};

use super::call::Segment;
use crate::suite::sys::PAGE;

/// A function that returns `answer`: `mov eax, answer; ret`.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    pub offset: usize,
    pub answer: u32,
}

/// Bytes of a [`Function`].
pub const FUNCTION: usize = 6;
/// Bytes of its longest instruction.
const LONGEST: usize = 5;
/// Within a line an instruction is whole at once.
const LINE: usize = 64;

/// One region, or the result of one `JIT_CREATE_CODE`.
#[derive(Clone)]
pub struct Region {
    pub bytes: Vec<u8>,
    /// Pages on which something was published.
    pub live: Vec<bool>,
    /// Bytes that a load may still see as 0xCC.
    pub soft: Vec<bool>,
    pub functions: Vec<Function>,
    pub cursor: u64,
    /// Reserved and not filled, from and to.
    pub holes: Vec<(u64, u64)>,
    pub sealed: bool,
    pub any_mm: bool,
    /// Made by `JIT_CREATE_CODE`: userspace does not know its offset.
    pub created: bool,
    pub publications: u64,
    pub segments: u64,
    pub published: u64,
}

/// Where the segments of a publication go, and the cursor behind them.
pub struct Placed {
    pub starts: Vec<u64>,
    pub cursor: u64,
}

impl Region {
    pub fn new(capacity: usize, any_mm: bool) -> Self {
        Region {
            bytes: vec![abi::FILL; capacity],
            live: vec![false; capacity / PAGE],
            soft: vec![false; capacity],
            functions: Vec::new(),
            cursor: 0,
            holes: Vec::new(),
            sealed: false,
            any_mm,
            created: false,
            publications: 0,
            segments: 0,
            published: 0,
        }
    }

    /// What `JIT_CREATE_CODE` makes of `bytes`.
    pub fn of_code(bytes: &[u8], answer: Option<u32>) -> Self {
        let mut region = Region::new(bytes.len().next_multiple_of(PAGE), false);
        region.bytes[..bytes.len()].copy_from_slice(bytes);
        region.live.fill(true);
        region.sealed = true;
        region.created = true;
        let first = answer.map(|answer| Function { offset: 0, answer });
        region.functions.extend(first);
        region
    }

    /// `JIT_CLONE` of it: a new mapping of it shows no old byte.
    pub fn copy(&self, any_mm: bool) -> Self {
        Region {
            soft: vec![false; self.bytes.len()],
            sealed: false,
            any_mm,
            publications: 0,
            segments: 0,
            published: 0,
            ..self.clone()
        }
    }

    pub fn capacity(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub fn pages(&self) -> usize {
        self.live.len()
    }

    /// EPERM and EROFS, in this order.
    pub fn check_publisher(&self, owner: bool) -> Result<(), i32> {
        if !self.any_mm && !owner {
            return Err(libc::EPERM);
        }
        if self.sealed {
            Err(libc::EROFS)
        } else {
            Ok(())
        }
    }

    /// The place of `len` bytes at `cursor`.
    fn place(&self, cursor: u64, len: u64, align_log2: u32) -> Result<u64, i32> {
        let start = cursor.next_multiple_of(1 << align_log2);
        if start + len > self.capacity() {
            return Err(libc::ENOSPC);
        }
        Ok(start)
    }

    /// `JIT_RESERVE`: the offset.
    pub fn place_reservation(&self, len: u64, align_log2: u32) -> Result<u64, i32> {
        self.place(self.cursor, len, align_log2)
    }

    pub fn reserve(&mut self, start: u64, len: u64) {
        self.holes.push((start, start + len));
        self.cursor = start + len;
    }

    /// `JIT_APPEND`: ENOSPC, then ESTALE.
    pub fn place_append(
        &self,
        segments: &[Segment],
        fresh: bool,
        expect: u64,
    ) -> Result<Placed, i32> {
        let page = if fresh { PAGE as u64 } else { 1 };
        let mut cursor = self.cursor.next_multiple_of(page);
        let mut starts = Vec::new();
        for segment in segments {
            let start = self.place(cursor, segment.len, segment.align_log2)?;
            starts.push(start);
            cursor = start + segment.len;
        }
        if expect != abi::ANY_OFFSET && starts[0] != expect {
            return Err(libc::ESTALE);
        }
        let cursor = cursor.next_multiple_of(page);
        Ok(Placed { starts, cursor })
    }

    /// `JIT_FILL`: EINVAL for the order, then EEXIST.
    pub fn place_fill(&self, segments: &[Segment]) -> Result<Placed, i32> {
        let ascending = |pair: &[Segment]| pair[0].offset + pair[0].len <= pair[1].offset;
        if !segments.windows(2).all(ascending) {
            return Err(libc::EINVAL);
        }
        let reserved = |segment: &Segment| {
            self.hole_around(segment.offset, segment.offset + segment.len)
                .is_some()
        };
        if !segments.iter().all(reserved) {
            return Err(libc::EEXIST);
        }
        Ok(Placed {
            starts: segments.iter().map(|segment| segment.offset).collect(),
            cursor: self.cursor,
        })
    }

    fn hole_around(&self, start: u64, end: u64) -> Option<usize> {
        self.holes
            .iter()
            .position(|&(from, to)| from <= start && end <= to)
    }

    /// Publishes `bytes` (all segments', one after the other).
    pub fn publish(&mut self, segments: &[Segment], placed: &Placed, bytes: &[u8], hard: bool) {
        let was_live = self.live.clone();
        let mut from = 0;
        for (segment, &start) in segments.iter().zip(&placed.starts) {
            let len = segment.len as usize;
            self.write(start as usize, &bytes[from..from + len], hard, &was_live);
            from += len;
            self.take_hole(start, start + segment.len);
            self.functions.extend(segment.answer.map(|answer| Function {
                offset: start as usize,
                answer,
            }));
        }
        self.cursor = placed.cursor;
        self.publications += 1;
        self.segments += segments.len() as u64;
        self.published += from as u64;
    }

    fn write(&mut self, start: usize, bytes: &[u8], hard: bool, was_live: &[bool]) {
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        for at in start..start + bytes.len() {
            self.live[at / PAGE] = true;
            self.soft[at] = was_live[at / PAGE] && !hard;
        }
    }

    fn take_hole(&mut self, start: u64, end: u64) {
        let Some(index) = self.hole_around(start, end) else {
            return;
        };
        let (from, to) = self.holes.remove(index);
        let parts = [(from, start), (end, to)];
        self.holes
            .extend(parts.iter().filter(|part| part.0 < part.1));
    }

    /// Pages that `segments` touch.
    pub fn touched(segments: &[Segment], placed: &Placed) -> usize {
        let page = PAGE as u64;
        let mut pages: Vec<u64> = segments
            .iter()
            .zip(&placed.starts)
            .flat_map(|(segment, start)| start / page..=(start + segment.len - 1) / page)
            .collect();
        pages.dedup();
        pages.len()
    }

    /// Nothing old can be seen any more.
    pub fn settle(&mut self) {
        self.soft.fill(false);
    }

    /// Whether executing the function is promised to work: its instructions are
    /// whole wherever some CPU may still see an old page.
    pub fn is_whole(&self, function: Function) -> bool {
        let (start, end) = (function.offset, function.offset + LONGEST - 1);
        let one_line = start / LINE == end / LINE;
        let two_pages = start / PAGE != end / PAGE;
        one_line || two_pages || !self.soft[start..=end].contains(&true)
    }

    /// The counters that the calls alone decide.
    pub fn stats(&self) -> Stats {
        Stats {
            capacity: self.capacity(),
            cursor: self.cursor,
            publications: self.publications,
            segments: self.segments,
            bytes: self.published,
            sealed: u64::from(self.sealed),
            ..Stats::default()
        }
    }
}
