// SPDX-License-Identifier: GPL-2.0
//! Where libffi's source is, and building it.

use crate::compile::run;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A libffi that was built.
pub struct Built {
    /// Folders with `ffi.h`, and with `fficonfig.h`, which the tests include.
    pub headers: [PathBuf; 2],
    /// The folder of `libffi.a`.
    pub libraries: PathBuf,
}

/// The folder `libffi` of the crate `libffi-sys`, wherever cargo has it.
pub fn source() -> PathBuf {
    let cargo = std::env::var_os("CARGO").expect("cargo sets CARGO");
    let output = Command::new(cargo)
        .args(["metadata", "--locked", "--offline", "--format-version=1"])
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let mut packages = metadata["packages"].as_array().into_iter().flatten();
    let package = packages
        .find(|package| package["name"] == "libffi-sys")
        .expect("libffi-sys is a dependency");
    let manifest = package["manifest_path"].as_str().expect("a path");
    Path::new(manifest).with_file_name("libffi")
}

/// Configures and builds a copy of `source` in `folder`, without any option that
/// changes what libffi does: its static trampolines are on.
pub fn build(source: &Path, folder: &Path) -> Built {
    let _ = fs::remove_dir_all(folder);
    run(Command::new("cp").arg("-R").arg(source).arg(folder));
    let root = folder.join("root");
    run(Command::new("sh")
        .arg("./configure")
        .args(["--with-pic", "--disable-shared", "--disable-docs"])
        .arg(format!("--prefix={}", root.display()))
        .current_dir(folder));
    run(Command::new("make").arg("install").current_dir(folder));
    Built {
        headers: [root.join("include"), configured(folder)],
        libraries: root.join("lib"),
    }
}

/// The folder that configure named after the machine.
fn configured(folder: &Path) -> PathBuf {
    let mut entries = fs::read_dir(folder).expect("the copy can be read");
    let found = entries.find_map(|entry| {
        let path = entry.ok()?.path();
        path.join("fficonfig.h").exists().then_some(path)
    });
    found.expect("configure wrote fficonfig.h")
}
