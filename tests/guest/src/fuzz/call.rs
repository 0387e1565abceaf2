// SPDX-License-Identifier: GPL-2.0
//! One call, as data: chosen by `choose`, predicted by `model`, made by `kernel`.
//! Its `Debug` text is what a failure prints, so that it can be made by hand.
//!
//! Descriptors are numbers of a table (`slot`), addresses are pages of the
//! arena, so that the same seed gives the same text in every run.

use std::fmt;

/// Descriptors that the table has room for.
pub const SLOTS: usize = 16;
/// Slots behind the table: descriptors of other things than `/dev/jit`.
pub const FOREIGN: std::ops::Range<usize> = SLOTS..SLOTS + 3;
/// Pages of the arena.
pub const ARENA: usize = 64;

/// One call.
#[derive(Clone, Debug)]
pub enum Call {
    Open {
        slot: usize,
        mode: i32,
    },
    Duplicate {
        from: usize,
        to: usize,
    },
    Close {
        slot: usize,
    },
    Create {
        device: usize,
        to: usize,
        at: At,
        size: u64,
        flags: u32,
        reserved: Option<usize>,
    },
    Clone {
        device: usize,
        to: usize,
        at: At,
        source: usize,
        flags: u32,
        reserved: Option<usize>,
    },
    Publish {
        slot: usize,
        at: At,
        what: Publication,
    },
    Reserve {
        slot: usize,
        at: At,
        len: u64,
        align_log2: u32,
        reserved: Option<usize>,
    },
    Seal {
        slot: usize,
    },
    Stats {
        slot: usize,
        at: At,
    },
    Code {
        device: usize,
        at: At,
        what: Code,
    },
    /// An ioctl number that the handle does not have.
    Unknown {
        slot: usize,
        number: u32,
    },
    Map(Map),
    /// Private anonymous memory, each byte of it the same.
    Memory {
        page: usize,
        pages: usize,
        byte: u8,
    },
    Unmap {
        page: usize,
        pages: usize,
    },
    Protect {
        page: usize,
        pages: usize,
        prot: i32,
    },
    Remap(Remap),
    Advise {
        page: usize,
        pages: usize,
        advice: i32,
    },
    /// Waits until nothing of the region waits to be freed: then no CPU can see
    /// anything old.
    Settle {
        slot: usize,
    },
    /// Changes nothing: compares what is seen.
    Look(Look),
    /// A forked child makes some calls and looks.
    Fork {
        seed: u64,
    },
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub enum Look {
    /// A page, by loads.
    Load { page: usize },
    /// A byte of a page is stored to.
    Store { page: usize },
    /// A page, by `/proc/self/mem`.
    Debugger { page: usize },
    /// Executes there.
    Run { page: usize, offset: usize },
    /// The arena, in `/proc/self/maps`.
    Mappings,
    /// A clone's or region's fdinfo.
    Info { slot: usize },
}

/// Where the argument of an ioctl lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Memory,
    ReadOnlyMemory,
    /// Its second half is not mapped.
    Cliff,
    /// An address that nobody has.
    Nowhere(u64),
}

/// Where bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An offset in the call's payload.
    Payload(usize),
    /// So many bytes of [`CLIFF_BYTE`] before a page that is not mapped.
    Cliff(usize),
    /// The arena, an offset in it.
    Arena(usize),
    /// An address that nobody has.
    Nowhere(u64),
}

/// What [`Source::Cliff`] is full of.
pub const CLIFF_BYTE: u8 = 0x90;

/// Bytes, of which only the first are printed.
#[derive(Clone, Default)]
pub struct Payload(pub Vec<u8>);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(12)];
        write!(f, "{} bytes {shown:02x?}", self.0.len())
    }
}

/// `JIT_APPEND` or `JIT_FILL`.
#[derive(Clone, Debug)]
pub struct Publication {
    pub fill: bool,
    pub payload: Payload,
    pub segments: Vec<Segment>,
    /// Where the array of segments lies.
    pub array: At,
    /// Instead of the length of `segments`.
    pub count: Option<u32>,
    pub flags: u32,
    pub expect: u64,
    pub reserved: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub source: Source,
    pub len: u64,
    pub offset: u64,
    pub align_log2: u32,
    pub reserved: u32,
    /// The segment starts with a function that returns this.
    pub answer: Option<u32>,
}

/// `JIT_CREATE_CODE`.
#[derive(Clone, Debug)]
pub struct Code {
    pub payload: Payload,
    pub source: Source,
    pub len: u64,
    pub addr: CodeAt,
    /// More flags than `addr` needs.
    pub flags: u32,
    pub reserved: Option<usize>,
    pub answer: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
pub enum CodeAt {
    /// The kernel chooses; then it is moved to this page of the arena.
    Anywhere(usize),
    /// In place of what is on these pages.
    Fixed(usize),
    /// A bad address, and the flag.
    FixedNowhere(u64),
    /// An address without the flag.
    Hint(u64),
}

/// mmap() of a descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Map {
    pub slot: usize,
    pub page: usize,
    pub pages: usize,
    pub prot: i32,
    pub private: bool,
    pub offset: u64,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The kernel chooses; then it is moved into the arena.
    Anywhere,
    Fixed,
    FixedNoReplace,
}

/// mremap().
#[derive(Clone, Copy, Debug)]
pub struct Remap {
    pub page: usize,
    pub old: usize,
    pub new: usize,
    pub flags: i32,
    pub to: usize,
}
