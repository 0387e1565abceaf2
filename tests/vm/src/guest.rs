// SPDX-License-Identifier: GPL-2.0
//! An emulator's process: its start inside a root, and its certain end, also when
//! the runner itself is killed.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use crate::error::Error;
use crate::image::{self, Image};
use crate::interrupt;
use crate::rundir::RunDir;
use crate::watch::Watch;

/// Enters the root as every set-up script does: in a box, which ends with this bash,
/// as bash is told to end with the runner.
const ENTER: &str = r#". "$0"; in_root "$@""#;

/// Where the run's folder and the kernel's are inside the root.
pub const RUN: &str = "/mnt/run";
pub const KERNEL: &str = "/mnt/kernel";

/// How an emulator is started, and how it ends.
pub struct Program {
    /// The root that it is in.
    pub root: PathBuf,
    /// Itself and its arguments, by the names that things have in the root. Its
    /// standard output, and for some its standard input, are the channel.
    pub words: Vec<String>,
    /// Its exit status when its guest has ended on purpose.
    pub ends_with: i32,
}

/// A running guest. Dropping it ends it.
pub struct Guest {
    child: Child,
    ends_with: i32,
}

impl Guest {
    /// Starts it.
    pub fn start(program: &Program, image: &Image, dir: &RunDir) -> Result<Guest, Error> {
        let errors = File::create(dir.emulator_log()).map_err(Error::at(&dir.emulator_log()))?;
        let kernel = image.vmlinuz.parent();
        let kernel = kernel.ok_or(Error(format!("{} has no folder", image.vmlinuz.display())))?;
        let mut command = Command::new("bash");
        command
            .args(["-c", ENTER])
            .arg(image::scripts()?.join("lib.sh"))
            .arg(&program.root)
            .arg(bind(dir.path(), RUN))
            .arg(bind(kernel, KERNEL))
            .arg("--")
            .args(&program.words)
            .env("CACHE", &image.cache)
            .env("SETUP_ASKED", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors);
        die_with_parent(&mut command);
        let child = command.spawn().map_err(Error::doing("bash"))?;
        Ok(Guest {
            child,
            ends_with: program.ends_with,
        })
    }

    /// The two directions of the channel to the guest. Both are there once.
    pub fn channel(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        Some((self.child.stdin.take()?, self.child.stdout.take()?))
    }

    /// Waits for the emulator to end by itself, and gives up at the limit or for a signal.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let mut watch = Watch::new(limit);
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if !watch.is_over() && interrupt::check().is_ok() => {
                    thread::sleep(Duration::from_millis(5));
                }
                _ => return None,
            }
        }
    }

    /// Whether an emulator that ended so was ended by its guest.
    pub fn on_purpose(&self, status: ExitStatus) -> bool {
        status.code() == Some(self.ends_with)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a file of the kernel's folder is called in the root.
pub fn in_kernel(path: &Path) -> Result<String, Error> {
    path.file_name()
        .and_then(|name| name.to_str())
        .map(|name| format!("{KERNEL}/{name}"))
        .ok_or(Error(format!("{} names no file", path.display())))
}

/// A mount, as in_root takes it: the target is relative to the root.
fn bind(source: &Path, target: &str) -> String {
    format!("{}:{}", source.display(), target.trim_start_matches('/'))
}

fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl is a plain system call: it allocates nothing and takes no
    // lock, so it may run between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        })
    };
}
