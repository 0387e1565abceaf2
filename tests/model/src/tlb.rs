// SPDX-License-Identifier: GPL-2.0

//! Which CPUs may hold stale translations, and of which address spaces: the
//! module's `tlb.rs`.

use jitfd_plan::{
    ledger::{CpuSet, CpuView},
    mms::Mms,
};

use crate::{cpu::Mode, state::State};

/// Where the object of an address space is: no two of the model are taken for each
/// other.
pub const fn address(mm: usize) -> usize {
    (mm + 1) << 12
}

/// CPUs that may hold stale translations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cpus {
    /// The CPUs.
    pub set: CpuSet<1>,
    /// The address spaces.
    pub mms: Mms,
}

impl Cpus {
    /// None, of `cpus`.
    pub fn none(cpus: usize) -> Self {
        Cpus {
            set: CpuSet::new(cpus),
            mms: Mms::none(),
        }
    }

    /// Adds the CPUs in `mask` for `mm`. Says whether there are any.
    pub fn add_mm(&mut self, mm: usize, mask: u8) -> bool {
        self.mms.add(address(mm));
        for cpu in (0..8).filter(|cpu| mask & (1 << cpu) != 0) {
            self.set.insert(cpu);
        }
        mask != 0
    }

    /// Adds all of `other`.
    pub fn union(&mut self, other: &Cpus) {
        self.set.union(&other.set);
        self.mms.union(&other.mms);
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        self.set.clear();
        self.mms = Mms::none();
    }

    /// Whether `cpu` is one of them.
    pub fn has(&self, cpu: usize) -> bool {
        self.set
            .words()
            .first()
            .is_some_and(|word| word >> cpu & 1 != 0)
    }

    /// Gives CPU `order[n]` the number n.
    pub fn renumber(&mut self, order: &[usize]) {
        let before = self.clone();
        self.set.clear();
        for (new, &old) in order.iter().enumerate() {
            if before.has(old) {
                self.set.insert(new);
            }
        }
    }
}

/// What the module sees of a CPU.
pub fn view(state: &State, cpu: usize, flushed: bool) -> CpuView {
    let mode = state.cpus[cpu].mode;
    CpuView {
        online: mode != Mode::Offline,
        lazy: matches!(mode, Mode::Lazy(_)),
        flushed,
    }
}
