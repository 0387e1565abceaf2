// SPDX-License-Identifier: MIT OR Apache-2.0

//! What tightens validation only ever refuses more, and what then passes is as
//! it was.
#![no_main]

use jitfd_code::{Class, Reason, Rules, validate};
use libfuzzer_sys::fuzz_target;

#[derive(arbitrary::Arbitrary, Debug)]
struct Input<'a> {
    entries: Vec<u8>,
    classes: u8,
    cpuid: bool,
    endbr64: bool,
    within_lines: bool,
    code: &'a [u8],
}

impl Input<'_> {
    fn options(&self) -> Rules {
        let mut options = Rules::new().allow_lock_skips();
        for entry in &self.entries {
            options = options.entry(usize::from(*entry));
        }
        for (bit, class) in Class::FIXED.into_iter().enumerate() {
            if self.classes >> bit & 1 != 0 {
                options = options.forbid(class);
            }
        }
        if self.cpuid {
            options = options.forbid_mnemonic("cpuid").unwrap();
        }
        if self.endbr64 {
            options = options.endbr64();
        }
        if self.within_lines {
            options = options.within_lines();
        }
        options
    }
}

fuzz_target!(|input: Input<'_>| {
    let code = input.code;
    let free = validate(code, &Rules::new().allow_lock_skips());
    match (free, validate(code, &input.options())) {
        (Ok(free), Ok(tight)) => {
            for at in 0..code.len() {
                assert_eq!(free.is_boundary(at), tight.is_boundary(at));
                assert!(free.is_boundary(at) || !tight.is_entry(at));
            }
            assert_eq!(free.lock_skips(), tight.lock_skips());
        }
        (Ok(_), Err(error)) => assert!(matches!(
            &error.reason,
            Reason::BadEntry { .. }
                | Reason::NoEndbr64
                | Reason::Forbidden { .. }
                | Reason::CrossesLine
        )),
        (Err(_), tight) => assert!(tight.is_err()),
    }
});
