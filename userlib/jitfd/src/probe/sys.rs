// SPDX-License-Identifier: MIT OR Apache-2.0

//! System calls of the probe.
#![expect(unsafe_code, reason = "this is the file for it")]

use crate::os::sys::Span;
use std::ffi::{CStr, c_long};
use std::io;
use std::ptr::null_mut;
use std::sync::atomic::AtomicU64;

/// How a child ended.
pub(crate) enum End {
    Exited,
    Signal(i32),
    /// Somebody else has waited for it.
    Unknown,
}

/// After how many seconds a child is ended that has not ended. What it does takes
/// milliseconds.
pub(crate) const PATIENCE: u32 = 5;

/// Runs `work` in a forked child and waits for it. The child ends with the
/// status 0 behind it, or by `SIGALRM` after so many seconds.
pub(crate) fn in_child(seconds: u32, work: impl FnOnce()) -> io::Result<End> {
    // SAFETY: the child runs `work` and ends. In a program of several threads
    // `work` may need a lock that is held at the fork (not malloc's of the C library,
    // but that of another allocator): the alarm is there for that.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        die_after(seconds);
        work();
        // SAFETY: ends this process, without what the program runs at its exit.
        unsafe { libc::_exit(0) };
    }
    Ok(wait(pid))
}

/// The alarm kills, whatever the program does with it or has done.
fn die_after(seconds: u32) {
    // SAFETY: an empty set is valid, and the calls touch nothing else of ours; only
    // this child is concerned.
    unsafe {
        let mut alarms: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut alarms);
        libc::sigaddset(&raw mut alarms, libc::SIGALRM);
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const alarms, null_mut());
        libc::alarm(seconds);
    }
}

fn wait(pid: libc::pid_t) -> End {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for writes.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        let error = io::Error::last_os_error();
        match waited {
            -1 if error.kind() == io::ErrorKind::Interrupted => {}
            -1 => return End::Unknown,
            _ if libc::WIFSIGNALED(status) => return End::Signal(libc::WTERMSIG(status)),
            _ => return End::Exited,
        }
    }
}

/// A number that a forked child shares with its parent.
pub(crate) struct Shared(Span);

impl Shared {
    pub(crate) fn new() -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        Span::map(None, size_of::<AtomicU64>(), access, flags, None).map(Self)
    }

    pub(crate) fn number(&self) -> &AtomicU64 {
        // SAFETY: the page is readable and writable as long as `self`, aligned,
        // and only accessed as this atomic.
        unsafe { AtomicU64::from_ptr(self.0.base().cast()) }
    }
}

const PR_GET_MDWE: libc::c_int = 66;

/// Whether `PR_MDWE_REFUSE_EXEC_GAIN` is set; an error if the kernel does not
/// know it (before 6.3).
pub(crate) fn refuses_exec_gain() -> io::Result<bool> {
    let none: c_long = 0;
    // SAFETY: the call takes numbers only.
    match unsafe { libc::prctl(PR_GET_MDWE, none, none, none, none) } {
        -1 => Err(io::Error::last_os_error()),
        bits => Ok(bits & 1 != 0),
    }
}

/// The extended attribute `security.selinux` of a file: its label.
pub(crate) fn label(path: &CStr) -> Option<String> {
    let mut label = vec![0_u8; 256];
    let name = c"security.selinux";
    // SAFETY: both names are C strings, and `label` is valid for writes of its
    // length.
    let len = unsafe {
        let value = label.as_mut_ptr().cast();
        libc::getxattr(path.as_ptr(), name.as_ptr(), value, label.len())
    };
    label.truncate(usize::try_from(len).ok()?);
    let text = String::from_utf8(label).ok()?;
    Some(text.trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Like a child that waits for a lock which another thread held at the
    /// fork.
    #[test]
    fn a_child_that_hangs_is_ended_whatever_the_program_does_with_alarms() {
        let hang = || loop {
            std::thread::park();
        };
        let end = in_child(300, || {
            // SAFETY: only this child ignores and blocks them.
            unsafe {
                let mut all: libc::sigset_t = std::mem::zeroed();
                libc::sigfillset(&raw mut all);
                libc::signal(libc::SIGALRM, libc::SIG_IGN);
                libc::sigprocmask(libc::SIG_BLOCK, &raw const all, null_mut());
            }
            if !matches!(in_child(1, hang), Ok(End::Signal(libc::SIGALRM))) {
                std::process::abort();
            }
        });
        assert!(matches!(end, Ok(End::Exited)));
    }
}
