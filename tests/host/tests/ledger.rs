// SPDX-License-Identifier: GPL-2.0

//! CPU sets against a set of numbers, and the few decisions about freeing.

use std::collections::BTreeSet;

use jitfd_plan::ledger::{
    CpuSet, CpuView, Flushed, Patience, Wait, is_clean, is_outdated, must_flush, patience,
    replaced_under,
};
use proptest::prelude::*;

/// Words of a set in these tests: for up to 192 CPUs.
const WORDS: usize = 3;

/// One operation on a set.
#[derive(Clone, Debug)]
enum Op {
    Insert(usize),
    Remove(usize),
    Union(Vec<usize>),
    RetainEven,
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0usize..250).prop_map(Op::Insert),
        3 => (0usize..250).prop_map(Op::Remove),
        1 => prop::collection::vec(0usize..250, 0..5).prop_map(Op::Union),
        1 => Just(Op::RetainEven),
        1 => Just(Op::Clear),
    ]
}

fn set_of(cpus: usize, members: &[usize]) -> CpuSet<WORDS> {
    let mut set = CpuSet::new(cpus);
    members.iter().for_each(|&cpu| set.insert(cpu));
    set
}

/// How many CPUs a set for `cpus` CPUs can hold: whole words.
fn room(cpus: usize) -> usize {
    cpus.div_ceil(64).min(WORDS) * 64
}

proptest! {
    #[test]
    fn a_set_is_a_set(cpus in 0usize..250, ops in prop::collection::vec(op(), 0..40)) {
        let mut set = set_of(cpus, &[]);
        let mut model = BTreeSet::new();
        for op in ops {
            match op {
                Op::Insert(cpu) => {
                    set.insert(cpu);
                    model.extend((cpu < room(cpus)).then_some(cpu));
                }
                Op::Remove(cpu) => {
                    set.remove(cpu);
                    model.remove(&cpu);
                }
                Op::Union(more) => {
                    set.union(&set_of(cpus, &more));
                    model.extend(more.into_iter().filter(|&cpu| cpu < room(cpus)));
                }
                Op::RetainEven => {
                    set.retain(|cpu| cpu % 2 == 0);
                    model.retain(|cpu| cpu % 2 == 0);
                }
                Op::Clear => {
                    set.clear();
                    model.clear();
                }
            }
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert_eq!(set.len() as usize, model.len());
            prop_assert_eq!(set.is_empty(), model.is_empty());
        }
    }

    #[test]
    fn retain_asks_about_each_member_once(members in prop::collection::btree_set(0usize..192, 0..20)) {
        let mut set = set_of(192, &members.iter().copied().collect::<Vec<_>>());
        let mut asked = Vec::new();
        set.retain(|cpu| {
            asked.push(cpu);
            true
        });
        prop_assert!(asked.into_iter().eq(members));
    }

    #[test]
    fn a_flush_is_due_just_beyond_a_bound(
        bound in 0usize..50,
        waiting in 0usize..60,
        adding in 0usize..10,
    ) {
        prop_assert_eq!(must_flush(bound, waiting, adding), waiting + adding > bound);
    }

    /// Rules R11 to R13: the pages of a region wait in the order of their tickets;
    /// a page is outdated as long as one waits that was replaced with its last
    /// version, or before.
    #[test]
    fn a_page_is_outdated_until_its_last_replacement_is_flushed(
        epochs in prop::collection::vec(0i64..6, 0..8),
        flushed in (0i64..6, 0u64..9),
        replaced in 0u64..9,
    ) {
        let mut epochs = epochs;
        epochs.sort_unstable();
        let waits = epochs.iter().zip(1u64..).map(|(&epoch, ticket)| Wait { ticket, epoch });
        let flushed = Flushed { epoch: flushed.0, ticket: flushed.1 };
        let open: Vec<u64> = waits
            .filter(|wait| wait.epoch > flushed.epoch && wait.ticket > flushed.ticket)
            .map(|wait| wait.ticket)
            .collect();
        let expected = open.iter().any(|&ticket| ticket <= replaced);
        prop_assert_eq!(is_outdated(replaced, open.first().copied()), expected);
    }

    #[test]
    fn a_page_is_marked_by_who_replaced_a_used_version_of_it(used in prop::collection::vec(any::<bool>(), 0..12)) {
        let drawn = (1..).zip(&used);
        let last = drawn.clone().filter(|&(_, &used)| used).map(|(ticket, _)| ticket).last();
        let marked = drawn.fold(0, |before, (ticket, &used)| replaced_under(before, used, ticket));
        prop_assert_eq!(marked, last.unwrap_or(0));
    }

    #[test]
    fn a_wait_ends_with_its_epoch_or_a_flush(
        wait in (0u64..9, 0i64..9),
        flushed in (0i64..9, 0u64..9),
    ) {
        let is_over = Wait { ticket: wait.0, epoch: wait.1 }
            .is_over(Flushed { epoch: flushed.0, ticket: flushed.1 });
        prop_assert_eq!(is_over, wait.1 <= flushed.0 || wait.0 <= flushed.1);
    }

    #[test]
    fn patience_ends_at_the_limit(age: u64, limit: u64) {
        prop_assert_eq!(patience(age, limit) == Patience::Wait, age < limit);
    }
}

/// The words of a set are handed to the kernel as a `struct cpumask`.
#[test]
fn cpu_n_is_bit_n() {
    let mut set = set_of(192, &[0, 63, 64, 191]);
    assert_eq!(set.words(), [1 | 1 << 63, 1, 1 << 63]);
    set.words_mut()[1] = 2;
    assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 65, 191]);
}

#[test]
fn bounds_do_not_overflow() {
    assert!(must_flush(usize::MAX - 1, usize::MAX, usize::MAX));
}

/// Rule R6: only one that runs user code and has not flushed is waited for.
#[test]
fn every_view_of_a_cpu() {
    for bits in 0u8..8 {
        let view = CpuView {
            online: bits & 1 != 0,
            lazy: bits & 2 != 0,
            flushed: bits & 4 != 0,
        };
        assert_eq!(is_clean(view), bits != 1, "{view:?}");
    }
}
