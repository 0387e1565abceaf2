// SPDX-License-Identifier: GPL-2.0

//! One CPU: what it has cached, and which address space it has loaded. After
//! arch/x86/mm/tlb.c of Linux 7.3.
//!
//! The TLB is the weakest that the architecture allows: for each page of each
//! mapping the *set* of all frames that it was ever filled with and that were
//! not flushed, and a fetch uses any of them. That an entry is dropped at some
//! time needs no step of its own: nothing depends on an entry being there, a
//! walk and a fault may always happen, so dropping one only removes outcomes.
//! For the same reason a CPU caches at once all that it may ([`crate::reduce`]).

use jitfd_plan::mms::Mms;

use crate::{scenario::PAGES, tlb::address};

/// What a CPU does, as far as address spaces go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Executes user code of an address space.
    User(u8),
    /// A kernel thread runs in an address space that is still loaded.
    Lazy(u8),
    /// `exec_mmap()`: still loaded, and not `active_mm` any more. The CPU loads
    /// another one before it runs user code.
    Leaving(u8),
    /// `switch_mm_irqs_off()` has set the CPU's bit in the mask and cleared
    /// `is_lazy`, and has not compared generations yet. Interrupts are off.
    Entering(u8),
    /// The kernel's own address space.
    Kernel,
    /// Offline.
    Offline,
}

impl Mode {
    /// The address space in CR3.
    pub fn loaded(self) -> Option<u8> {
        match self {
            Mode::User(mm) | Mode::Lazy(mm) | Mode::Leaving(mm) => Some(mm),
            Mode::Entering(_) | Mode::Kernel | Mode::Offline => None,
        }
    }

    /// `current->active_mm`, if it is loaded.
    fn active(self) -> Option<u8> {
        self.loaded().filter(|_| !matches!(self, Mode::Leaving(_)))
    }

    /// Whether an interrupt is served now.
    pub fn takes_interrupts(self) -> bool {
        !matches!(self, Mode::Entering(_) | Mode::Offline)
    }
}

/// One CPU.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu {
    /// What it does.
    pub mode: Mode,
    /// Frames that may be cached, for each mapping and page: a set of bits.
    pub tlb: Vec<[u8; PAGES]>,
    /// Address spaces whose generation is newer than what the CPU last flushed
    /// for: a set of bits.
    pub behind: u8,
    /// Its timer has run in the epoch in flight.
    pub has_ticked: bool,
    /// A mutation only: its timer has flushed, and not yet read the epoch.
    pub is_ticking: bool,
}

impl Cpu {
    /// A CPU with an empty TLB.
    pub fn new(mode: Mode, mappings: usize) -> Self {
        Cpu {
            mode,
            tlb: vec![[0; PAGES]; mappings],
            behind: 0,
            has_ticked: false,
            is_ticking: false,
        }
    }

    /// Forgets all entries of the mappings of `mm`.
    pub fn flush(&mut self, mm: u8, mappings: &[usize]) {
        for (entries, &owner) in self.tlb.iter_mut().zip(mappings) {
            if owner == usize::from(mm) {
                *entries = [0; PAGES];
            }
        }
    }

    /// `flush_tlb_user()` of the address space that is loaded, if it is one of
    /// `mms`. The generation that the kernel keeps for the CPU is not touched.
    /// A CPU that runs something else is spared.
    pub fn flush_one_of(&mut self, mms: Mms, mappings: &[usize]) {
        let is_meant = |mm: &u8| mms.may_hold(address(usize::from(*mm)));
        if let Some(mm) = self.mode.active().filter(is_meant) {
            self.flush(mm, mappings);
        }
    }

    /// Whether nothing of the mappings of `mm` is cached.
    pub fn is_empty_of(&self, mm: usize, mappings: &[usize]) -> bool {
        let owned = self.tlb.iter().zip(mappings);
        owned
            .filter(|&(_, &owner)| owner == mm)
            .all(|(entries, _)| *entries == [0; PAGES])
    }

    /// The second half of `switch_mm_irqs_off()`.
    pub fn enter(&mut self, mm: u8, mappings: &[usize]) {
        if self.behind & (1 << mm) != 0 {
            self.flush(mm, mappings);
            self.behind &= !(1 << mm);
        }
        self.mode = Mode::User(mm);
    }
}
