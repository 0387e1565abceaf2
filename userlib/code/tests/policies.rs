// SPDX-License-Identifier: MIT OR Apache-2.0

//! What tightens validation: entries, `endbr64`, forbidden instructions, lines;
//! and that large chunks get the same verdict from several threads.

mod support;

use jitfd_code::{Align, Chunk, Class, CodeError, Reason, Rules, validate};
use proptest::{collection::vec, prelude::*};
use support::text_of;

const LIBC: [&str; 2] = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6"];
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

#[track_caller]
fn refused(code: &[u8], options: &Rules) -> (usize, Reason) {
    let error = validate(code, options).map(|_| ()).unwrap_err();
    (error.offset, error.reason)
}

#[test]
fn entries_are_boundaries_and_the_only_ones() {
    let code = [0xb0, 0x90, 0xc3, 0x90];
    let free = validate(&code, &Rules::new()).unwrap();
    assert!((0..9).filter(|&at| free.is_entry(at)).eq([0, 2, 3]));
    let tight = validate(&code, &Rules::new().entry(3).entry(0)).unwrap();
    assert!((0..9).filter(|&at| tight.is_entry(at)).eq([0, 3]));
    assert!((0..9).filter(|&at| tight.is_boundary(at)).eq([0, 2, 3]));
    let none = validate(&code, &Rules::new().entries_only()).unwrap();
    assert_eq!((0..9).filter(|&at| none.is_entry(at)).count(), 0);
    for (entry, options) in [
        (1, Rules::new()),
        (4, Rules::new()),
        (usize::MAX, Rules::new()),
        (3, Rules::new().data(3..4)),
    ] {
        let result = refused(&code, &options.entry(0).entry(entry));
        assert_eq!(result, (entry, Reason::BadEntry { entry }));
    }
}

#[test]
fn entries_begin_with_endbr64_if_that_is_asked_for() {
    let code = [&ENDBR64[..], &[0xc3], &ENDBR64, &[0xc3]].concat();
    let options = Rules::new().endbr64();
    let chunk = validate(&code, &options).unwrap();
    assert!((0..code.len()).filter(|&at| chunk.is_entry(at)).eq([0]));
    assert!(validate(&code, &options.clone().entry(0).entry(5)).is_ok());
    assert_eq!(
        refused(&code, &options.clone().entry(4)),
        (4, Reason::NoEndbr64)
    );
    assert_eq!(refused(&code[4..], &options), (0, Reason::NoEndbr64));
    assert_eq!(refused(&ENDBR64[..3], &options).1, Reason::Truncated);
}

/// One instruction of each kind that a class is about, and the class.
fn forbidden() -> Vec<(Class, Vec<Vec<u8>>)> {
    use Class::{FarTransfers, Privileged, ProtectionKeys, Segments, SystemCalls};
    let list = |all: &[&[u8]]| all.iter().map(|one| one.to_vec()).collect();
    vec![
        (
            SystemCalls,
            list(&[&[0x0f, 0x05], &[0x0f, 0x34], &[0xcd, 0x80], &[0xcd, 0x03]]),
        ),
        (
            ProtectionKeys,
            list(&[
                &[0x0f, 0x01, 0xef],
                &[0x0f, 0xae, 0x2f],
                &[0x48, 0x0f, 0xae, 0x2f],
            ]),
        ),
        (
            FarTransfers,
            list(&[
                &[0xff, 0x2f],
                &[0xff, 0x1f],
                &[0xcb],
                &[0xca, 0, 0],
                &[0x48, 0xcf],
            ]),
        ),
        (
            Segments,
            list(&[
                &[0xf3, 0x48, 0x0f, 0xae, 0xd0],
                &[0xf3, 0x0f, 0xae, 0xd8],
                &[0x8e, 0xe0],
                &[0x0f, 0xa1],
                &[0x0f, 0xb4, 0x07],
            ]),
        ),
        (
            Privileged,
            list(&[
                &[0xf4],
                &[0x0f, 0x30],
                &[0x0f, 0x22, 0xd8],
                &[0xec],
                &[0xfa],
            ]),
        ),
    ]
}

#[test]
fn each_class_forbids_its_own_and_nothing_else() {
    for (class, instructions) in forbidden() {
        for instruction in instructions {
            let code = [&[0x90][..], &instruction, &[0xc3]].concat();
            assert!(validate(&code, &Rules::new()).is_ok(), "{code:02x?}");
            let only = Rules::new().forbid(class);
            assert_eq!(refused(&code, &only), (1, Reason::Forbidden { class }));
            let mut others = Rules::new();
            for other in Class::FIXED.into_iter().filter(|&other| other != class) {
                others = others.forbid(other);
            }
            assert!(validate(&code, &others).is_ok(), "{code:02x?}");
        }
    }
}

#[test]
fn classes_may_overlap() {
    // xrstors writes the keys, and only the kernel may.
    for class in [Class::ProtectionKeys, Class::Privileged] {
        let options = Rules::new().forbid(class);
        assert_eq!(
            refused(&[0x0f, 0xc7, 0x1f], &options),
            (0, Reason::Forbidden { class })
        );
    }
}

#[test]
fn prefixes_hide_nothing() {
    let options = Rules::new().forbid(Class::SystemCalls);
    for prefix in [0x2e, 0x66, 0x48, 0xf2, 0xf3] {
        assert!(
            validate(&[prefix, 0x0f, 0x05], &options).is_err(),
            "{prefix:x}"
        );
    }
}

#[test]
fn forbidden_by_name() {
    let options = Rules::new().forbid_mnemonic("MOV").unwrap();
    let named = Reason::Forbidden {
        class: Class::Named,
    };
    assert_eq!(refused(&[0x90, 0xb8, 1, 0, 0, 0], &options), (1, named));
    assert!(validate(&[0x90, 0x48, 0x8d, 0x07, 0xc3], &options).is_ok());
    assert!(matches!(
        Rules::new().forbid_mnemonic("move"),
        Err(CodeError { reason: Reason::NoMnemonic { name }, .. }) if name == "move"
    ));
}

#[test]
fn instructions_stay_within_lines() {
    let mut code = vec![0x90; 62];
    code.extend([0x83, 0xc0, 0x01, 0xc3]);
    assert!(validate(&code, &Rules::new()).is_ok());
    let options = Rules::new().within_lines();
    assert_eq!(refused(&code, &options), (62, Reason::CrossesLine));
    code.remove(0);
    let chunk = validate(&code, &options).unwrap();
    assert_eq!(chunk.align(), Align::LINE);
    assert_eq!(chunk.clone().aligned(Align::NONE).align(), Align::LINE);
    assert_eq!(chunk.aligned(Align::PAGE).align(), Align::PAGE);
}

#[test]
fn the_text_of_a_policy_error_is_complete() {
    let error = validate(&[0x0f, 0x05], &Rules::new().forbid(Class::SystemCalls)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "offset 0x0: 0f 05 (syscall): the rules forbid this: a system call; \
         emit something else, or change the rules"
    );
}

type Verdict = Result<(Vec<usize>, Vec<usize>), CodeError>;

fn verdict(code: &[u8], options: &Rules) -> Verdict {
    let list = |chunk: Chunk| {
        let starts = (0..code.len()).filter(|&at| chunk.is_boundary(at));
        (starts.collect(), chunk.lock_skips().to_vec())
    };
    validate(code, options).map(list)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whole and damaged, with all rules and with few.
    #[test]
    fn several_threads_give_the_verdict_of_one(
        hits in vec((any::<usize>(), any::<u8>()), 0..3),
        cuts in vec(any::<usize>(), 0..3),
        threads in 2_usize..9,
        strict: bool,
    ) {
        let Some(text) = text_of(&LIBC) else {
            return Ok(());
        };
        // Long enough to be divided, whatever the C library is.
        let mut code = text.repeat((3 << 20) / text.len());
        for (at, value) in hits {
            let at = at % code.len();
            code[at] = value;
        }
        let mut options = Rules::new().allow_lock_skips();
        if strict {
            options = options.forbid(Class::Privileged);
        }
        for cut in cuts {
            let at = cut % (code.len() - 100);
            options = options.data(at..at + 100);
        }
        let one = verdict(&code, &options.clone().threads(1));
        let several = verdict(&code, &options.threads(threads));
        prop_assert!(one == several, "{:?}, {:?}", one.err(), several.err());
    }
}
