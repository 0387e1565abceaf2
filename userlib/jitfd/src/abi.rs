// SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT OR Apache-2.0

//! The interface between userspace and `/dev/jit`: ioctl numbers, argument
//! structs and flags.
//!
//! This one file is compiled into the module, into the host tests and (through
//! a symbolic link) into `userlib/jitfd/`, so the two sides cannot drift apart. It
//! therefore uses nothing but `core`. `jit.h` says the same to C programs; a test
//! (`tests/host/tests/header.rs`) holds it to this file.
//!
//! Rules that hold for every struct here:
//! * all fields have a fixed width and the padding is explicit;
//! * every bit of `flags` that is not defined below, and every `reserved`
//!   field that is not zero, is refused with `EINVAL`;
//! * offsets and lengths are in bytes; an offset counts from the start of the
//!   region. A region has at most [`MAX_REGION`] bytes, so an offset fits the
//!   positive range of a C `int` and ioctls return it as their value. Nothing
//!   has to be written back to userspace after a publication, so a publication
//!   can't succeed and still report `EFAULT`.

/// The page size, in bytes.
pub const PAGE_SIZE: usize = 4096;

/// The largest capacity of a region, in bytes: every byte of it can be reached
/// from every other by a 32-bit displacement.
pub const MAX_REGION: u64 = 1 << 30;

/// The largest code that one `JIT_CREATE_CODE` takes, in bytes.
pub const MAX_CODE: u64 = 1 << 30;

/// The largest number of segments in one publication.
pub const MAX_SEGMENTS: u32 = 1024;

/// The largest alignment of a segment, as a power of two (a page).
pub const MAX_ALIGN_LOG2: u32 = 12;

/// The byte that fills whatever has not been published: `int3`.
pub const FILL: u8 = 0xcc;

/// The ioctl type of all calls.
pub const IOCTL_TYPE: u32 = b'J' as u32;

const fn ioctl(dir: u32, nr: u32, size: usize) -> u32 {
    (dir << 30) | ((size as u32) << 16) | (IOCTL_TYPE << 8) | nr
}
const NONE: u32 = 0;
const WRITE: u32 = 1;
const READ: u32 = 2;

/// On a `/dev/jit` handle that is no region: a new mapping that holds exactly
/// the given code.
/// Argument: [`CreateCode`]. Returns 0.
pub const JIT_CREATE_CODE: u32 = ioctl(READ | WRITE, 0x20, size_of::<CreateCode>());
/// On a `/dev/jit` handle: makes the open file a region. Argument: [`Create`].
/// Returns the append handle, a new descriptor (close-on-exec).
pub const JIT_CREATE: u32 = ioctl(WRITE, 0x21, size_of::<Create>());
/// On an append handle: publishes segments at the cursor, in order.
/// Argument: [`Publish`]. Returns the offset of the first segment.
pub const JIT_APPEND: u32 = ioctl(WRITE, 0x22, size_of::<Publish>());
/// On an append handle: sets a range at the cursor aside, to be filled later.
/// Argument: [`Reserve`]. Returns its offset.
pub const JIT_RESERVE: u32 = ioctl(WRITE, 0x23, size_of::<Reserve>());
/// On an append handle: publishes segments inside reserved ranges, each byte
/// once. The segments are in ascending order of their offsets and do not
/// overlap. Argument: [`Publish`]. Returns 0.
pub const JIT_FILL: u32 = ioctl(WRITE, 0x24, size_of::<Publish>());
/// On an append handle: no publication, ever again. No argument. Returns 0.
pub const JIT_SEAL: u32 = ioctl(NONE, 0x25, 0);
/// On either handle: the region's counters. Argument: [`Stats`]. Returns 0.
pub const JIT_STATS: u32 = ioctl(READ, 0x26, size_of::<Stats>());
/// On a fresh `/dev/jit` handle: makes it a region that starts as a copy of
/// another, sharing its pages until either publishes. Argument: [`CloneFrom`].
/// Returns the append handle.
pub const JIT_CLONE: u32 = ioctl(WRITE, 0x27, size_of::<CloneFrom>());

/// Argument of [`JIT_CREATE_CODE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CreateCode {
    /// Address of the code in the caller's memory.
    pub source: u64,
    /// Bytes of code, 1 to [`MAX_CODE`].
    pub len: u64,
    /// In: 0 to let the kernel choose, or with [`CREATE_CODE_FIXED`] the page
    /// aligned address of a range of the caller's own private anonymous pages
    /// to replace. Out: the address of the code.
    pub addr: u64,
    /// [`CREATE_CODE_FIXED`] or 0.
    pub flags: u32,
    /// Zero.
    pub reserved: [u32; 5],
}

/// [`CreateCode::addr`] is given, and what is mapped there is replaced in one
/// step. `source` may lie inside the range it replaces.
pub const CREATE_CODE_FIXED: u32 = 1 << 0;

/// Argument of [`JIT_CREATE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Create {
    /// Capacity in bytes: a multiple of the page size, up to [`MAX_REGION`].
    pub size: u64,
    /// [`CREATE_ANY_MM`] or 0.
    pub flags: u32,
    /// Zero.
    pub reserved: [u32; 5],
}

/// Whoever holds the append handle may publish. Without it only the address
/// space that created the region may.
pub const CREATE_ANY_MM: u32 = 1 << 0;

/// Argument of [`JIT_CLONE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneFrom {
    /// A `/dev/jit` descriptor whose region is copied.
    pub source_fd: i32,
    /// [`CREATE_ANY_MM`] or 0.
    pub flags: u32,
    /// Zero.
    pub reserved: [u32; 6],
}

/// Argument of [`JIT_APPEND`] and [`JIT_FILL`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Publish {
    /// Address of an array of [`Segment`] in the caller's memory.
    pub segments: u64,
    /// Its length, 1 to [`MAX_SEGMENTS`].
    pub count: u32,
    /// [`PUBLISH_SYNC`], [`PUBLISH_FRESH`] or 0.
    pub flags: u32,
    /// For [`JIT_APPEND`]: the offset at which the first segment must come to
    /// lie, or [`ANY_OFFSET`]. If the cursor is elsewhere the call fails with
    /// `ESTALE`: code was relocated for an address it would not get.
    /// For [`JIT_FILL`]: [`ANY_OFFSET`].
    pub expect: u64,
    /// Zero.
    pub reserved: [u32; 4],
}

/// No particular offset is asked for.
pub const ANY_OFFSET: u64 = u64::MAX;

/// When the call returns, no CPU can read or execute the old content of the
/// published bytes. Costs one batched flush if a CPU may have cached it.
/// Data that code loads needs this (or [`PUBLISH_FRESH`]).
pub const PUBLISH_SYNC: u32 = 1 << 0;
/// For [`JIT_APPEND`]: the first segment starts on a page that holds no code
/// yet, and the cursor is left at a page boundary, so that no later
/// publication touches these pages either.
pub const PUBLISH_FRESH: u32 = 1 << 1;

/// One piece of a publication.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment {
    /// Address of the bytes in the caller's memory.
    pub source: u64,
    /// Number of bytes, at least 1.
    pub len: u64,
    /// For [`JIT_FILL`]: where the bytes go. For [`JIT_APPEND`]: zero.
    pub offset: u64,
    /// For [`JIT_APPEND`]: alignment of the segment as a power of two, 0 to
    /// [`MAX_ALIGN_LOG2`]. For [`JIT_FILL`]: zero.
    pub align_log2: u32,
    /// Zero.
    pub reserved: u32,
}

/// Argument of [`JIT_RESERVE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Reserve {
    /// Number of bytes, at least 1.
    pub len: u64,
    /// Alignment as a power of two, 0 to [`MAX_ALIGN_LOG2`].
    pub align_log2: u32,
    /// Zero.
    pub reserved: [u32; 5],
}

/// Argument of [`JIT_STATS`]: the counters of one region since its creation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Capacity in bytes.
    pub capacity: u64,
    /// Bytes up to the cursor (published or reserved).
    pub cursor: u64,
    /// Successful `JIT_APPEND` and `JIT_FILL` calls.
    pub publications: u64,
    /// Segments they published.
    pub segments: u64,
    /// Bytes they published.
    pub bytes: u64,
    /// Page-table entries that were swapped to a newer version of a page.
    pub swaps: u64,
    /// Pages that were written in place, because no CPU could see them.
    pub in_place: u64,
    /// Stale #BP traps that were resumed.
    pub fixups: u64,
    /// Page versions that were replaced.
    pub retired: u64,
    /// Replaced page versions whose memory was given back or reused.
    pub freed: u64,
    /// Batched flushes: by [`PUBLISH_SYNC`], at the bound, or for a fill next
    /// to live code.
    pub flushes: u64,
    /// Inter-processor interrupts that those flushes sent.
    pub ipis: u64,
    /// Segments published across a boundary of two live pages, which cost a
    /// synchronous flush (a subset of `flushes`).
    pub straddles: u64,
    /// 1 if the region is sealed.
    pub sealed: u64,
    /// Blank pages that are kept for the next publications. Given back when
    /// memory is short, or after a second or two without use.
    pub pooled: u64,
    /// Flushes of a CPU's user TLB at its tick, in the epochs that replaced
    /// pages of this region have waited for.
    pub ticks: u64,
    /// CPUs that were left alone in these epochs, because they ran something
    /// else when their turn came.
    pub spared: u64,
    /// Zero; room to grow.
    pub reserved: [u64; 7],
}
