// SPDX-License-Identifier: GPL-2.0
//! Other processes of a test: children, and the gates that keep them in step.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::Duration;

use super::outcome::{Checked, OrFail, Outcome, Stop, equal, failed};
use super::sys;

/// Gives up root for another user.
pub fn become_user(id: u32) -> Outcome {
    // SAFETY: no memory is concerned.
    let result = unsafe { libc::setuid(id) };
    equal("setuid", result, 0)
}

/// The state of a process as `/proc` has it, `Z` for one that nobody has waited
/// for; `None` if it is gone.
pub fn state(pid: libc::pid_t) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.chars().next()
}

/// A forked child that runs a part of the test.
pub struct Child {
    pid: libc::pid_t,
    words: File,
}

impl Child {
    /// Forks. `run` decides how the child ends.
    pub fn start(run: impl FnOnce() -> Outcome) -> Checked<Self> {
        let (words, mut writer) = sys::pipe().or_fail("pipe")?;
        let pid = sys::fork().or_fail("fork")?;
        if pid != 0 {
            return Ok(Child { pid, words });
        }
        let outcome = panic::catch_unwind(AssertUnwindSafe(run));
        let text = match outcome {
            Ok(Ok(())) => sys::exit(0),
            Ok(Err(Stop::Failed(why) | Stop::Skipped(why) | Stop::Inapplicable(why))) => why,
            Err(_) => "panicked".to_owned(),
        };
        let _ = writer.write_all(text.as_bytes());
        sys::exit(1);
    }

    /// The same as another user.
    pub fn of_user(id: u32, run: impl FnOnce() -> Outcome) -> Checked<Self> {
        Child::start(|| become_user(id).and_then(|()| run()))
    }

    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        state(self.pid).is_some_and(|state| state != 'Z' && state != 'X')
    }

    /// Its process id.
    pub fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// Waits for its end. Fails if it did.
    pub fn join(mut self) -> Outcome {
        let status = sys::wait(self.pid).or_fail("wait for a child")?;
        if libc::WIFSIGNALED(status) {
            return failed(format!(
                "child: killed by signal {}",
                libc::WTERMSIG(status)
            ));
        }
        if libc::WEXITSTATUS(status) == 0 {
            return Ok(());
        }
        let mut text = String::new();
        let _ = self.words.read_to_string(&mut text);
        failed(format!("child: {text}"))
    }

    /// Waits for its end by a signal, and returns that.
    pub fn join_killed(self) -> Checked<i32> {
        let status = sys::wait(self.pid).or_fail("wait for a child")?;
        if libc::WIFSIGNALED(status) {
            return Ok(libc::WTERMSIG(status));
        }
        failed(format!("the child ended with {status:#x}, not by a signal"))
    }

    /// Ends it and waits until it is gone.
    pub fn end(self) -> Outcome {
        sys::kill(self.pid, libc::SIGKILL).or_fail("kill a child")?;
        sys::wait(self.pid).or_fail("wait for a child").map(|_| ())
    }
}

/// Runs a part of the test in a child, to its end.
pub fn in_child(run: impl FnOnce() -> Outcome) -> Outcome {
    Child::start(run)?.join()
}

/// A gate between processes: each `wait` passes one `open`. Made before the
/// fork.
pub struct Gate {
    reader: File,
    writer: File,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Checked<Self> {
        let (reader, writer) = sys::pipe().or_fail("pipe")?;
        Ok(Gate { reader, writer })
    }

    /// Lets one through.
    pub fn open(&self) -> Outcome {
        (&self.writer).write_all(&[1]).or_fail("open a gate")
    }

    /// Whether `wait` would pass it at once.
    pub fn is_open(&self) -> Checked<bool> {
        sys::is_readable(&self.reader).or_fail("look at a gate")
    }

    /// Waits until it is open.
    pub fn wait(&self) -> Outcome {
        (&self.reader).read_exact(&mut [0]).or_fail("pass a gate")
    }

    /// Waits until `child` has opened it. Fails if it ends before.
    pub fn wait_for(&self, child: &Child) -> Outcome {
        while !self.is_open()? {
            if !child.is_alive() && !self.is_open()? {
                let mut text = String::new();
                let _ = (&child.words).read_to_string(&mut text);
                return failed(format!("a child ended early: {text}"));
            }
            thread::sleep(Duration::from_micros(200));
        }
        self.wait()
    }

    /// Lets one through and tells it a number.
    pub fn send(&self, number: u64) -> Outcome {
        (&self.writer)
            .write_all(&number.to_le_bytes())
            .or_fail("send a number")
    }

    /// Waits for a number.
    pub fn receive(&self) -> Checked<u64> {
        let mut bytes = [0; 8];
        (&self.reader)
            .read_exact(&mut bytes)
            .or_fail("receive a number")?;
        Ok(u64::from_le_bytes(bytes))
    }
}
