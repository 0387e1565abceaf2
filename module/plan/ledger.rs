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
        let mut set = CpuSet {
            words: [0; W],
            used: 0,
        };
        set.make_room(cpus);
        set
    }

    /// From now on CPUs `0..cpus` can be in it, which has been of no CPU: for one
    /// that was made in its place, as zeroes.
    pub const fn make_room(&mut self, cpus: usize) {
        let words = cpus.div_ceil(64);
        self.used = if words < W { words } else { W };
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

/// Whether `adding` more replaced pages, beside the `waiting` ones of the same
/// region, need a flush first.
pub const fn must_flush(bound: usize, waiting: usize, adding: usize) -> bool {
    waiting.saturating_add(adding) > bound
}

/// A number that a region draws for each publication that replaced pages: after
/// the last of their entries was swapped, and while their CPUs are noted.
pub type Ticket = u64;

/// One replaced page that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wait {
    /// Of the publication that replaced it.
    pub ticket: Ticket,
    /// The first epoch that starts after its entries were swapped.
    pub epoch: i64,
}

/// What is known to be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flushed {
    /// The last epoch in which every CPU concerned has flushed. Stored when the
    /// last of them has, never when an epoch starts (rule R12).
    pub epoch: i64,
    /// The last ticket before a flush that the region itself has made.
    pub ticket: Ticket,
}

impl Wait {
    /// Whether no TLB holds a translation to the page any more.
    pub const fn is_over(self, flushed: Flushed) -> bool {
        self.epoch <= flushed.epoch || self.ticket <= flushed.ticket
    }
}

/// The ticket that a new version carries, in place of one that carried `before`.
/// If a CPU may have used that one, it is `next`, which the publication under way
/// will draw. If none has, it was never cached, but those before it may be still:
/// what is known of them stays (rule R11).
pub const fn replaced_under(before: Ticket, accessed: bool, next: Ticket) -> Ticket {
    if accessed {
        next
    } else {
        before
    }
}

/// Whether a TLB may still hold an old version of a page (rules R11, R13).
/// `replaced` is the ticket of the last publication that replaced a version of
/// it which a CPU had used, 0 if none has; `oldest` the lowest ticket of the
/// region that is not known to be flushed.
pub fn is_outdated(replaced: Ticket, oldest: Option<Ticket>) -> bool {
    oldest.is_some_and(|oldest| replaced >= oldest)
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
