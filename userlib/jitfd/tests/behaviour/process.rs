// SPDX-License-Identifier: MIT OR Apache-2.0

//! Forked children, for what ends a process and for what a child may not do.

/// How a child ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Status(i32),
    Signal(i32),
}

/// What a child does takes milliseconds, on a slow machine seconds. One that has not
/// ended after so many seconds hangs.
const HANGS: u32 = 300;

/// Runs `work` in a forked child; its result is the status. The child must not
/// panic, and must not print: another thread may have held the lock at the fork.
pub fn child(work: impl FnOnce() -> i32) -> End {
    // SAFETY: the child calls `work` and ends; the tests' `work` takes no lock
    // that another thread could hold.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid == 0 {
        // SAFETY: a child that is expected to die leaves no core behind, and one
        // that hangs dies.
        unsafe {
            let none = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            libc::alarm(HANGS);
        }
        let status = work();
        // SAFETY: ends this process.
        unsafe { libc::_exit(status) }
    }
    wait(pid)
}

fn wait(pid: libc::pid_t) -> End {
    let mut status = 0;
    // SAFETY: `status` is valid for writes.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid, "waitpid");
    if libc::WIFSIGNALED(status) {
        End::Signal(libc::WTERMSIG(status))
    } else {
        End::Status(libc::WEXITSTATUS(status))
    }
}

/// The access column of each mapping of this process that has a byte of the
/// range: "r-xs" and the like.
pub fn accesses(start: usize, len: usize) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (from, to) = words.next()?.split_once('-')?;
            let from = usize::from_str_radix(from, 16).ok()?;
            let to = usize::from_str_radix(to, 16).ok()?;
            (from < start + len && start < to).then(|| words.next().unwrap_or("").to_owned())
        })
        .collect()
}
