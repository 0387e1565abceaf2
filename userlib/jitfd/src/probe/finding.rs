// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the probe says: how a rule of the system is, and how a trial ended.

use super::sys;
use crate::backend_name::Backend;
use crate::error::Error;
use std::fmt;

/// What a [`Finding`] is about.
pub(super) mod subject {
    /// The processor.
    pub const CPU: &str = "cpu";
    /// The kernel's version and kind.
    pub const KERNEL: &str = "kernel";
    /// The jit module.
    pub const MODULE: &str = "module";
    /// `/dev/jit`: its presence, owner and mode.
    pub const DEVICE: &str = "/dev/jit";
    /// How the file system of `/dev/jit` is mounted.
    pub const MOUNT: &str = "mount";
    /// `PR_SET_MDWE`: this process has given up some ways to get new code.
    pub const MDWE: &str = "MDWE";
    /// A filter of system calls.
    pub const SECCOMP: &str = "seccomp";
    /// The SELinux policy.
    pub const SELINUX: &str = "SELinux";
    /// The setting `vm.memfd_noexec`.
    pub const MEMFD_NOEXEC: &str = "memfd_noexec";
    /// The system call `membarrier`.
    pub const MEMBARRIER: &str = "membarrier";
}

/// One rule of the system, in words.
///
/// ```
/// use jitfd::probe;
///
/// for finding in probe().findings {
///     println!("{}: {}", finding.subject, finding.text);
///     if finding.subject == "seccomp" && !finding.backends.is_empty() && !finding.certain {
///         println!("ask who has made the filter");
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What it is about: `"cpu"`, `"kernel"`, `"module"`, `"/dev/jit"`, `"mount"` (of the
    /// file system with `/dev/jit`), `"MDWE"`, `"seccomp"`, `"SELinux"`, `"memfd_noexec"`
    /// or `"membarrier"`.
    pub subject: &'static str,
    /// The backends that it refuses, or may refuse; empty if it allows all.
    pub backends: Vec<Backend>,
    /// Whether it is known that it refuses (or allows) these.
    pub certain: bool,
    /// One line, without a full stop.
    pub text: String,
}

/// How the attempt to use a backend ended.
///
/// ```
/// use jitfd::{Trial, probe};
///
/// for (backend, trial) in probe().trials {
///     match trial {
///         Trial::Works => println!("{backend} is there"),
///         Trial::Killed(signal) => println!("{backend} would kill this program ({signal})"),
///         other => println!("{backend}: {other}"),
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trial {
    /// Code was published and has run.
    Works,
    /// A call was refused.
    Refused(Error),
    /// The attempt was ended by this signal: `SIGSYS` (31) is a seccomp filter's.
    Killed(i32),
    /// No child could be forked to try it, or the child hung (`ETIMEDOUT`): why.
    Untried(Error),
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works => f.write_str("works"),
            Self::Refused(error) => write!(f, "{error}"),
            Self::Killed(libc::SIGSYS) => f.write_str("killed by a seccomp filter (SIGSYS)"),
            Self::Killed(signal) => write!(f, "killed by signal {signal}"),
            Self::Untried(error) if error.errno() == libc::ETIMEDOUT => write!(
                f,
                "not tried: the child hung, and was ended after {} seconds",
                sys::PATIENCE
            ),
            Self::Untried(error) => write!(f, "not tried: {error}"),
        }
    }
}
