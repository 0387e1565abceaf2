// SPDX-License-Identifier: GPL-2.0
//! `vm PROGRAM ARGUMENTS...` boots a guest, loads the module, runs the program
//! as root, streams what it prints, and exits as it exits. What goes wrong
//! outside the program is named in one line, with the exit status 124 for a stall,
//! 128 and its number for a signal (130: Ctrl-C), and 125 for anything else.
//!
//! In the order of a run: `options` (what is asked), `image` (which kernel and
//! which module), `emulator` (what all emulators are) and `qemu` with `accel` (how
//! fast) or `bochs`, `initramfs` (what the guest holds), `boot`, `guest` (the
//! process), `session` (the conversation with it) with `cpu` (is it the machine that
//! was wanted) and `watch` (it does not stall), `klog` (what the kernel complained
//! about), `verdict`. `interrupt` (Ctrl-C) is looked at by all that wait.

mod accel;
mod bochs;
mod boot;
mod cpu;
mod emulator;
mod error;
mod guest;
mod image;
mod initramfs;
mod interrupt;
mod klog;
mod options;
mod qemu;
mod rundir;
mod session;
mod verdict;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::error::Error;
use crate::options::Options;
use crate::verdict::Verdict;

fn main() -> ExitCode {
    let options = Options::parse();
    interrupt::watch();
    match run(&options) {
        Ok(verdict) => {
            verdict.explain();
            ExitCode::from(verdict.status)
        }
        Err(error) => match interrupt::status() {
            Some(status) => {
                eprintln!("vm: interrupted; run the same command again, it goes on");
                ExitCode::from(status)
            }
            None => {
                eprintln!("vm: failed: {error}");
                ExitCode::from(verdict::FAILED)
            }
        },
    }
}

fn run(options: &Options) -> Result<Verdict, Error> {
    let image = image::find(options)?;
    let emulator = emulator::choose(options, &image)?;
    let emulator = emulator.as_ref();
    let dir = rundir::RunDir::new(&image.cache)?;
    let entries = initramfs::contents(options, &image.init, image.module.as_deref())?;
    let limits = emulator::limits(emulator, options);
    let out = options.out.as_deref();
    let outcome = boot::boot(emulator, options, &image, &dir, entries, limits, out)?;
    verdict::reach(outcome, &dir, options.kernel_log.as_deref())
}
