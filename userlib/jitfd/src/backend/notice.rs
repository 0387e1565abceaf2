// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reports, once per process, that a fallback is in use.

use crate::backend_name::Backend;
use crate::error::Error;
use crate::os::sys;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The report that code is made by a fallback, which the program has allowed.
///
/// Its text is one line.
///
/// ```
/// use jitfd::{Fallback, FallbackHook, FallbackReport, RegionOptions, set_fallback_hook};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// fn log(report: &FallbackReport<'_>) {
///     println!("warning: code is made by {}", report.backend);
///     for (better, error) in report.tried {
///         println!("  {better} is not there: {error}");
///     }
/// }
///
/// const HOOK: FallbackHook = log;
/// set_fallback_hook(HOOK);
/// RegionOptions::new().fallback(Fallback::Any).create(1 << 20)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct FallbackReport<'a> {
    /// The backend in use.
    pub backend: Backend,
    /// The better backends, and why each is not used; empty if the program asked
    /// for this one only.
    pub tried: &'a [(Backend, Error)],
}

impl fmt::Display for FallbackReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "jitfd: code is made by {} in this process", self.backend)?;
        match self.tried {
            [] => f.write_str(", as it asked for"),
            tried => tried
                .iter()
                .try_for_each(|(backend, error)| write!(f, "; not by {backend}: {error}")),
        }
    }
}

/// What is called instead of writing a line to standard error.
///
/// See the example of [`FallbackReport`].
pub type FallbackHook = fn(&FallbackReport<'_>);

static HOOK: OnceLock<FallbackHook> = OnceLock::new();
static DONE: AtomicBool = AtomicBool::new(false);

/// Has `hook` called when a fallback makes code for the first time in the life
/// of the process. Without a hook, one line is written to standard error.
///
/// The hook runs in the thread that makes the code, inside that call, and no
/// lock of this library is held. A forked child of a process that has reported
/// it does not do so again.
///
/// Returns `false`, and changes nothing, if there is a hook already.
///
/// ```
/// jitfd::set_fallback_hook(|report| eprintln!("warning: {report}"));
/// ```
pub fn set_fallback_hook(hook: FallbackHook) -> bool {
    HOOK.set(hook).is_ok()
}

/// `backend` is in use, because those of `tried` are not allowed here.
pub(crate) fn chosen(backend: Backend, tried: &[(Backend, Error)]) {
    if backend == Backend::Kernel || DONE.swap(true, Ordering::Relaxed) {
        return;
    }
    let report = FallbackReport { backend, tried };
    match HOOK.get() {
        Some(hook) => hook(&report),
        // A standard error that is full or closed is no reason to fail (or to panic, as
        // `eprintln` would).
        None => sys::write_error(&format!("{report}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Call;

    #[test]
    fn a_report_is_one_line_with_the_reasons() {
        let error = Error::of(Call::Open, libc::ENOENT);
        let tried = [(Backend::Kernel, error)];
        let text = |tried| {
            FallbackReport {
                backend: Backend::DualMapping,
                tried,
            }
            .to_string()
        };
        assert_eq!(text(&[]).lines().count(), 1);
        let whole = text(&tried);
        for part in ["dual mapping", "not by /dev/jit", "modprobe jit"] {
            assert!(whole.contains(part), "{whole}");
        }
    }
}
