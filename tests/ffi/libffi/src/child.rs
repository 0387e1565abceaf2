// SPDX-License-Identifier: GPL-2.0
//! Runs something in a process whose standard output is read.

use crate::suite::outcome::{Checked, OrFail};
use crate::suite::sys;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;

/// How the process ended.
pub struct End {
    /// As wait(2) has it.
    pub status: i32,
    /// What it wrote to its standard output.
    pub output: String,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "status {:#x}, it printed: {:?}",
            self.status, self.output
        )
    }
}

/// Forks, and waits for the end. `work` may end the process by itself.
pub fn run(work: impl FnOnce() -> i32) -> Checked<End> {
    let (mut reader, writer) = sys::pipe().or_fail("pipe")?;
    let child = sys::fork().or_fail("fork")?;
    if child == 0 {
        drop(reader);
        be_output(writer);
        // By way of C, which writes out what it has buffered.
        std::process::exit(work());
    }
    drop(writer);
    let mut output = Vec::new();
    reader.read_to_end(&mut output).or_fail("read the output")?;
    let status = sys::wait(child).or_fail("wait")?;
    let output = String::from_utf8_lossy(&output).into_owned();
    Ok(End { status, output })
}

/// Makes the pipe the standard output.
fn be_output(writer: File) {
    // SAFETY: no memory is concerned; nothing here keeps descriptor 1.
    unsafe { libc::dup2(writer.as_raw_fd(), libc::STDOUT_FILENO) };
}
