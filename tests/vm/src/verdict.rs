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

/// How much of an emulator's complaints is shown.
const LAST_LINES: usize = 10;

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
    let failures = failures(&outcome, &format!("{log}\n{console}"), &dir.emulator_log());
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
fn failures(outcome: &Outcome, log: &str, emulator_log: &Path) -> Vec<String> {
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
            "the guest ended before its time (emulator: {}) {}",
            outcome
                .emulator
                .map_or("still there".into(), |status| status.to_string()),
            end_of(&read(emulator_log))
        ));
    }
    failures
}

/// The last lines: the first ones are about what it has loaded.
fn end_of(log: &str) -> String {
    let lines: Vec<&str> = log.trim().lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

fn read(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\r', "")
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    fn ended(end: End) -> Outcome {
        Outcome {
            ready: true,
            end: Some(end),
            ended: true,
            on_purpose: true,
            ..Outcome::default()
        }
    }

    fn judge(outcome: &Outcome, console: &str) -> (u8, Vec<String>) {
        let failures = failures(outcome, console, Path::new("/nonexistent"));
        (status(outcome, failures.is_empty()), failures)
    }

    #[test]
    fn the_program_decides_when_all_is_well() {
        assert_eq!(judge(&ended(End::Exited(3)), "").0, 3);
        assert_eq!(judge(&ended(End::Killed(11)), "").0, 139);
    }

    #[test]
    fn a_guest_that_did_not_mean_to_end_has_failed() {
        let crashed = Outcome {
            on_purpose: false,
            ..ended(End::Exited(0))
        };
        let (status, failures) = judge(&crashed, "");
        assert_eq!(status, FAILED);
        assert!(failures[0].contains("before its time"), "{failures:?}");
        assert_eq!(judge(&Outcome::default(), "").0, FAILED);
    }

    #[test]
    fn what_the_console_says_is_a_failure_whatever_init_says() {
        let console = "[    1.5] Kernel panic - not syncing: Attempted to kill init!";
        let (status, failures) = judge(&ended(End::Exited(0)), console);
        assert_eq!(status, FAILED);
        assert_eq!(failures.len(), 1);
    }

    #[test]
    fn a_limit_has_a_status_of_its_own() {
        let late = Outcome {
            timeout: Some(Timeout::Boot(Duration::from_secs(60))),
            ..Outcome::default()
        };
        assert_eq!(judge(&late, "").0, TIMED_OUT);
    }

    #[test]
    fn of_the_emulators_log_the_end_is_shown() {
        let log: Vec<String> = (0..30).map(|line| line.to_string()).collect();
        assert_eq!(end_of(&log.join("\n")), log[20..].join("\n"));
        assert_eq!(end_of("one\n"), "one");
    }
}
