// SPDX-License-Identifier: GPL-2.0
//! The verdict on a run: the program's own exit status if everything around it
//! went well; else one line for each thing that went wrong.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::klog;
use crate::rundir::RunDir;
use crate::session::{End, Outcome, Timeout};

/// The exit status when the guest stalled, as timeout(1) has it.
pub const TIMED_OUT: u8 = 124;
/// The exit status when anything but the program failed.
pub const FAILED: u8 = 125;

/// What the runner says and how it exits.
pub struct Verdict {
    /// The exit status.
    pub status: u8,
    failures: Vec<String>,
    excerpt: String,
    log: PathBuf,
}

impl Verdict {
    /// Tells a person what went wrong, if anything did.
    pub fn explain(&self) {
        if self.failures.is_empty() {
            // make turns every failure into 2, so the status is also said.
            if self.status != 0 {
                eprintln!("vm: the program ended with status {}", self.status);
            }
            return;
        }
        eprintln!("---- the kernel's log, the part that matters ----");
        eprintln!("{}", self.excerpt);
        eprintln!("---- all of it: {} ----", self.log.display());
        for failure in &self.failures {
            eprintln!("vm: failed: {failure}");
        }
    }
}

/// Weighs what was learned from the guest.
pub fn reach(outcome: Outcome, dir: &RunDir, keep: Option<&Path>) -> Result<Verdict, Error> {
    let console = read(&dir.console());
    let log = match outcome.kernel_log.is_empty() {
        true => console.clone(),
        false => outcome.kernel_log.clone(),
    };
    write(&dir.kernel_log(), &log)?;
    if let Some(path) = keep {
        write(path, &log)?;
    }
    let failures = failures(&outcome, &format!("{log}\n{console}"), &dir.qemu_log());
    Ok(Verdict {
        status: status(&outcome, failures.is_empty()),
        failures,
        excerpt: klog::excerpt(&log),
        log: dir.kernel_log(),
    })
}

fn status(outcome: &Outcome, all_well: bool) -> u8 {
    match (all_well, outcome.timeout, outcome.end) {
        (_, Some(_), _) => TIMED_OUT,
        (true, None, Some(End::Exited(status))) => status,
        (true, None, Some(End::Killed(signal))) => 128 | signal,
        _ => FAILED,
    }
}

/// One line for each thing that went wrong outside the program, the cause first.
fn failures(outcome: &Outcome, log: &str, qemu_log: &Path) -> Vec<String> {
    let mut failures: Vec<String> = klog::reports(log)
        .into_iter()
        .map(|report| format!("the kernel reported: {report}"))
        .collect();
    failures.extend(outcome.failures.iter().cloned());
    failures.extend(outcome.timeout.map(|timeout| match timeout {
        Timeout::Boot(silence) => format!(
            "the guest did not boot within {} s; try ACCEL=tcg if it was kvm, or a larger BOOT_LIMIT=",
            silence.as_secs()
        ),
        Timeout::Run(silence) => format!("the guest has said nothing for {} s", silence.as_secs()),
    }));
    if failures.is_empty() && !outcome.complete() {
        failures.push(format!(
            "the guest ended before its time (QEMU: {}) {}",
            outcome
                .qemu
                .map_or("still there".into(), |status| status.to_string()),
            read(qemu_log).trim()
        ));
    }
    failures
}

fn read(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\r', "")
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::at(path))
}
