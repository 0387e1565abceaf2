// SPDX-License-Identifier: GPL-2.0

//! Which CPUs may hold a stale translation, and the ways to rid them of it.
//!
//! Context: [`Cpus::add_mm`] and the flushes of this CPU run anywhere;
//! [`Cpus::interrupt`] needs interrupts enabled and waits for all CPUs.

use core::ptr::addr_of;

use kernel::{bindings, prelude::*};

use crate::{
    ffi,
    plan::ledger::{is_clean, CpuSet, CpuView},
};

/// Words of a `struct cpumask` on this kernel.
const WORDS: usize = size_of::<bindings::cpumask>() / size_of::<u64>();

/// CPUs that may hold stale translations.
pub(crate) struct Cpus {
    set: CpuSet<WORDS>,
    /// Some address space uses a global ASID (AMD INVLPGB): then every CPU may
    /// hold its translations, also while it runs something else.
    global: bool,
}

impl Cpus {
    /// None, on a machine with at most `cpus` CPUs.
    pub(crate) const fn new(cpus: usize) -> Self {
        Cpus {
            set: CpuSet::new(cpus),
            global: false,
        }
    }

    /// None, on this machine.
    pub(crate) fn none() -> Self {
        Cpus::new(kernel::cpu::nr_cpu_ids() as usize)
    }

    /// Adds the CPUs that may be using `mm`, after its page-table entries were
    /// changed. All others flush before they use it again.
    ///
    /// # Safety
    ///
    /// `mm` is valid.
    pub(crate) unsafe fn add_mm(&mut self, mm: *mut bindings::mm_struct) {
        // SAFETY: `mm` is valid by this function's contract; it returns a mask
        // of `WORDS` words inside it.
        let mask = unsafe { ffi::jit_mm_bump(mm, &mut self.global) };
        for (index, word) in self.set.words_mut().iter_mut().enumerate() {
            // SAFETY: As above. Volatile: CPUs come and go.
            *word |= unsafe { mask.add(index).read_volatile() } as u64;
        }
    }

    /// Adds all of `other`.
    pub(crate) fn union(&mut self, other: &Cpus) {
        self.set.union(&other.set);
        self.global |= other.global;
    }

    /// Takes all out.
    pub(crate) fn clear(&mut self) {
        self.set.clear();
        self.global = false;
    }

    /// Whether no CPU can hold a stale translation.
    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty() && !self.global
    }

    /// The CPUs, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.set.iter()
    }

    /// Takes out the CPUs that are known to hold nothing stale any more:
    /// offline, lazy, or flushed according to `flushed`.
    pub(crate) fn drop_clean(&mut self, flushed: impl Fn(usize) -> bool) {
        if self.global {
            return;
        }
        self.set.retain(|cpu| {
            !is_clean(CpuView {
                online: is_online(cpu),
                lazy: ffi::cpu_is_lazy(cpu),
                flushed: flushed(cpu),
            })
        });
    }

    /// Flushes all of them now, by interrupt, and waits. Returns how many
    /// interrupts were sent.
    pub(crate) fn interrupt(&mut self) -> u64 {
        self.drop_clean(|_| false);
        let (func, mask): (unsafe extern "C" fn(*mut c_void), _) = if self.global {
            (flush_all_here, addr_of!(bindings::__cpu_online_mask))
        } else {
            let words: *const u64 = self.set.words().as_ptr();
            (flush_here, words.cast::<bindings::cpumask>())
        };
        if self.is_empty() {
            return 0;
        }
        let sent = if self.global {
            // SAFETY: The online mask is always valid to read.
            unsafe { count(mask) }
        } else {
            self.set.len()
        };
        // SAFETY: The functions take no argument and run in any context. The
        // mask is valid: the set has the size of a `struct cpumask` and is
        // borrowed meanwhile.
        unsafe {
            bindings::on_each_cpu_cond_mask(None, Some(func), core::ptr::null_mut(), true, mask)
        };
        let here = kernel::cpu::CpuId::current().as_u32() as usize;
        let local = self.global || self.set.iter().any(|cpu| cpu == here);
        self.clear();
        u64::from(sent).saturating_sub(u64::from(local))
    }
}

/// # Safety
///
/// `mask` is a valid CPU mask.
unsafe fn count(mask: *const bindings::cpumask) -> u32 {
    let words: *const u64 = mask.cast();
    (0..WORDS)
        // SAFETY: A mask has `WORDS` words.
        .map(|index| unsafe { words.add(index).read_volatile() }.count_ones())
        .sum()
}

fn is_online(cpu: usize) -> bool {
    let words: *const u64 = addr_of!(bindings::__cpu_online_mask).cast();
    if cpu / 64 >= WORDS {
        return false;
    }
    // SAFETY: The online mask has `WORDS` words.
    let word = unsafe { words.add(cpu / 64).read_volatile() };
    word & (1 << (cpu % 64)) != 0
}

/// # Safety
///
/// Called by the kernel's cross-call machinery.
unsafe extern "C" fn flush_here(_: *mut c_void) {
    ffi::flush_local();
}

/// # Safety
///
/// Called by the kernel's cross-call machinery.
unsafe extern "C" fn flush_all_here(_: *mut c_void) {
    ffi::flush_local_all();
}
