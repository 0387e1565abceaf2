// SPDX-License-Identifier: GPL-2.0

//! When a replaced page may be freed: rule R6. Time alone proves nothing; a
//! page is freed when every CPU that could hold a translation to it is known
//! not to.

/// A set of CPUs. `W` is the number of 64-bit words; only the first `used` of
/// them are ever looked at, so a set sized for the largest machine costs little
/// on a small one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CpuSet<const W: usize> {
    words: [u64; W],
    used: usize,
}

impl<const W: usize> CpuSet<W> {
    /// An empty set for CPUs `0..cpus`.
    pub const fn new(cpus: usize) -> Self {
        let words = cpus.div_ceil(64);
        CpuSet {
            words: [0; W],
            used: if words < W { words } else { W },
        }
    }

    /// The words in use, 64 CPUs each, CPU 0 in the lowest bit of the first.
    pub fn words_mut(&mut self) -> &mut [u64] {
        self.words.get_mut(..self.used).unwrap_or(&mut [])
    }

    /// The words in use.
    pub fn words(&self) -> &[u64] {
        self.words.get(..self.used).unwrap_or(&[])
    }

    /// Adds `cpu`.
    pub fn insert(&mut self, cpu: usize) {
        if let Some(word) = self.words_mut().get_mut(cpu / 64) {
            *word |= 1 << (cpu % 64);
        }
    }

    /// Takes `cpu` out.
    pub fn remove(&mut self, cpu: usize) {
        if let Some(word) = self.words_mut().get_mut(cpu / 64) {
            *word &= !(1 << (cpu % 64));
        }
    }

    /// Adds every CPU of `other`.
    pub fn union(&mut self, other: &Self) {
        for (word, more) in self.words_mut().iter_mut().zip(other.words()) {
            *word |= more;
        }
    }

    /// Takes every CPU out.
    pub fn clear(&mut self) {
        self.words_mut().fill(0);
    }

    /// Whether no CPU is in the set.
    pub fn is_empty(&self) -> bool {
        self.words().iter().all(|&word| word == 0)
    }

    /// The number of CPUs in the set.
    pub fn len(&self) -> u32 {
        self.words().iter().map(|word| word.count_ones()).sum()
    }

    /// The CPUs in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words().iter().enumerate().flat_map(|(index, &word)| {
            (0..64usize)
                .filter(move |bit| word & (1 << bit) != 0)
                .map(move |bit| index.saturating_mul(64).saturating_add(bit))
        })
    }

    /// Keeps the CPUs for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        for (index, word) in self.words_mut().iter_mut().enumerate() {
            let mut left = *word;
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left.wrapping_sub(1);
                if !keep(index.saturating_mul(64).saturating_add(bit as usize)) {
                    *word &= !(1 << bit);
                }
            }
        }
    }
}

/// What is known of one CPU, each observed after the page-table entries were
/// swapped and the address space's TLB generation was bumped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CpuView {
    /// It runs. A CPU that comes online starts with an empty TLB.
    pub online: bool,
    /// It is in lazy TLB mode: before it runs user code again it compares the
    /// generation and flushes.
    pub lazy: bool,
    /// The module flushed its whole user TLB.
    pub flushed: bool,
}

/// Rule R6, for one CPU that was in the address space's CPU mask.
pub const fn is_clean(view: CpuView) -> bool {
    !view.online || view.lazy || view.flushed
}

/// How many replaced pages may wait to be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Of one region.
    pub region: usize,
    /// Of all regions.
    pub total: usize,
}

/// Whether `adding` more replaced pages need a batched flush first.
pub const fn must_flush(bounds: Bounds, region: usize, total: usize, adding: usize) -> bool {
    region.saturating_add(adding) > bounds.region || total.saturating_add(adding) > bounds.total
}

/// What is done about CPUs that have not flushed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Their next tick will do it.
    Wait,
    /// They do not tick (nohz_full, a stopped tick): interrupt them, once for
    /// the whole batch.
    Interrupt,
}

/// Decides by the age of the batch, in ticks.
pub const fn patience(age: u64, limit: u64) -> Patience {
    if age < limit {
        Patience::Wait
    } else {
        Patience::Interrupt
    }
}
