// SPDX-License-Identifier: GPL-2.0
//! Makes one allocation or copy of user memory of this thread fail.
//!
//! `/proc/thread-self/fail-nth` counts them down, those of the slab allocator, of
//! the page allocator and copies alike. Nobody else is concerned. Allocations that
//! are tried again in another way (`kvmalloc()`) fail only if all that follow fail
//! too, which `make-it-fail` sees to.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use crate::suite::outcome::{Checked, OrFail, Outcome, skipped};

const KNOBS: &str = "/sys/kernel/debug";
const COUNTDOWN: &str = "/proc/thread-self/fail-nth";
const ALWAYS: &str = "/proc/thread-self/make-it-fail";

/// What is set for each kind: allocations that may sleep fail too, all caches
/// and sizes are concerned, and the kernel does not log each failure.
const SETTINGS: [(&str, &str); 16] = [
    ("failslab/task-filter", "Y"),
    ("failslab/probability", "100"),
    ("failslab/times", "-1"),
    ("fail_page_alloc/task-filter", "Y"),
    ("fail_page_alloc/probability", "100"),
    ("fail_page_alloc/times", "-1"),
    ("failslab/ignore-gfp-wait", "N"),
    ("failslab/cache-filter", "N"),
    ("failslab/verbose", "0"),
    ("failslab/stacktrace-depth", "0"),
    ("fail_page_alloc/ignore-gfp-wait", "N"),
    ("fail_page_alloc/ignore-gfp-highmem", "N"),
    ("fail_page_alloc/min-order", "0"),
    ("fail_page_alloc/verbose", "0"),
    ("fail_page_alloc/stacktrace-depth", "0"),
    ("fail_usercopy/verbose", "0"),
];

/// A countdown that no call ends.
const END: &[u8] = b"1000000000";

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The n-th allocation or copy.
    One,
    /// That, and all allocations that follow. Not for what a program's own page
    /// faults are part of: they would be tried again for ever.
    AllFrom,
}

/// The countdown of this thread.
pub struct Injector {
    countdown: File,
    always: File,
    mode: Mode,
}

impl Injector {
    /// Skips the test if the kernel has no fault injection.
    pub fn new(mode: Mode) -> Checked<Self> {
        let open = |path| OpenOptions::new().read(true).write(true).open(path);
        let (Ok(countdown), Ok(always)) = (open(COUNTDOWN), open(ALWAYS)) else {
            return skipped("this kernel has no fault injection");
        };
        set_up()?;
        Ok(Injector {
            countdown,
            always,
            mode,
        })
    }

    /// Runs `call` with its `nth` allocation or copy failing. Says whether there
    /// were so many.
    pub fn run<T>(&self, nth: u32, call: impl FnOnce() -> T) -> Checked<(T, bool)> {
        let text = nth.to_string();
        if self.mode == Mode::AllFrom {
            // Nothing fails before the countdown is over.
            self.countdown
                .write_all_at(END, 0)
                .or_fail("begin the countdown")?;
            self.always
                .write_all_at(b"1", 0)
                .or_fail("let all that follows fail")?;
        }
        self.countdown
            .write_all_at(text.as_bytes(), 0)
            .or_fail("arm the fault injection")?;
        let result = call();
        if self.mode == Mode::AllFrom {
            self.stop_failing()?;
        }
        Ok((result, self.was_injected()?))
    }

    /// The copy that this takes can be the n-th itself.
    fn stop_failing(&self) -> Outcome {
        let stop = || self.always.write_all_at(b"0", 0);
        stop().or_else(|_| stop()).or_fail("stop failing")
    }

    /// Whether the countdown is over. Ends it.
    fn was_injected(&self) -> Checked<bool> {
        let mut left = [0; 16];
        let (injected, ended) = match self.countdown.read_at(&mut left, 0) {
            Ok(len) => {
                let injected = left[..len].trim_ascii() == b"0";
                (injected, injected || self.end().is_ok())
            }
            // The copy that failed was this very one.
            Err(error) => (false, error.raw_os_error() == Some(libc::EFAULT)),
        };
        // Likewise: the failure ends the countdown.
        if !ended {
            self.end().or_fail("end the fault injection")?;
        }
        Ok(injected)
    }

    fn end(&self) -> io::Result<()> {
        self.countdown.write_all_at(b"0", 0)
    }
}

fn set_up() -> Outcome {
    for (knob, value) in SETTINGS {
        fs::write(format!("{KNOBS}/{knob}"), value).or_fail(knob)?;
    }
    Ok(())
}
