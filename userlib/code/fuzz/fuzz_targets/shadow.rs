// SPDX-License-Identifier: MIT OR Apache-2.0

//! The validator against its shadow: the verdict, the start of each instruction
//! and the tolerated branches.
#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

use jitfd_code::{Rules, validate};
use libfuzzer_sys::fuzz_target;
use support::{Verdict, judge};

/// Code, and pairs of bytes that say where its data is.
#[derive(arbitrary::Arbitrary, Debug)]
struct Input<'a> {
    data: Vec<(u8, u8)>,
    code: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let code = input.code;
    let ranges = input.data.iter().map(|&(start, len)| {
        let start = usize::from(start) % code.len().max(1);
        start..(start + 1 + usize::from(len) % 32).min(code.len())
    });
    let ranges: Vec<_> = ranges.collect();
    let options = Rules::new().allow_lock_skips();
    let options = ranges.iter().cloned().fold(options, Rules::data);
    match (validate(code, &options), judge(code, &ranges)) {
        (Ok(chunk), Verdict::Accepted(starts, skips)) => {
            assert_eq!(chunk.bytes(), code);
            assert!(
                (0..code.len())
                    .filter(|&at| chunk.is_boundary(at))
                    .eq(starts)
            );
            assert!(chunk.lock_skips().iter().copied().eq(skips));
        }
        (Err(error), Verdict::Refused) => {
            let text = error.to_string();
            assert!(text.len() > 20 && error.offset <= code.len());
        }
        (Err(_), _) if code.is_empty() => {}
        (result, verdict) => panic!("{result:?}, {verdict:?}"),
    }
});
