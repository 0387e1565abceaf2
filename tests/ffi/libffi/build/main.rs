// SPDX-License-Identifier: GPL-2.0
//! Builds libffi as it comes, with its default configuration, and its tests of
//! closures, all from the folder of the pinned crate `libffi-sys`; nothing of
//! them is in this tree. Each test becomes an object whose one global function
//! is its `main` under another name, and a row of the table `cases.rs`.
//!
//! The tests are compiled as they are. What they call `ffi_closure_alloc` and
//! `ffi_closure_free` is renamed in the objects, so that both libffi's own
//! allocator and the one of `jitfd` are in the program.

mod cases;
mod compile;
mod libffi;
mod table;

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=build");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let source = libffi::source();
    let built = libffi::build(&source, &out.join("libffi"));
    let cases = cases::all(&source.join("testsuite"));
    let objects = compile::all(&cases, &built, &out.join("cases"));
    compile::archive(&objects, &out.join("libcases.a"));
    std::fs::write(out.join("cases.rs"), table::text(&cases)).expect("OUT_DIR can be written");

    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rustc-link-search={}", built.libraries.display());
    println!(
        "cargo:rustc-link-search={}",
        compile::cxx_libraries().display()
    );
    // The order is that of the linker: who needs, before who has.
    for library in ["cases", "ffi", "stdc++"] {
        println!("cargo:rustc-link-lib=static:-bundle={library}");
    }
}
