// SPDX-License-Identifier: GPL-2.0
//! Makes the calls: turns slots, pages and sources into descriptors and
//! addresses. It knows nothing about what should happen.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use jitfd_plan::abi;

use super::call::*;
use crate::suite::outcome::{Checked, OrFail};
use crate::suite::patience::Patience;
use crate::suite::sys::{self, PAGE, RW};

/// The arena lies far from where the kernel puts what has no address.
const BASE: usize = 0x2000_0000_0000;
/// Arguments: writable; the same read-only; each with nothing behind it.
const ARGUMENTS: usize = BASE + (1 << 30);
const READ_ONLY: usize = ARGUMENTS + 16 * PAGE;
/// A page of [`CLIFF_BYTE`] with nothing behind it.
const EDGE: usize = ARGUMENTS + 32 * PAGE;

const FIXED: i32 = libc::MAP_SHARED | libc::MAP_FIXED;
const DEVICE: &CStr = c"/dev/jit";
/// No descriptor has such a number.
const CLOSED: RawFd = 900;

/// The address of an offset in the arena.
pub fn address(offset: usize) -> usize {
    BASE + offset
}

/// The address of a page of the arena.
pub fn page_address(page: usize) -> usize {
    address(page * PAGE)
}

/// The descriptors and the memory for arguments.
pub struct Kernel {
    fds: Vec<Option<OwnedFd>>,
    memory: File,
    /// What the last `JIT_STATS` that succeeded has told.
    pub stats: abi::Stats,
}

impl Kernel {
    pub fn new() -> Checked<Self> {
        let file = sys::memfd(PAGE).or_fail("memfd")?;
        for (addr, prot) in [(ARGUMENTS, RW), (READ_ONLY, libc::PROT_READ)] {
            sys::mmap(addr, PAGE, prot, FIXED, file.as_raw_fd(), 0).or_fail("mmap arguments")?;
        }
        anonymous(EDGE, 1, CLIFF_BYTE).or_fail("mmap the edge")?;
        let (pipe, _) = sys::pipe().or_fail("pipe")?;
        let null = sys::open(c"/dev/null", libc::O_RDWR).or_fail("open /dev/null")?;
        let mut fds: Vec<Option<OwnedFd>> = (0..SLOTS).map(|_| None).collect();
        fds.extend([pipe.into(), null, file.into()].map(Some));
        Ok(Kernel {
            fds,
            memory: own_memory()?,
            stats: abi::Stats::default(),
        })
    }

    /// To be called in a forked child.
    pub fn in_child(&mut self) -> Checked<()> {
        self.memory = own_memory()?;
        Ok(())
    }

    /// `/proc/self/mem`.
    pub fn memory(&self) -> &File {
        &self.memory
    }

    pub fn fd(&self, slot: usize) -> RawFd {
        let fd = self.fds.get(slot).and_then(Option::as_ref);
        fd.map_or(CLOSED + slot as RawFd, AsRawFd::as_raw_fd)
    }

    /// Makes the call.
    pub fn make(&mut self, call: &Call) -> io::Result<i64> {
        match *call {
            Call::Open { slot, mode } => {
                let fd = sys::open(DEVICE, mode)?;
                self.keep(slot, fd)
            }
            Call::Duplicate { from, to } => {
                let fd = sys::duplicate(self.fd(from), 0)?;
                self.keep(to, fd)
            }
            Call::Close { slot } => match self.fds[slot].take() {
                Some(_) => Ok(0),
                None => Err(io::Error::from_raw_os_error(libc::EBADF)),
            },
            Call::Create {
                device,
                to,
                at,
                size,
                flags,
                reserved,
            } => {
                let mut argument = abi::Create {
                    size,
                    flags,
                    ..Default::default()
                };
                spoil(&mut argument.reserved, reserved);
                self.make_handle(device, to, abi::JIT_CREATE, put(at, argument))
            }
            Call::Clone {
                device,
                to,
                at,
                source,
                flags,
                reserved,
            } => {
                let mut argument = abi::CloneFrom {
                    source_fd: self.fd(source),
                    flags,
                    ..Default::default()
                };
                spoil(&mut argument.reserved, reserved);
                self.make_handle(device, to, abi::JIT_CLONE, put(at, argument))
            }
            Call::Publish { slot, at, ref what } => self.publish(slot, at, what),
            Call::Reserve {
                slot,
                at,
                len,
                align_log2,
                reserved,
            } => {
                let mut argument = abi::Reserve {
                    len,
                    align_log2,
                    ..Default::default()
                };
                spoil(&mut argument.reserved, reserved);
                sys::ioctl(self.fd(slot), abi::JIT_RESERVE, put(at, argument))
            }
            Call::Seal { slot } => sys::ioctl(self.fd(slot), abi::JIT_SEAL, 0),
            Call::Stats { slot, at } => {
                let addr = put(at, abi::Stats::default());
                let value = sys::ioctl(self.fd(slot), abi::JIT_STATS, addr)?;
                self.stats = get(addr);
                Ok(value)
            }
            Call::Code {
                device,
                at,
                ref what,
            } => self.create_code(device, at, what),
            Call::Unknown { slot, number } => sys::ioctl(self.fd(slot), number, ARGUMENTS),
            Call::Map(map) => self.map(map),
            Call::Memory { page, pages, byte } => {
                anonymous(page_address(page), pages, byte).map(|()| 0)
            }
            Call::Unmap { page, pages } => {
                sys::munmap(page_address(page), pages * PAGE).map(|()| 0)
            }
            Call::Protect { page, pages, prot } => {
                sys::mprotect(page_address(page), pages * PAGE, prot).map(|()| 0)
            }
            Call::Remap(Remap {
                page,
                old,
                new,
                flags,
                to,
            }) => {
                let (from, to) = (page_address(page), page_address(to));
                sys::mremap(from, old * PAGE, new * PAGE, flags, to).map(|_| 0)
            }
            Call::Advise {
                page,
                pages,
                advice,
            } => sys::madvise(page_address(page), pages * PAGE, advice).map(|()| 0),
            Call::Settle { slot } => self.settle(slot),
            Call::Look(_) | Call::Fork { .. } => Ok(0),
        }
    }

    fn keep(&mut self, slot: usize, fd: OwnedFd) -> io::Result<i64> {
        self.fds[slot] = Some(fd);
        Ok(0)
    }

    /// An ioctl that returns a descriptor.
    fn make_handle(&mut self, device: usize, to: usize, call: u32, at: usize) -> io::Result<i64> {
        let fd = sys::ioctl(self.fd(device), call, at)?;
        // SAFETY: the kernel has just given this descriptor to us.
        self.keep(to, unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    }

    fn publish(&self, slot: usize, at: At, what: &Publication) -> io::Result<i64> {
        let segments: Vec<abi::Segment> = what
            .segments
            .iter()
            .map(|segment| abi::Segment {
                source: source_address(&what.payload, segment.source),
                len: segment.len,
                offset: segment.offset,
                align_log2: segment.align_log2,
                reserved: segment.reserved,
            })
            .collect();
        let mut argument = abi::Publish {
            segments: array_address(what.array, &segments),
            count: what.count.unwrap_or(segments.len() as u32),
            flags: what.flags,
            expect: what.expect,
            ..Default::default()
        };
        spoil(&mut argument.reserved, what.reserved);
        let number = match what.fill {
            true => abi::JIT_FILL,
            false => abi::JIT_APPEND,
        };
        sys::ioctl(self.fd(slot), number, put(at, argument))
    }

    fn create_code(&self, device: usize, at: At, what: &Code) -> io::Result<i64> {
        let (addr, flags) = match what.addr {
            CodeAt::Anywhere(_) => (0, 0),
            CodeAt::Fixed(page) => (page_address(page) as u64, abi::CREATE_CODE_FIXED),
            CodeAt::FixedNowhere(addr) => (addr, abi::CREATE_CODE_FIXED),
            CodeAt::Hint(addr) => (addr, 0),
        };
        let mut argument = abi::CreateCode {
            source: source_address(&what.payload, what.source),
            len: what.len,
            addr,
            flags: flags | what.flags,
            ..Default::default()
        };
        spoil(&mut argument.reserved, what.reserved);
        let at = put(at, argument);
        let value = sys::ioctl(self.fd(device), abi::JIT_CREATE_CODE, at)?;
        if let CodeAt::Anywhere(page) = what.addr {
            let made: abi::CreateCode = get(at);
            let len = (what.len as usize).next_multiple_of(PAGE);
            move_to(made.addr as usize, len, page)?;
        }
        Ok(value)
    }

    fn map(&self, map: Map) -> io::Result<i64> {
        let sharing = match map.private {
            true => libc::MAP_PRIVATE,
            false => libc::MAP_SHARED,
        };
        let (addr, place) = match map.place {
            Place::Anywhere => (0, 0),
            Place::Fixed => (page_address(map.page), libc::MAP_FIXED),
            Place::FixedNoReplace => (page_address(map.page), libc::MAP_FIXED_NOREPLACE),
        };
        let (len, fd) = (map.pages * PAGE, self.fd(map.slot));
        let offset = map.offset as usize;
        let got = sys::mmap(addr, len, map.prot, sharing | place, fd, offset)?;
        if map.place == Place::Anywhere {
            move_to(got, len, map.page)?;
        }
        Ok(0)
    }

    /// Waits until no page of the region waits to be freed.
    fn settle(&self, slot: usize) -> io::Result<i64> {
        let mut patience = Patience::new();
        loop {
            let mut stats = abi::Stats::default();
            sys::ioctl_inout(self.fd(slot), abi::JIT_STATS, &mut stats)?;
            if stats.retired == stats.freed {
                return Ok(0);
            }
            if patience.is_over(stats.freed) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Whether anything is mapped on a page of the arena.
    pub fn is_mapped(&self, page: usize) -> bool {
        let mut there = [0u8; 1];
        let arguments = [page_address(page), PAGE, there.as_mut_ptr().addr(), 0, 0, 0];
        sys::syscall(libc::SYS_mincore, arguments).is_ok()
    }
}

/// `/proc/self/mem`.
fn own_memory() -> Checked<File> {
    File::open("/proc/self/mem").or_fail("open /proc/self/mem")
}

/// Private memory at `addr` in place of what is there, full of `byte`.
fn anonymous(addr: usize, pages: usize, byte: u8) -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    sys::mmap(addr, pages * PAGE, RW, flags, -1, 0)?;
    let to = std::ptr::with_exposed_provenance_mut::<u8>(addr);
    // SAFETY: the mapping was just made, writable.
    unsafe { to.write_bytes(byte, pages * PAGE) };
    Ok(())
}

/// Moves a mapping into the arena.
fn move_to(addr: usize, len: usize, page: usize) -> io::Result<()> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    sys::mremap(addr, len, len, flags, page_address(page)).map(|_| ())
}

/// Makes a reserved word other than 0.
fn spoil(reserved: &mut [u32], word: Option<usize>) {
    if let Some(word) = word {
        let count = reserved.len();
        reserved[word % count] = 1;
    }
}

/// Puts an argument where a call will look for it.
fn put<T: Copy>(at: At, argument: T) -> usize {
    let size = size_of::<T>();
    let (write, read) = match at {
        At::Memory => (ARGUMENTS, ARGUMENTS),
        At::ReadOnlyMemory => (ARGUMENTS, READ_ONLY),
        At::Cliff => (ARGUMENTS, ARGUMENTS + PAGE - size / 2),
        At::Nowhere(addr) => return addr as usize,
    };
    let to = std::ptr::with_exposed_provenance_mut::<T>(write);
    // SAFETY: the page of arguments is writable and ours.
    unsafe { to.write_unaligned(argument) };
    read
}

/// What a call has written to its argument.
fn get<T: Copy>(at: usize) -> T {
    // SAFETY: the call has succeeded, so there is memory.
    unsafe { std::ptr::with_exposed_provenance::<T>(at).read_unaligned() }
}

fn array_address(at: At, segments: &[abi::Segment]) -> u64 {
    match at {
        At::Memory | At::ReadOnlyMemory => segments.as_ptr().expose_provenance() as u64,
        At::Cliff => (EDGE + PAGE - size_of::<abi::Segment>() / 2) as u64,
        At::Nowhere(addr) => addr,
    }
}

fn source_address(payload: &Payload, source: Source) -> u64 {
    match source {
        Source::Payload(start) => (payload.0.as_ptr().expose_provenance() + start) as u64,
        Source::Cliff(before) => (EDGE + PAGE - before) as u64,
        Source::Arena(start) => address(start) as u64,
        Source::Nowhere(addr) => addr,
    }
}
