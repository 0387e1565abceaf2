// SPDX-License-Identifier: MIT OR Apache-2.0

//! What this system allows, and what refuses the rest.
//!
//! Two kinds of knowledge: *trials*, each a forked child that makes a region,
//! publishes a function and runs it; and *findings*, which say in words what the
//! system's rules are. A trial says that something does not work, the findings
//! say why.

mod files;
mod finding;
mod selinux;
mod sys;
mod system;
mod trial;

use crate::backend::choice::Fallback;
use crate::backend_name::Backend;
pub use finding::{Finding, Trial};
use system::System;

/// What [`probe`] has found out.
///
/// ```
/// use jitfd::{Backend, probe};
///
/// let probe = probe();
/// if !probe.works(Backend::Kernel) {
///     for finding in probe.reasons(Backend::Kernel) {
///         println!("no /dev/jit, because of {}: {}", finding.subject, finding.text);
///     }
/// }
/// println!("{} rules were looked at", probe.findings.len());
/// println!("{} backends were tried", probe.trials.len());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probe {
    /// The system's rules.
    pub findings: Vec<Finding>,
    /// How the attempt to use each backend ended, the best backend first.
    pub trials: Vec<(Backend, Trial)>,
}

impl Probe {
    /// Whether `backend` works.
    #[must_use]
    pub fn works(&self, backend: Backend) -> bool {
        self.trials.contains(&(backend, Trial::Works))
    }

    /// The backend that a program gets if it accepts `fallback`.
    ///
    /// ```
    /// use jitfd::{Fallback, probe};
    ///
    /// let probe = probe();
    /// match probe.choice(Fallback::Any) {
    ///     Some(backend) => println!("code is made by {backend}"),
    ///     None => println!("no code can be made"),
    /// }
    /// ```
    #[must_use]
    pub fn choice(&self, fallback: Fallback) -> Option<Backend> {
        let order = fallback.order().iter().copied();
        order.into_iter().find(|&backend| self.works(backend))
    }

    /// Why `backend` does not work, the likeliest first: what refuses it, or if
    /// nothing is known to, what may. Empty if it works.
    #[must_use]
    pub fn reasons(&self, backend: Backend) -> Vec<&Finding> {
        if self.works(backend) {
            return Vec::new();
        }
        let certain = self.found(backend, true);
        if certain.is_empty() {
            self.found(backend, false)
        } else {
            certain
        }
    }

    /// What refuses `backend`, or may.
    fn found(&self, backend: Backend, certain: bool) -> Vec<&Finding> {
        let concerned =
            |finding: &&Finding| finding.certain == certain && finding.backends.contains(&backend);
        self.findings.iter().filter(concerned).collect()
    }
}

/// Finds out what this system allows this process, and what refuses the rest.
///
/// Each backend is tried in a forked child, so that a seccomp filter that kills
/// does not kill the caller. What is left to the caller is to fork and wait, and to read
/// the system's files (`openat`, `read`, `statx`; with SELinux also `write` and
/// `getxattr`): a filter must not kill for these. Takes some milliseconds. The result
/// holds for this process as it is now: give up rights first and probe then.
///
/// The child allocates memory. If other threads allocate at the same time, by an
/// allocator whose locks a forked child can't take (the C library's it can), it may
/// hang; it is ended after some seconds, and its backend counts as
/// [`Untried`](Trial::Untried).
///
/// ```
/// let probe = jitfd::probe();
/// for (backend, trial) in &probe.trials {
///     println!("{backend}: {trial}");
///     for finding in probe.reasons(*backend) {
///         println!("  {}: {}", finding.subject, finding.text);
///     }
/// }
/// ```
#[must_use]
pub fn probe() -> Probe {
    let system = System::live();
    let trials = Backend::ALL.map(|backend| (backend, trial::run(backend)));
    let mut probe = Probe {
        findings: system.findings(),
        trials: trials.into(),
    };
    if probe.found(Backend::Kernel, true).is_empty() {
        let suspicion = |(backend, trial): &(Backend, Trial)| match backend {
            Backend::Kernel => selinux::suspicion(&system.files, trial),
            _ => None,
        };
        probe
            .findings
            .extend(probe.trials.iter().filter_map(suspicion));
    }
    probe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(certain: bool, backend: Backend) -> Finding {
        Finding {
            subject: finding::subject::SECCOMP,
            certain,
            backends: vec![backend],
            text: String::new(),
        }
    }

    #[test]
    fn what_refuses_for_certain_comes_alone() {
        let (dual, flips) = (Backend::DualMapping, Backend::ProtectFlips);
        let probe = Probe {
            findings: vec![
                finding(false, dual),
                finding(true, dual),
                finding(false, flips),
                finding(true, Backend::Kernel),
            ],
            trials: vec![
                (Backend::Kernel, Trial::Works),
                (dual, Trial::Killed(9)),
                (flips, Trial::Killed(9)),
            ],
        };
        let certain = |backend| {
            let reasons = probe.reasons(backend).into_iter();
            reasons.map(|finding| finding.certain).collect::<Vec<_>>()
        };
        assert_eq!(certain(dual), [true]);
        assert_eq!(certain(flips), [false]);
        assert_eq!(certain(Backend::Kernel), [false; 0]);
        assert_eq!(probe.choice(Fallback::Any), Some(Backend::Kernel));
        assert_eq!(probe.choice(Fallback::Only(dual)), None);
    }

    #[test]
    fn this_host_is_probed() {
        let probe = probe();
        assert!(probe.works(Backend::DualMapping), "{:?}", probe.trials);
        assert!(probe.works(Backend::ProtectFlips), "{:?}", probe.trials);
        if !probe.works(Backend::Kernel) {
            assert!(!probe.reasons(Backend::Kernel).is_empty());
        }
    }
}
