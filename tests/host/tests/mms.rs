// SPDX-License-Identifier: GPL-2.0

//! Sets of address spaces: none that was added is ever missing.

use jitfd_plan::mms::Mms;
use proptest::prelude::*;

fn of(mms: &[usize]) -> Mms {
    let mut all = Mms::none();
    mms.iter().for_each(|&mm| all.add(mm));
    all
}

proptest! {
    #[test]
    fn what_was_added_is_there(one: Vec<usize>, other: Vec<usize>) {
        let mut both = of(&one);
        both.union(&of(&other));
        prop_assert!(one.iter().chain(&other).all(|&mm| both.may_hold(mm)));
        prop_assert_eq!(both, of(&[one, other].concat()));
    }

    #[test]
    fn an_address_space_is_one_bit(mm: usize) {
        let words = of(&[mm]).words();
        prop_assert_eq!(words.iter().map(|word| word.count_ones()).sum::<u32>(), 1);
    }

    #[test]
    fn words_are_all_of_it(mms: Vec<usize>) {
        prop_assert_eq!(Mms::from_words(of(&mms).words()), of(&mms));
    }
}

#[test]
fn nothing_is_in_none() {
    assert!(!(0..1000).any(|mm| Mms::none().may_hold(mm << 6)));
}

/// Objects of some kilobytes, one after the other: another one is taken for one of
/// them about as often as by chance, one in 256.
#[test]
fn neighbours_differ() {
    let set = of(&[0xffff_8880_0100_0000]);
    let others = (1..10_000usize).map(|n| 0xffff_8880_0100_0000 + n * 1408);
    let mistaken = others.filter(|&mm| set.may_hold(mm)).count();
    assert!(mistaken < 10_000 / 64, "{mistaken}");
}
