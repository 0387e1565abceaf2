// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the probe says: how a rule of the system is, and how a trial ended.

use super::sys;
use crate::backend_name::Backend;
use crate::error::Error;
use std::fmt;

/// What a [`Finding`] is about.
///
/// See the example of [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Subject {
    /// The processor.
    Cpu,
    /// The kernel's version and kind.
    Kernel,
    /// The jit module.
    Module,
    /// `/dev/jit`: its presence, owner and mode.
    Device,
    /// How the file system of `/dev/jit` is mounted.
    Mount,
    /// `PR_SET_MDWE`: this process has given up some ways to get new code.
    Mdwe,
    /// A filter of system calls.
    Seccomp,
    /// The SELinux policy.
    Selinux,
    /// The setting `vm.memfd_noexec`.
    MemfdNoexec,
    /// The system call `membarrier`.
    Membarrier,
}

impl Subject {
    /// A name for messages.
    ///
    /// See the example of [`Finding`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Kernel => "kernel",
            Self::Module => "module",
            Self::Device => "/dev/jit",
            Self::Mount => "mount",
            Self::Mdwe => "MDWE",
            Self::Seccomp => "seccomp",
            Self::Selinux => "SELinux",
            Self::MemfdNoexec => "memfd_noexec",
            Self::Membarrier => "membarrier",
        }
    }
}

/// What a rule does.
///
/// See the example of [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It does not stand in the way.
    Allows,
    /// It is not known whether it stands in the way.
    MayRefuse,
    /// It refuses the backends that the finding names.
    Refuses,
}

impl Verdict {
    /// A word for messages.
    ///
    /// See the example of [`Finding`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allows => "allows",
            Self::MayRefuse => "may refuse",
            Self::Refuses => "refuses",
        }
    }
}

/// One rule of the system, in words.
///
/// ```
/// use jitfd::{Subject, Verdict, probe};
///
/// for finding in probe().findings() {
///     println!("{} {}: {}", finding.subject.name(), finding.verdict.name(), finding.text);
///     if finding.subject == Subject::Seccomp && finding.verdict == Verdict::MayRefuse {
///         println!("ask who has made the filter");
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What it is about.
    pub subject: Subject,
    /// What it does.
    pub verdict: Verdict,
    /// The backends that it refuses, or may refuse; empty if it allows all.
    pub backends: Vec<Backend>,
    /// One line, without a full stop.
    pub text: String,
}

/// How the attempt to use a backend ended.
///
/// ```
/// use jitfd::{Trial, probe};
///
/// for (backend, trial) in probe().trials() {
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
