// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whatever order it is called in, `LineWriter` keeps instructions within lines,
//! each where it said.
#![no_main]

use jitfd_code::{Align, LineWriter, Rules, validate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|steps: Vec<(u8, u8)>| {
    let mut writer = LineWriter::default();
    let mut written = Vec::new();
    for (kind, number) in steps.into_iter().take(500) {
        if kind % 8 == 0 {
            let align = Align::new(1 << (number % 8)).unwrap();
            assert_eq!(writer.align(align).unwrap() % align.bytes(), 0);
            continue;
        }
        // Prefixes that mean nothing, and a NOP.
        let len = 1 + usize::from(number) % 15;
        let instruction = [&vec![0x2e; len - 1][..], &[0x90]].concat();
        let place = writer.place(len);
        assert_eq!(writer.push(&instruction).unwrap(), place);
        written.push(place);
    }
    if let Ok(chunk) = validate(writer.as_ref(), &Rules::new().within_lines()) {
        assert!(written.iter().all(|&at| chunk.is_boundary(at)));
    } else {
        assert!(writer.as_ref().is_empty());
    }
});
