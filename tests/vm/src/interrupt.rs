// SPDX-License-Identifier: GPL-2.0
//! Ctrl-C and polite kills. A handler notes the signal; whoever waits for something
//! looks here now and then, and gives up what it waits for.

use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use crate::error::Error;

/// How often whoever waits for long looks here.
pub const LOOK: Duration = Duration::from_millis(50);

static NOTED: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: libc::c_int) {
    NOTED.store(signal, Ordering::Relaxed);
}

/// From now on these signals are noted. One that is ignored, as under nohup, stays so.
/// A second Ctrl-C ends the runner at once.
pub fn watch() {
    for (signal, flags) in [
        (libc::SIGINT, libc::SA_RESETHAND),
        (libc::SIGTERM, 0),
        (libc::SIGHUP, 0),
    ] {
        // SAFETY: a sigaction of zeroes is the default one, with an empty mask; the
        // pointers are to it and live through each call; the handler only stores.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, ptr::null(), &raw mut action);
            if action.sa_sigaction != libc::SIG_IGN {
                action.sa_sigaction = note as *const () as libc::sighandler_t;
                action.sa_flags = flags;
                libc::sigaction(signal, &raw const action, ptr::null_mut());
            }
        }
    }
}

/// The exit status that tells of the signal, if there was one.
pub fn status() -> Option<u8> {
    match NOTED.load(Ordering::Relaxed) {
        0 => None,
        signal => u8::try_from(signal).ok().map(|signal| 128 | signal),
    }
}

/// An error once a signal has come.
pub fn check() -> Result<(), Error> {
    match status() {
        None => Ok(()),
        Some(_) => Err(Error("interrupted".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is noted is noted for the whole process, where other tests look at it too:
    /// so this one has a process of its own.
    #[test]
    fn a_polite_kill_is_noted() {
        let own = std::env::current_exe().unwrap();
        let status = std::process::Command::new(own)
            .args(["--ignored", "--exact", "interrupt::tests::noted_here"])
            .status();
        assert!(status.unwrap().success());
    }

    #[test]
    #[ignore = "run by the test above"]
    fn noted_here() {
        watch();
        assert!(check().is_ok());
        // SAFETY: it touches no memory, and the signal has a handler.
        unsafe { libc::raise(libc::SIGTERM) };
        assert_eq!(status(), Some(143));
        assert!(check().is_err());
    }
}
