// SPDX-License-Identifier: GPL-2.0

//! Which CPUs may hold a stale translation, and the ways to rid them of it.
//!
//! Context: [`Cpus::add_mm`] and the flushes of this CPU run anywhere;
//! [`Cpus::interrupt`] needs interrupts enabled and waits for all CPUs.

use core::ptr::addr_of;

use kernel::{bindings, prelude::*};
use pin_init::{init_zeroed, Zeroable};

use crate::{
    ffi,
    file_mapping::SomeMms,
    plan::{
        ledger::{is_clean, CpuSet, CpuView},
        mms::Mms,
    },
};

/// Words of a `struct cpumask` on this kernel.
const WORDS: usize = size_of::<bindings::cpumask>() / size_of::<u64>();

/// CPUs that may hold stale translations.
pub(crate) struct Cpus {
    set: CpuSet<WORDS>,
    /// The address spaces whose translations they are.
    mms: Mms,
    /// Some address space uses a global ASID (AMD INVLPGB): then every CPU may
    /// hold its translations, also while it runs something else.
    global: bool,
}

// SAFETY: Numbers and a bool: as zeroes it is the empty set for no CPU.
unsafe impl Zeroable for Cpus {}

impl Cpus {
    /// None, on a machine with at most `cpus` CPUs.
    pub(crate) const fn new(cpus: usize) -> Self {
        Cpus {
            set: CpuSet::new(cpus),
            mms: Mms::none(),
            global: false,
        }
    }

    /// None, on this machine.
    pub(crate) fn none() -> Self {
        Cpus::new(kernel::cpu::nr_cpu_ids() as usize)
    }

    /// The same in its place: it is large for a stack.
    pub(crate) fn none_in_place() -> impl Init<Self> {
        init_zeroed().chain(|cpus: &mut Self| {
            cpus.set.make_room(kernel::cpu::nr_cpu_ids() as usize);
            Ok(())
        })
    }

    /// Adds the CPUs that may be using `mm`, after its page-table entries were
    /// changed. All others flush before they use it again. Says whether there are
    /// any: the kernel forgets CPUs that run something else or go offline.
    ///
    /// # Safety
    ///
    /// `mm` is valid.
    pub(crate) unsafe fn add_mm(&mut self, mm: *mut bindings::mm_struct) -> bool {
        let mut any = false;
        // SAFETY: `mm` is valid by this function's contract; it returns a mask
        // of `WORDS` words inside it.
        let mask = unsafe { ffi::jit_mm_bump(mm, &mut any) };
        self.global |= any;
        self.mms.add(mm.addr());
        for (index, word) in self.set.words_mut().iter_mut().enumerate() {
            // SAFETY: As above. Volatile: CPUs come and go.
            let more = unsafe { mask.add(index).read_volatile() } as u64;
            *word |= more;
            any |= more != 0;
        }
        any
    }

    /// Adds all of `other`.
    pub(crate) fn union(&mut self, other: &Cpus) {
        self.set.union(&other.set);
        self.mms.union(&other.mms);
        self.global |= other.global;
    }

    /// Takes over all that `other` has.
    pub(crate) fn absorb(&mut self, other: &mut Cpus) {
        self.union(other);
        // SAFETY: They are in `self` now.
        unsafe { other.forget() };
    }

    /// Takes all out.
    ///
    /// # Safety
    ///
    /// They hold nothing stale any more, or somebody else has noted them.
    pub(crate) unsafe fn forget(&mut self) {
        self.set.clear();
        self.mms = Mms::none();
        self.global = false;
    }

    /// Whether no CPU can hold a stale translation.
    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty() && !self.global
    }

    /// The address spaces.
    pub(crate) fn mms(&self) -> Mms {
        self.mms
    }

    /// The CPUs, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.set.iter()
    }

    /// Takes out the CPUs that are known to hold nothing stale any more: offline or
    /// lazy.
    pub(crate) fn drop_idle(&mut self) {
        // SAFETY: None is said to have flushed.
        unsafe { self.drop_clean(|_| false) };
    }

    /// The same, and those that have flushed according to `flushed`.
    ///
    /// # Safety
    ///
    /// These have, after the last one was added.
    pub(crate) unsafe fn drop_clean(&mut self, flushed: impl Fn(usize) -> bool) {
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
    /// interrupts were sent. A CPU that runs something else by then is left
    /// alone: it flushes before it comes back. It leaves the masks of `mms`, so that it
    /// is not interrupted again for these before it does.
    pub(crate) fn interrupt(&mut self, mms: &SomeMms) -> u64 {
        self.drop_idle();
        if self.is_empty() {
            // SAFETY: There is none.
            unsafe { self.forget() };
            return 0;
        }
        let (func, mask): (unsafe extern "C" fn(*mut c_void), _) = if self.global {
            (flush_all_here, addr_of!(bindings::__cpu_online_mask))
        } else {
            let words: *const u64 = self.set.words().as_ptr();
            (flush_here, words.cast::<bindings::cpumask>())
        };
        let sent = if self.global {
            // SAFETY: The online mask is always valid to read.
            unsafe { count(mask) }
        } else {
            self.set.len()
        };
        let mut errand = Errand {
            mms: self.mms,
            leaves: mms,
        };
        let errand = core::ptr::from_mut(&mut errand).cast();
        // SAFETY: The functions run in any context and take the errand, which outlives
        // the call: it waits. The mask is valid: the set has the size of a `struct
        // cpumask` and is borrowed meanwhile.
        unsafe { bindings::on_each_cpu_cond_mask(None, Some(func), errand, true, mask) };
        let here = kernel::cpu::CpuId::current().as_u32() as usize;
        let local = self.global || self.set.iter().any(|cpu| cpu == here);
        // SAFETY: Each has flushed, or runs something else.
        unsafe { self.forget() };
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

/// What a CPU that is interrupted does.
struct Errand<'a> {
    /// It flushes if it runs one of these.
    mms: Mms,
    /// It leaves the masks of these unless it has them loaded.
    leaves: &'a SomeMms,
}

/// # Safety
///
/// Called by the kernel's cross-call machinery with a valid [`Errand`].
unsafe extern "C" fn flush_here(errand: *mut c_void) {
    // SAFETY: By this function's contract.
    let errand = unsafe { &*errand.cast::<Errand<'_>>() };
    if errand.mms.may_hold(ffi::active_mm()) {
        ffi::flush_local();
    }
    for mm in errand.leaves.iter() {
        // SAFETY: It is valid, and interrupts are off.
        unsafe { ffi::jit_mm_leave(mm.as_raw()) };
    }
}

/// # Safety
///
/// Called by the kernel's cross-call machinery.
unsafe extern "C" fn flush_all_here(_: *mut c_void) {
    ffi::flush_local_all();
}
