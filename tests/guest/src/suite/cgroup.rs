// SPDX-License-Identifier: GPL-2.0
//! Memory control groups: what processes take, what they may take, and whom the
//! kernel kills for it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::outcome::{Checked, OrFail, Outcome, skipped};

const ROOT: &str = "/sys/fs/cgroup";

/// A group, removed when dropped, with all that is still in it.
pub struct Group(PathBuf);

impl Group {
    /// A group without a limit.
    pub fn new(name: &str) -> Checked<Self> {
        let controllers =
            fs::read_to_string(format!("{ROOT}/cgroup.controllers")).unwrap_or_default();
        if !controllers.contains("memory") {
            return skipped("this kernel has no memory control groups");
        }
        fs::write(format!("{ROOT}/cgroup.subtree_control"), "+memory")
            .or_fail("subtree_control")?;
        let path = PathBuf::from(format!("{ROOT}/{name}"));
        // A test that was killed may have left it.
        remove(&path);
        fs::create_dir(&path).or_fail("make a control group")?;
        Ok(Group(path))
    }

    /// A group that may take so many bytes.
    pub fn limited(name: &str, bytes: u64) -> Checked<Self> {
        let group = Group::new(name)?;
        fs::write(group.0.join("memory.max"), bytes.to_string()).or_fail("memory.max")?;
        Ok(group)
    }

    /// Puts the caller into it, which must be root.
    pub fn enter(&self) -> Outcome {
        fs::write(self.0.join("cgroup.procs"), "0").or_fail("enter a control group")
    }

    /// How many bytes it has, for whoever is not root any more, too.
    pub fn gauge(&self) -> Checked<Gauge> {
        let file = File::open(self.0.join("memory.current"));
        file.map(Gauge).or_fail("memory.current")
    }

    /// How many bytes it has.
    pub fn current(&self) -> Checked<u64> {
        self.gauge()?.read()
    }

    /// The most bytes that it has from now on.
    pub fn peak(&self) -> Checked<Gauge> {
        let path = self.0.join("memory.peak");
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.or_fail("memory.peak")?;
        file.write_all_at(b"reset", 0)
            .or_fail("reset memory.peak")?;
        Ok(Gauge(file))
    }

    /// How many of its processes the kernel killed for want of memory.
    pub fn kills(&self) -> Checked<u64> {
        let text = fs::read_to_string(self.0.join("memory.events")).or_fail("memory.events")?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        let count = line.and_then(|count| count.parse().ok());
        count.or_fail("oom_kill in memory.events")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes a group with all that is in it, if it is there.
fn remove(path: &Path) {
    let _ = fs::write(path.join("cgroup.kill"), "1");
    let deadline = Instant::now() + Duration::from_secs(5);
    // What was killed may take a moment.
    while path.exists() && fs::remove_dir(path).is_err() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(2));
    }
}

/// A number of bytes that a group tells.
pub struct Gauge(File);

impl Gauge {
    /// Reads it.
    pub fn read(&self) -> Checked<u64> {
        let mut text = [0; 32];
        let len = self.0.read_at(&mut text, 0).or_fail("read a gauge")?;
        let text = std::str::from_utf8(&text[..len]).ok();
        let number = text.and_then(|text| text.trim().parse().ok());
        number.or_fail("a number of bytes")
    }
}
