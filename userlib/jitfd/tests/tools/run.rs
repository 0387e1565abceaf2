// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs tools, with this program under them.

use jitfd::{Fallback, Jit};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Where a child puts its files.
const FOLDER: &str = "JITFD_TEST_FOLDER";
/// What must not be skipped: see [`super`].
const REQUIRED: &str = "JITFD_TOOLS";

/// Whether nothing may be skipped: in a guest, which has the module, too.
fn all() -> bool {
    std::env::var_os(REQUIRED).is_some_and(|word| word == "all")
}

/// On a host, whatever there is.
pub fn fallback() -> Fallback {
    if all() {
        Fallback::Never
    } else {
        Fallback::Any
    }
}

/// What makes code executable there.
pub fn jit() -> Jit {
    Jit::open(fallback()).unwrap()
}

/// Says that a tool is not allowed to do its work here.
///
/// # Panics
/// If it has to be.
pub fn skip(why: &str) {
    assert!(!all(), "{why}");
    eprintln!("SKIP: {why}");
}

/// Whether `tool` is installed.
pub fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output();
    let runs = found.is_ok_and(|output| output.status.success());
    let required = std::env::var_os(REQUIRED).is_some_and(|word| word == "required");
    assert!(runs || !required, "{tool} is not installed");
    if !runs {
        skip(&format!(
            "{tool} is not installed; tests/tools.sh does that"
        ));
    }
    runs
}

/// A folder of its own, removed on drop.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("jitfd-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The folder that the parent made for this child.
pub fn given_folder() -> PathBuf {
    std::env::var_os(FOLDER).unwrap().into()
}

/// Runs a tool in `folder` with `arguments`, and after them, if there is one,
/// this program with only the ignored test `child`.
pub fn tool(name: &str, folder: &Folder, arguments: &[&str], child: Option<&str>) -> Output {
    let mut command = Command::new(name);
    command.args(arguments).env(FOLDER, folder.path());
    command.current_dir(folder.path());
    if let Some(child) = child {
        command.arg(std::env::current_exe().unwrap());
        command.args([
            child,
            "--exact",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ]);
    }
    command.output().unwrap()
}

/// Both outputs, for a message.
pub fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    format!("{out}\n{err}")
}
