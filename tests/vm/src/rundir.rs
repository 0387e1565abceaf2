// SPDX-License-Identifier: GPL-2.0
//! A folder of its own for each run: what the guest boots from, the serial console's
//! log, the emulator's complaints. The logs stay for a day, so that a failure can be looked at.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, SystemTime};

use crate::error::Error;

const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The folder of this run.
pub struct RunDir(PathBuf);

impl RunDir {
    /// The archive that the guest boots from.
    pub const INITRAMFS: &str = "initramfs.cpio";
    /// The medium that holds it, where one is needed.
    pub const MEDIUM: &str = "boot.iso";
    /// What the kernel wrote on its serial console.
    pub const CONSOLE: &str = "console.log";

    /// Makes the folder, and removes those of runs long past.
    pub fn new(cache: &Path) -> Result<RunDir, Error> {
        let all = cache.join("runs");
        remove_old(&all);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let millis = now.unwrap_or_default().as_millis();
        let dir = all.join(format!("{millis}-{}", process::id()));
        fs::create_dir_all(&dir).map_err(Error::at(&dir))?;
        Ok(RunDir(dir))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The archive that the guest boots from.
    pub fn initramfs(&self) -> PathBuf {
        self.0.join(RunDir::INITRAMFS)
    }

    /// What the kernel wrote on its serial console.
    pub fn console(&self) -> PathBuf {
        self.0.join(RunDir::CONSOLE)
    }

    /// What the emulator wrote on its standard error.
    pub fn emulator_log(&self) -> PathBuf {
        self.0.join("emulator.log")
    }

    /// The whole kernel log, as far as it is known.
    pub fn kernel_log(&self) -> PathBuf {
        self.0.join("kernel.log")
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // They may not exist; it is only a matter of disk space.
        for name in [RunDir::INITRAMFS, RunDir::MEDIUM] {
            let _ = fs::remove_file(self.0.join(name));
        }
    }
}

fn remove_old(all: &Path) {
    let Ok(runs) = fs::read_dir(all) else { return };
    for run in runs.flatten() {
        let age = run.metadata().and_then(|data| data.modified());
        let age = age.ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age > KEPT) {
            remove(&run.path());
        }
    }
}

/// Removes a run's files and its folder. It goes into no folder: whatever may be
/// mounted there is not the runner's.
fn remove(run: &Path) {
    let Ok(files) = fs::read_dir(run) else { return };
    // Another runner may be removing it at this moment.
    for file in files.flatten() {
        let _ = fs::remove_file(file.path());
    }
    let _ = fs::remove_dir(run);
}
