// SPDX-License-Identifier: GPL-2.0
//! Runs each test in a process of its own, and counts.
//!
//! A crash or a hang is one failure. What counts as a hang follows the speed of the
//! machine (`patience`); whoever waits for the output sees from time to time what is
//! waited for. A test also fails when something of it keeps the module in use after all
//! its processes are gone; and when it is skipped on Debian's kernel, which has
//! everything that the tests need.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use super::outcome::{Outcome, Stop};
use super::patience::Patience;
use super::sys;

/// Many times what a test takes where the machine is as fast as usual.
const LIMIT: Duration = Duration::from_secs(30);
/// How often it is said that a test still runs: whoever hears nothing at all takes the
/// whole guest for stalled.
const TELL: Duration = Duration::from_secs(60);

/// A named test.
pub struct Test {
    name: String,
    limit: Duration,
    run: Box<dyn Fn() -> Outcome>,
}

impl Test {
    /// A test that runs for the usual time.
    pub fn new(name: impl Into<String>, run: impl Fn() -> Outcome + 'static) -> Self {
        Test {
            name: name.into(),
            limit: LIMIT,
            run: Box::new(run),
        }
    }

    /// The same for a test that takes longer: it hangs if it has not ended after `limit`,
    /// or as many times that as the machine is slower than usual.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

/// The tests of a file, named `file::function`.
macro_rules! tests {
    ($($function:ident),* $(,)?) => {
        vec![$($crate::suite::harness::Test::new(
            $crate::suite::harness::name(module_path!(), stringify!($function)),
            $function,
        )),*]
    };
}
pub(crate) use tests;

/// `file::function`.
pub fn name(module: &str, function: &str) -> String {
    let file = module.rsplit("::").next().unwrap_or(module);
    format!("{file}::{function}")
}

/// Whether this is a kernel as Debian ships it.
pub fn is_stock_kernel() -> bool {
    fs::read_to_string("/proc/sys/kernel/osrelease").is_ok_and(|release| release.contains("deb"))
}

/// How a test ended.
pub enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
    Inapplicable(String),
}

/// Runs the tests that the arguments ask for.
pub fn main(tests: Vec<Test>) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--list") {
        for test in &tests {
            println!("{}", test.name);
        }
        return ExitCode::SUCCESS;
    }
    let wanted =
        |test: &Test| words.is_empty() || words.iter().any(|word| test.name.contains(word));
    run_all(tests.into_iter().filter(wanted))
}

fn run_all(tests: impl Iterator<Item = Test>) -> ExitCode {
    let stock = is_stock_kernel();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for test in tests {
        let name = &test.name;
        match verdict(&test, stock) {
            Verdict::Passed => {
                passed += 1;
                println!("ok {name}");
            }
            Verdict::Failed(why) => {
                failed += 1;
                println!("FAILED {name}: {why}");
            }
            Verdict::Skipped(reason) | Verdict::Inapplicable(reason) => {
                skipped += 1;
                println!("skipped {name}: {reason}");
            }
        }
    }
    println!("suite: {passed} passed, {failed} failed, {skipped} skipped");
    ExitCode::from(u8::from(failed != 0 || passed == 0))
}

fn verdict(test: &Test, stock: bool) -> Verdict {
    match run_one(test) {
        Verdict::Skipped(reason) if stock => {
            Verdict::Failed(format!("skipped, unexpectedly: {reason}"))
        }
        Verdict::Passed => match still_in_use() {
            None => Verdict::Passed,
            Some(count) => Verdict::Failed(format!("left the module in use: {count}")),
        },
        other => other,
    }
}

const FAILED: i32 = 1;
const SKIPPED: i32 = 2;
const INAPPLICABLE: i32 = 3;

/// Runs a test in a process of its own.
pub fn run_one(test: &Test) -> Verdict {
    let (mut reader, writer) = sys::pipe().expect("a pipe");
    sys::set_nonblocking(&reader).expect("a pipe takes the flag");
    let _ = std::io::stdout().flush();
    let child = sys::fork().expect("a process");
    if child == 0 {
        drop(reader);
        sys::exit(run_here(test, writer));
    }
    drop(writer);
    let start = Instant::now();
    let status = wait_for(child, test);
    let _ = sys::kill(-child, libc::SIGKILL);
    if status.is_none() {
        let _ = sys::kill(child, libc::SIGKILL);
        let _ = sys::wait(child);
    }
    let mut text = Vec::new();
    // What was written before the end is all that is wanted.
    let _ = reader.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    match status {
        None => Verdict::Failed(format!("still running after {:.1?}", start.elapsed())),
        Some(status) => read_status(status, text),
    }
}

/// How the process ended; `None` if it hangs.
fn wait_for(child: libc::pid_t, test: &Test) -> Option<i32> {
    let (start, mut told) = (Instant::now(), 0);
    let mut patience = Patience::of(test.limit);
    loop {
        match sys::poll(child) {
            Ok(None) if !patience.is_over(0) => thread::sleep(Duration::from_micros(200)),
            // It may have ended while the machine's speed was measured.
            Ok(None) => return sys::poll(child).ok().flatten(),
            other => return other.ok().flatten(),
        }
        let now = start.elapsed().as_secs() / TELL.as_secs();
        if now != told {
            told = now;
            println!("still running: {} after {:.0?}", test.name, start.elapsed());
        }
    }
}

fn read_status(status: i32, text: String) -> Verdict {
    if libc::WIFSIGNALED(status) {
        return Verdict::Failed(format!("killed by signal {}", libc::WTERMSIG(status)));
    }
    match libc::WEXITSTATUS(status) {
        0 => Verdict::Passed,
        FAILED => Verdict::Failed(text),
        SKIPPED => Verdict::Skipped(text),
        INAPPLICABLE => Verdict::Inapplicable(text),
        other => Verdict::Failed(format!("ended with status {other}")),
    }
}

/// In the test's own process: runs it, tells why it did not pass, returns the
/// exit status.
fn run_here(test: &Test, mut writer: File) -> i32 {
    let _ = sys::new_process_group();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (test.run)()));
    let outcome = outcome.unwrap_or_else(|_| Err(Stop::Failed("panicked".to_owned())));
    let (text, status) = match outcome {
        Ok(()) => return 0,
        Err(Stop::Failed(why)) => (why, FAILED),
        Err(Stop::Skipped(reason)) => (reason, SKIPPED),
        Err(Stop::Inapplicable(reason)) => (reason, INAPPLICABLE),
    };
    let _ = writer.write_all(text.as_bytes());
    status
}

/// How many references to the module stay, if any do.
fn still_in_use() -> Option<String> {
    let mut patience = Patience::new();
    loop {
        let count = fs::read_to_string("/sys/module/jit/refcnt").unwrap_or_default();
        let count = count.trim();
        if count.is_empty() || count == "0" {
            return None;
        }
        if patience.is_over(count.parse().unwrap_or(0)) {
            return Some(count.to_owned());
        }
        thread::sleep(Duration::from_millis(1));
    }
}
