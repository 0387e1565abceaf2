// SPDX-License-Identifier: GPL-2.0

//! The kernel does the work: `/dev/trampfd`, of the module in `trampfd/`. A
//! trampoline is a file and a mapping of one page.
//!
//! The page fault is what the patch set of July 2020 proposed: "The kernel creates
//! the trampoline mapping without any permissions. When the trampoline is executed by
//! user code, a page fault happens and the kernel gets control." The system call is the
//! third alternative in the mail that answered it; both are in
//! Documentation/trampolines.rst.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use crate::description::{Description, NAMES};
use crate::sys::{self, Mapping, PAGE};

/// As in trampfd.h.
const CREATE: libc::c_ulong = 0x54f0;
const REGS: libc::off_t = 0;
const STACK: libc::off_t = 4096;
const RIP: u64 = 16;

/// The system call of the executable form; elsewhere nobody serves it.
pub const UNUSED_CALL: libc::c_long = 400;

/// How the kernel is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The mapping has no permissions.
    PageFault,
    /// The mapping is code that enters the kernel. The module makes it executable.
    SystemCall,
}

/// The device.
#[derive(Debug)]
pub struct Kernel(OwnedFd);

impl Kernel {
    /// Opens the device.
    pub fn open() -> io::Result<Self> {
        sys::open(c"/dev/trampfd").map(Kernel)
    }

    /// Loads the module from `file`, unless it is there, and opens the device.
    pub fn load(file: &str) -> io::Result<Self> {
        match sys::load_module(&File::open(file)?) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(error),
            _ => Kernel::open(),
        }
    }

    /// A trampoline, not described yet.
    pub fn create(&self) -> io::Result<Blank> {
        sys::ioctl_open(&self.0, CREATE).map(Blank)
    }

    /// A trampoline: created, described, mapped, its descriptor closed.
    pub fn trampoline(&self, what: &Description, entry: Entry) -> io::Result<Trampoline> {
        let blank = self.create()?;
        blank.describe(what)?;
        blank.map(entry)
    }
}

/// A trampoline's file.
#[derive(Debug)]
pub struct Blank(pub OwnedFd);

impl Blank {
    /// Writes its contexts.
    pub fn describe(&self, what: &Description) -> io::Result<()> {
        let mut words = [0; 2 * (NAMES + 1)];
        let mut used = 0;
        let rip = (RIP, what.target() as u64);
        let registers = what.registers().map(|(name, value)| (name as u64, value));
        for (name, value) in registers.chain([rip]) {
            words[used] = name;
            words[used + 1] = value;
            used += 2;
        }
        self.write(REGS, &words[..used])?;
        match what.pushes() {
            [] => Ok(()),
            values => self.write(STACK, values),
        }
    }

    /// Writes anything at an offset.
    pub fn write(&self, offset: libc::off_t, words: &[u64]) -> io::Result<()> {
        sys::write_words(&self.0, words, offset)
    }

    /// Maps it. The file can be closed then.
    pub fn map(&self, entry: Entry) -> io::Result<Trampoline> {
        let prot = match entry {
            Entry::PageFault => libc::PROT_NONE,
            Entry::SystemCall => libc::PROT_READ,
        };
        Mapping::new(Some(&self.0), PAGE, prot).map(Trampoline)
    }
}

/// A trampoline, removed when it is dropped.
#[derive(Debug)]
pub struct Trampoline(Mapping);

impl Trampoline {
    /// Its address.
    pub fn code(&self) -> usize {
        self.0.base()
    }
}
