// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the compiler refuses, and what it says: each file of `compile_fail` beside its
//! `.stderr`. After a change of the texts, or of the compiler:
//!
//! ```text
//! TRYBUILD=overwrite cargo test -p jitfd --test compile_fail
//! ```

#[test]
fn what_is_not_sound_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
