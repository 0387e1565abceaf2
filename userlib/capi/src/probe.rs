// SPDX-License-Identifier: MIT OR Apache-2.0

//! What this system allows, and what refuses the rest.

use crate::backend::number;
use crate::guard;
use crate::pointer;
use rust::{Backend, Finding};
use std::ffi::{CString, c_char, c_int};

/// The rule does not stand in the way.
pub const JITFD_VERDICT_ALLOWS: u32 = 1;
/// It is not known whether the rule stands in the way.
pub const JITFD_VERDICT_MAY_REFUSE: u32 = 2;
/// The rule refuses the backends that the finding names.
pub const JITFD_VERDICT_REFUSES: u32 = 3;

/// One rule of the system, in words.
#[repr(C)]
pub struct jitfd_finding {
    /// What it is about, such as "module".
    pub subject: *const c_char,
    /// One line.
    pub text: *const c_char,
    /// One of JITFD_VERDICT_.
    pub verdict: u32,
    /// The backends that it refuses or may refuse: of each the bit
    /// 1 << JITFD_BACKEND_.
    pub backends: u32,
}

/// How the attempt to use a backend ended.
#[repr(C)]
pub struct jitfd_trial {
    /// One of JITFD_BACKEND_.
    pub backend: c_int,
    /// 1 if it works, else 0.
    pub works: u32,
    /// In one line: "works", or what went wrong.
    pub text: *const c_char,
}

/// What this system allows this process, and what refuses the rest. It never changes,
/// and all that it points to is valid as long as it is not given back.
#[repr(C)]
pub struct jitfd_probe {
    /// The system's rules.
    pub findings: *const jitfd_finding,
    /// How many there are.
    pub finding_count: usize,
    /// The backends, the best one first: a program gets the first one that works and
    /// that it allows.
    pub trials: *const jitfd_trial,
    /// How many there are.
    pub trial_count: usize,
}

/// What C sees, and what it points to.
#[repr(C)]
struct Owned {
    _seen: jitfd_probe,
    _findings: Vec<jitfd_finding>,
    _trials: Vec<jitfd_trial>,
    _texts: Vec<CString>,
}

/// Keeps a text; the pointer stays right, since the text does not move.
fn keep(texts: &mut Vec<CString>, text: &str) -> *const c_char {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    let pointer = text.as_ptr();
    texts.push(text);
    pointer
}

fn told(finding: &Finding, texts: &mut Vec<CString>) -> jitfd_finding {
    let bit = |&backend: &Backend| 1 << number(backend);
    jitfd_finding {
        subject: keep(texts, finding.subject),
        text: keep(texts, &finding.text),
        verdict: match (finding.backends.is_empty(), finding.certain) {
            (true, _) => JITFD_VERDICT_ALLOWS,
            (false, false) => JITFD_VERDICT_MAY_REFUSE,
            (false, true) => JITFD_VERDICT_REFUSES,
        },
        backends: finding
            .backends
            .iter()
            .map(bit)
            .fold(0, |all, bit| all | bit),
    }
}

/// Finds out what this system allows this process, and what refuses the rest. Each
/// backend is tried in a forked child, which takes some milliseconds. The result
/// holds for the process as it is now: give up rights first. Give it back with
/// jitfd_probe_destroy.
///
/// Returns null with errno ENOTRECOVERABLE only.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_probe_create() -> *mut jitfd_probe {
    let owned = guard::object(|| {
        let probe = rust::probe();
        let mut texts = Vec::new();
        let findings = probe.findings.iter();
        let findings: Vec<_> = findings.map(|one| told(one, &mut texts)).collect();
        let trials = probe.trials.iter().map(|(backend, trial)| jitfd_trial {
            backend: number(*backend),
            works: probe.works(*backend).into(),
            text: keep(&mut texts, &trial.to_string()),
        });
        let trials: Vec<_> = trials.collect();
        let seen = jitfd_probe {
            findings: findings.as_ptr(),
            finding_count: findings.len(),
            trials: trials.as_ptr(),
            trial_count: trials.len(),
        };
        Ok(Owned {
            _seen: seen,
            _findings: findings,
            _trials: trials,
            _texts: texts,
        })
    });
    owned.cast()
}

/// Gives a probe back. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_probe_destroy(probe: *mut jitfd_probe) {
    // SAFETY: the header says what this pointer must be: one of the function above.
    guard::quietly(|| drop(unsafe { pointer::take(probe.cast::<Owned>()) }));
}
