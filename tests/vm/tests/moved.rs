// SPDX-License-Identifier: GPL-2.0
//! A checkout that was copied, or moved, with what is built in it has its own scripts
//! asked, and so boots its own module.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A script that only says that it was asked.
fn script(at: &Path, name: &str) {
    let path = at.join("tests/vm").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "#!/bin/sh\necho \"the copy's $0\" >&2\nexit 1\n").unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_copied_checkout_has_its_own_scripts_asked() {
    let copy = std::env::temp_dir().join(format!("jitfd-vm-copy-{}", std::process::id()));
    let release = copy.join("target/release");
    let guest = copy.join("target/guest/x86_64-unknown-linux-gnu/release");
    for folder in [&release, &guest] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(guest.join("init"), "").unwrap();
    for name in ["root.sh", "module.sh"] {
        script(&copy, name);
    }
    let program = release.join("vm");
    fs::copy(env!("CARGO_BIN_EXE_vm"), &program).unwrap();
    let output = Command::new(&program).arg("/bin/true").output().unwrap();
    fs::remove_dir_all(copy).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the copy's"), "{said}");
    assert_eq!(output.status.code(), Some(125), "{said}");
}
