// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reports, once per process, that a fallback is in use.

use crate::backend_name::Backend;
use crate::jit::Jit;
use crate::os::sys;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static HOOK: OnceLock<fn(&Jit)> = OnceLock::new();
static DONE: AtomicBool = AtomicBool::new(false);

/// Has `hook` called when [`Jit::open`] takes a fallback for the first time in the
/// life of the process. Without a hook its line is written to standard error.
///
/// The hook runs in the thread that opens, inside that call, and no lock of this
/// library is held. A forked child of a process that has reported
/// it does not do so again.
///
/// Returns `false`, and changes nothing, if there is a hook already.
///
/// ```
/// jitfd::set_fallback_hook(|jit| {
///     println!("warning: code is made by {}", jit.backend());
///     for (better, error) in jit.refused() {
///         println!("  {better} is not there: {error}");
///     }
/// });
/// ```
pub fn set_fallback_hook(hook: fn(&Jit)) -> bool {
    HOOK.set(hook).is_ok()
}

/// Code is made by this from now on.
pub(crate) fn chosen(jit: &Jit) {
    if jit.backend() == Backend::Kernel || DONE.swap(true, Ordering::Relaxed) {
        return;
    }
    match HOOK.get() {
        Some(hook) => hook(jit),
        // A standard error that is full or closed is no reason to fail (or to panic, as
        // `eprintln` would).
        None => sys::write_error(&format!("{jit}\n")),
    }
}
