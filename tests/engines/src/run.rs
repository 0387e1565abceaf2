// SPDX-License-Identifier: GPL-2.0

//! A command in another root folder: what it printed, how it ended, what it cost.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How a program is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As it is.
    Stock,
    /// As it is, under `PR_SET_MDWE`.
    Denied,
    /// By `jitfd-run`.
    JitfdRun,
}

/// How a program has ended.
pub struct Ended {
    /// Its exit status, if it has one.
    pub code: Option<i32>,
    /// In words.
    pub status: String,
    /// What it printed.
    pub output: Vec<u8>,
    /// What it said on standard error.
    pub errors: String,
    /// From its start to its end.
    pub elapsed: Duration,
    /// Processor time of it and its children.
    pub used: Used,
}

/// Processor time.
#[derive(Clone, Copy, Default)]
pub struct Used {
    /// The programs' own.
    pub user: Duration,
    /// The kernel's for them.
    pub system: Duration,
}

/// Mounts what programs expect.
pub fn mount(root: &Path) -> io::Result<()> {
    for (kind, folder) in [("proc", "proc"), ("devtmpfs", "dev"), ("tmpfs", "tmp")] {
        let target = root.join(folder);
        fs::create_dir_all(&target)?;
        let kind = CString::new(kind)?;
        let target = CString::new(target.as_os_str().as_bytes())?;
        let none = std::ptr::null();
        // SAFETY: NUL-terminated strings that outlive the call, or null where it may be.
        let result = unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, none) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// In the child, before the program: the root, and the denial.
fn enter(root: &CString, denied: bool) -> io::Result<()> {
    const PR_SET_MDWE: libc::c_int = 65;
    let (one, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: a NUL-terminated string, and flags of this process.
    let done = unsafe {
        libc::chroot(root.as_ptr()) == 0
            && libc::chdir(c"/tmp".as_ptr()) == 0
            && libc::setpgid(0, 0) == 0
            && (!denied || libc::prctl(PR_SET_MDWE, one, none, none, none) == 0)
    };
    if done {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Runs it to its end, or until the time is over.
pub fn run(
    root: &Path,
    way: Way,
    options: &[String],
    words: &[String],
    patience: Duration,
) -> io::Result<Ended> {
    let mut all: Vec<&str> = Vec::new();
    if way == Way::JitfdRun {
        all.extend(["/engines/jitfd-run", "--report"]);
        all.extend(options.iter().map(String::as_str));
    }
    all.extend(words.iter().map(String::as_str));
    let (program, arguments) = all.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let (output, errors) = (root.join("output"), root.join("errors"));
    let folder = CString::new(root.as_os_str().as_bytes())?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command
        .stdout(File::create(&output)?)
        .stderr(File::create(&errors)?);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/tmp")
        .env("LANG", "C.UTF-8");
    // For its own tests.
    command.env("JITFD_RUN", "/engines/jitfd-run");
    // SAFETY: it makes system calls only.
    unsafe { command.pre_exec(move || enter(&folder, way == Way::Denied)) };
    let before = used();
    let start = Instant::now();
    let mut child = command.spawn()?;
    let end = start + patience;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break Some(status),
            None if Instant::now() > end => {
                let leader = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
                // SAFETY: its process group: nobody has waited for its leader yet.
                unsafe { libc::kill(-leader, libc::SIGKILL) };
                child.wait()?;
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let (elapsed, after) = (start.elapsed(), used());
    Ok(Ended {
        code: status.and_then(|status| status.code()),
        status: match status {
            None => format!("not done after {} s", patience.as_secs()),
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("status {code}"),
                (_, Some(signal)) => format!("signal {signal}"),
                _ => status.to_string(),
            },
        },
        output: fs::read(output)?,
        errors: String::from_utf8_lossy(&fs::read(errors)?).into_owned(),
        elapsed,
        used: Used {
            user: after.user.saturating_sub(before.user),
            system: after.system.saturating_sub(before.system),
        },
    })
}

/// Processor time of all children that were waited for.
fn used() -> Used {
    // SAFETY: zeros are a valid one, and the call fills it.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut used);
        used
    };
    let duration = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs())
            + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    Used {
        user: duration(used.ru_utime),
        system: duration(used.ru_stime),
    }
}
