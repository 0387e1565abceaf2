// SPDX-License-Identifier: GPL-2.0
//! The table of the cases, as the text of a Rust file.

use crate::cases::Case;
use std::fmt::Write;

/// `extern` declarations, and `CASES`.
pub fn text(cases: &[Case]) -> String {
    let mut text = String::from("unsafe extern \"C\" {\n");
    for case in cases {
        writeln!(text, "    fn {}() -> core::ffi::c_int;", case.symbol).expect("memory");
    }
    text.push_str("}\n\n/// The tests of libffi.\npub static CASES: &[Case] = &[\n");
    for case in cases {
        let Case {
            name,
            symbol,
            output,
            allocates,
            ..
        } = case;
        let row =
            format!("name: {name:?}, main: {symbol}, output: {output:?}, allocates: {allocates}");
        writeln!(text, "    Case {{ {row} }},").expect("memory");
    }
    text.push_str("];\n");
    text
}
