// SPDX-License-Identifier: GPL-2.0
//! Makes one allocation or copy of user memory of this thread fail.
//!
//! `/proc/thread-self/fail-nth` counts them down, those of the slab allocator, of
//! the page allocator and copies alike. Nobody else is concerned.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use crate::suite::outcome::{Checked, OrFail, Outcome, skipped};

const KNOBS: &str = "/sys/kernel/debug";
const COUNTDOWN: &str = "/proc/thread-self/fail-nth";

/// What is set for each kind: allocations that may sleep fail too, all caches
/// and sizes are concerned, and the kernel does not log each failure.
const SETTINGS: [(&str, &str); 10] = [
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

/// The countdown of this thread.
pub struct Injector(File);

impl Injector {
    /// Skips the test if the kernel has no fault injection.
    pub fn new() -> Checked<Self> {
        let opened = OpenOptions::new().read(true).write(true).open(COUNTDOWN);
        let Ok(file) = opened else {
            return skipped("this kernel has no fault injection");
        };
        set_up()?;
        Ok(Injector(file))
    }

    /// Runs `call` with its `nth` allocation or copy failing. Says whether there
    /// were so many.
    pub fn run<T>(&self, nth: u32, call: impl FnOnce() -> T) -> Checked<(T, bool)> {
        let text = nth.to_string();
        self.0
            .write_all_at(text.as_bytes(), 0)
            .or_fail("arm the fault injection")?;
        let result = call();
        Ok((result, self.was_injected()?))
    }

    /// Whether the countdown is over. Ends it.
    fn was_injected(&self) -> Checked<bool> {
        let mut left = [0; 16];
        let (injected, ended) = match self.0.read_at(&mut left, 0) {
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
        self.0.write_all_at(b"0", 0)
    }
}

fn set_up() -> Outcome {
    for (knob, value) in SETTINGS {
        fs::write(format!("{KNOBS}/{knob}"), value).or_fail(knob)?;
    }
    Ok(())
}
