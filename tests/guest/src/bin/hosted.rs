// SPDX-License-Identifier: GPL-2.0

//! Runs a program of the host, which has a loader and libraries, in the guest:
//! `hosted PROGRAM ARGUMENTS`. All of its files are in the working directory
//! (`FILES=`).

use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{env, fs, io};

/// Where every program of x86-64 looks for its loader.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

fn main() -> io::Result<()> {
    let here = env::current_dir()?;
    fs::create_dir_all("/lib64")?;
    fs::create_dir_all("/tmp")?;
    symlink(here.join("ld-linux-x86-64.so.2"), LOADER)?;
    let mut words = env::args_os().skip(1);
    let program = words.next().expect("hosted PROGRAM ARGUMENTS");
    let mut command = Command::new(here.join(program));
    command.args(words).env("LD_LIBRARY_PATH", &here);
    command.env("PYTHONHOME", &here);
    command.env("PYTHONPATH", here.join("python.zip"));
    command.env("PATH", &here).env("JITFD_TOOLS", "all");
    Err(command.exec())
}
