// SPDX-License-Identifier: GPL-2.0
//! Compiles the C++ part. Its library is linked statically, as all is in the guest.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=src/thrower.cc");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .cpp_link_stdlib(None)
        .warnings_into_errors(true);
    build.file("src/thrower.cc").compile("thrower");
    let compiler = build.get_compiler();
    let found = Command::new(compiler.path())
        .arg("-print-file-name=libstdc++.a")
        .output()
        .expect("the C++ compiler runs");
    let library = String::from_utf8(found.stdout).expect("a path in UTF-8");
    let folder = Path::new(library.trim()).parent().expect("in a folder");
    println!("cargo:rustc-link-search=native={}", folder.display());
    println!("cargo:rustc-link-lib=static:-bundle=stdc++");
}
