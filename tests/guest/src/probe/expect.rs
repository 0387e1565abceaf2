// SPDX-License-Identifier: GPL-2.0
//! What a probe, and the command that prints it, are to say.

use crate::suite::outcome::{OrFail, Outcome, equal, failed};
use crate::suite::sys;
use jitctl::Status;
use jitfd::{Backend, Error, Fallback, Jit, Probe};

/// What the command says, and its status.
pub fn jitctl(arguments: &[&str]) -> (Status, String) {
    let mut out = Vec::new();
    let status = jitctl::run([&["jitctl"], arguments].concat(), &mut out);
    (status, String::from_utf8_lossy(&out).into_owned())
}

pub fn works(probe: &Probe) -> [bool; 3] {
    Backend::ALL.map(|backend| probe.works(backend))
}

/// That exactly these backends work, in the order of `Backend::ALL`.
pub fn working(probe: &Probe, wanted: [bool; 3]) -> Outcome {
    if works(probe) == wanted {
        return Ok(());
    }
    failed(format!("wanted {wanted:?}, but: {:?}", probe.trials))
}

/// That the reasons why `backend` does not work are about these.
pub fn blamed(probe: &Probe, backend: Backend, wanted: &[&'static str]) -> Outcome {
    let reasons = probe.reasons(backend).into_iter();
    let subjects: Vec<&str> = reasons.map(|finding| finding.subject).collect();
    equal("what is blamed", subjects, wanted.to_vec())
}

pub fn make(fallback: Fallback) -> Result<Backend, Error> {
    let region = Jit::open(fallback)?.region(4096)?;
    Ok(region.backend())
}

/// Runs `test` in a child, and restores the system after it.
pub fn and_restore(test: impl FnOnce() -> Outcome, restore: impl FnOnce() -> Outcome) -> Outcome {
    let child = sys::fork().or_fail("fork")?;
    if child == 0 {
        let outcome = test();
        if let Err(stop) = &outcome {
            println!("{stop:?}");
        }
        sys::exit(i32::from(outcome.is_err()));
    }
    let status = sys::wait(child).or_fail("wait")?;
    restore()?;
    equal("status of the child", status, 0)
}
