// SPDX-License-Identifier: MIT OR Apache-2.0

//! What this system allows, and what refuses the rest.

use crate::guard::{self, Failure};
use crate::options::{fallback, number};
use crate::pointer;
use crate::versioned::{self, Versioned};
use rust::{Backend, Finding, Probe, Verdict};
use std::ffi::{CString, c_char, c_int};

/// What this system allows this process, and what refuses the rest. It never
/// changes.
pub struct jitfd_probe {
    probe: Probe,
    findings: Vec<Told>,
    /// In the order of `Backend::ALL`.
    trials: Vec<(Backend, CString)>,
}

/// A finding with texts for C.
struct Told {
    subject: CString,
    text: CString,
    verdict: u32,
    backends: u32,
}

/// The rule does not stand in the way.
pub const JITFD_VERDICT_ALLOWS: u32 = 1;
/// It is not known whether the rule stands in the way.
pub const JITFD_VERDICT_MAY_REFUSE: u32 = 2;
/// The rule refuses the backends that the finding names.
pub const JITFD_VERDICT_REFUSES: u32 = 3;

/// One rule of the system, in words.
#[repr(C)]
pub struct jitfd_finding {
    /// In: sizeof(struct jitfd_finding).
    pub size: usize,
    /// What it is about, such as "module"; valid as long as the probe.
    pub subject: *const c_char,
    /// One line; valid as long as the probe.
    pub text: *const c_char,
    /// One of JITFD_VERDICT_.
    pub verdict: u32,
    /// The backends that it refuses or may refuse: of each the bit
    /// 1 << JITFD_BACKEND_.
    pub backends: u32,
}

// SAFETY: `repr(C)`, three words and two half words; zero is a value of all.
unsafe impl Versioned for jitfd_finding {
    const FIRST: usize = 32;
}

fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

fn told(finding: &Finding) -> Told {
    let bit = |&backend: &Backend| 1 << number(backend);
    Told {
        subject: c_text(finding.subject.name()),
        text: c_text(&finding.text),
        verdict: match finding.verdict {
            Verdict::Allows => JITFD_VERDICT_ALLOWS,
            Verdict::MayRefuse => JITFD_VERDICT_MAY_REFUSE,
            Verdict::Refuses => JITFD_VERDICT_REFUSES,
        },
        backends: finding
            .backends
            .iter()
            .map(bit)
            .fold(0, |all, bit| all | bit),
    }
}

fn backend_of(wanted: c_int) -> Result<Backend, Failure> {
    Backend::ALL
        .into_iter()
        .find(|&backend| number(backend) == wanted)
        .ok_or(Failure::Refused(libc::EINVAL, "there is no such backend"))
}

/// Finds out what this system allows this process, and what refuses the rest. Each
/// backend is tried in a forked child, which takes some milliseconds. The result
/// holds for the process as it is now: give up rights first. Give it back with
/// jitfd_probe_free.
///
/// Returns null with errno ENOTRECOVERABLE only.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_probe_new() -> *mut jitfd_probe {
    guard::object(|| {
        let probe = rust::probe();
        let trials = probe.trials().iter();
        let trials = trials.map(|(backend, trial)| (*backend, c_text(&trial.to_string())));
        Ok(jitfd_probe {
            findings: probe.findings().iter().map(told).collect(),
            trials: trials.collect(),
            probe,
        })
    })
}

/// Gives a probe back. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_probe_free(probe: *mut jitfd_probe) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(probe) }));
}

/// Returns 1 if one of JITFD_BACKEND_ works here, else 0; -1 with errno EINVAL if
/// there is no such backend or probe is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_probe_works(probe: *const jitfd_probe, backend: c_int) -> c_int {
    // SAFETY: the header says what this pointer must be.
    guard::number(|| unsafe {
        let probe = &pointer::object(probe)?.probe;
        Ok(probe.works(backend_of(backend)?).into())
    })
}

/// How the attempt to use a backend ended, in one line; valid as long as the probe.
///
/// Returns null with errno EINVAL if there is no such backend or probe is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_probe_trial(
    probe: *const jitfd_probe,
    backend: c_int,
) -> *const c_char {
    // SAFETY: the header says what this pointer must be.
    guard::address(|| unsafe {
        let (probe, wanted) = (pointer::object(probe)?, backend_of(backend)?);
        let trial = probe.trials.iter().find(|(backend, _)| *backend == wanted);
        let (_, text) = trial.ok_or(Failure::NULL)?;
        Ok(text.as_ptr().cast_mut())
    })
}

/// Returns which of JITFD_BACKEND_ a program gets that allows one of
/// JITFD_FALLBACK_, 0 if none, or -1 with errno EINVAL if there is no such fallback
/// or probe is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_probe_choice(probe: *const jitfd_probe, fallback: u32) -> c_int {
    // SAFETY: the header says what this pointer must be.
    guard::number(|| unsafe {
        let probe = &pointer::object(probe)?.probe;
        let choice = probe.choice(self::fallback(fallback)?);
        Ok(choice.map_or(0, number))
    })
}

/// Stores one of the findings, which are counted from 0.
///
/// Returns 1, or 0 if there are no more; -1 with errno EINVAL for a null pointer or
/// a bad size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_probe_finding(
    probe: *const jitfd_probe,
    index: usize,
    finding: *mut jitfd_finding,
) -> c_int {
    guard::number(|| {
        pointer::wanted(finding)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let Some(told) = pointer::object(probe)?.findings.get(index) else {
                return Ok(0);
            };
            let found = jitfd_finding {
                size: size_of::<jitfd_finding>(),
                subject: told.subject.as_ptr(),
                text: told.text.as_ptr(),
                verdict: told.verdict,
                backends: told.backends,
            };
            versioned::write(finding, &found)?;
        }
        Ok(1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_has_the_size_it_had() {
        assert_eq!(size_of::<jitfd_finding>(), jitfd_finding::FIRST);
    }
}
