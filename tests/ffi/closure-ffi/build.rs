// SPDX-License-Identifier: GPL-2.0
//! Makes modules of closure-ffi's own tests, from the folder of the pinned crate;
//! nothing of them is in this tree. Their text stays as it is, but for what makes
//! them programs of their own: attributes of the whole file, `#[test]`, and the
//! name of the module with an allocator, which becomes ours.

use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Those that need no unstable Rust.
const FILES: [&str; 4] = ["builtin_alloc", "custom_alloc", "explicit_alloc", "macros"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let folder = tests_of("closure-ffi");
    for file in FILES {
        let path = folder.join(format!("test_{file}.rs"));
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        fs::write(out.join(format!("{file}.rs")), module(&text)).expect("OUT_DIR can be written");
    }
}

/// The text of a file as that of a module with a list of its tests.
fn module(text: &str) -> String {
    let mut module = String::new();
    let mut list = String::new();
    let mut is_test = false;
    for line in text.lines() {
        if line.starts_with("#![") {
            continue;
        }
        if line == "#[test]" {
            is_test = true;
            continue;
        }
        if let Some(rest) = line.strip_prefix("fn ").filter(|_| is_test) {
            let name = rest.split('(').next().unwrap_or_default();
            writeln!(list, "    ({name:?}, {name}),").expect("memory");
            is_test = false;
        }
        let line = if line == "mod slab_alloc;" {
            "use crate::slab_alloc;"
        } else {
            line
        };
        module.push_str(line);
        module.push('\n');
    }
    write!(
        module,
        "\n/// The tests of this file.\npub const TESTS: &[(&str, fn())] = &[\n{list}];\n"
    )
    .expect("memory");
    module
}

/// The folder `tests` of a dependency, wherever cargo has it.
fn tests_of(name: &str) -> PathBuf {
    let cargo = env::var_os("CARGO").expect("cargo sets CARGO");
    let output = Command::new(cargo)
        .args(["metadata", "--locked", "--offline", "--format-version=1"])
        .output()
        .expect("cargo runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {text}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let mut packages = metadata["packages"].as_array().into_iter().flatten();
    let package = packages
        .find(|package| package["name"] == name)
        .expect("it is a dependency");
    let manifest = package["manifest_path"].as_str().expect("a path");
    Path::new(manifest).with_file_name("tests")
}
