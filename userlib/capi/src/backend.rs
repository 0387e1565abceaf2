// SPDX-License-Identifier: MIT OR Apache-2.0

//! What makes code executable, and which of these ways a program allows.

use crate::guard::{self, Failure};
use rust::{Backend, Fallback, Jit};
use std::ffi::{CString, c_char, c_int};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// The kernel, by /dev/jit. No part of the program can write to code.
pub const JITFD_BACKEND_KERNEL: c_int = 1;
/// A memory file mapped twice, once for writing and once for executing.
pub const JITFD_BACKEND_DUAL_MAPPING: c_int = 2;
/// Pages that are prepared in writable memory, then turned executable.
pub const JITFD_BACKEND_PROTECT_FLIPS: c_int = 3;

/// As jitfd_allow_fallback has said for the whole process.
pub const JITFD_FALLBACK_DEFAULT: u32 = 0;
/// /dev/jit or an error.
pub const JITFD_FALLBACK_NEVER: u32 = 1;
/// /dev/jit, else dual mapping.
pub const JITFD_FALLBACK_DUAL_MAPPING: u32 = 2;
/// /dev/jit, else dual mapping, else mprotect flips.
pub const JITFD_FALLBACK_ANY: u32 = 3;
/// Together with one of JITFD_BACKEND_: this one or an error. For tests.
pub const JITFD_FALLBACK_ONLY: u32 = 256;

/// What is done where nothing else is asked for, as one of `JITFD_FALLBACK_`.
static DEFAULT: AtomicU32 = AtomicU32::new(JITFD_FALLBACK_NEVER);

/// What the number stands for now: for 0, what the process has allowed.
pub(crate) fn fallback(number: u32) -> Result<Fallback, Failure> {
    match number {
        JITFD_FALLBACK_DEFAULT => named(DEFAULT.load(Ordering::Relaxed)),
        _ => named(number),
    }
}

fn named(number: u32) -> Result<Fallback, Failure> {
    let only = number ^ JITFD_FALLBACK_ONLY;
    match number {
        JITFD_FALLBACK_NEVER => Ok(Fallback::Never),
        JITFD_FALLBACK_DUAL_MAPPING => Ok(Fallback::DualMapping),
        JITFD_FALLBACK_ANY => Ok(Fallback::Any),
        _ => Backend::ALL
            .into_iter()
            .find(|&backend| u32::try_from(self::number(backend)) == Ok(only))
            .map(Fallback::Only)
            .ok_or(Failure::Refused(libc::EINVAL, "there is no such fallback")),
    }
}

/// Those of the process, once they are chosen, by the place of their fallback: null, or
/// from a box that is never freed. Not a lock, which a child could inherit while it is
/// held.
static CHOSEN: [AtomicPtr<Jit>; 6] = [const { AtomicPtr::new(null_mut()) }; 6];

fn place(fallback: Fallback) -> usize {
    match fallback {
        Fallback::Never => 0,
        Fallback::DualMapping => 1,
        Fallback::Any => 2,
        Fallback::Only(Backend::Kernel) => 3,
        Fallback::Only(Backend::DualMapping) => 4,
        _ => 5,
    }
}

/// What makes code for one of `JITFD_FALLBACK_`, chosen the first time.
pub(crate) fn jit(number: u32) -> Result<&'static Jit, Failure> {
    let fallback = fallback(number)?;
    let chosen = &CHOSEN[place(fallback)];
    // SAFETY: as said above.
    if let Some(jit) = unsafe { chosen.load(Ordering::Acquire).as_ref() } {
        return Ok(jit);
    }
    // Two threads may get here; one of the two is dropped again.
    let made = Box::into_raw(Box::new(Jit::open(fallback)?));
    let order = (Ordering::AcqRel, Ordering::Acquire);
    let set = chosen.compare_exchange(null_mut(), made, order.0, order.1);
    // SAFETY: if another thread was first, nobody else knows of `made`; what is set is
    // never freed.
    unsafe {
        if set.is_err() {
            drop(Box::from_raw(made));
        }
        Ok(&*set.map_or_else(|first| first, |_| made))
    }
}

/// The number of a backend; 0 of one that this header has no number for.
pub(crate) const fn number(backend: Backend) -> c_int {
    match backend {
        Backend::Kernel => JITFD_BACKEND_KERNEL,
        Backend::DualMapping => JITFD_BACKEND_DUAL_MAPPING,
        Backend::ProtectFlips => JITFD_BACKEND_PROTECT_FLIPS,
        _ => 0,
    }
}

/// Says once for the whole process what is done where there is no /dev/jit: one of
/// JITFD_FALLBACK_ but JITFD_FALLBACK_DEFAULT. It holds from now on for
/// jit_create_code, and wherever a fallback is 0 or options are null. At first it is
/// JITFD_FALLBACK_NEVER.
///
/// Returns 0, or -1 with errno EINVAL if there is no such fallback.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_allow_fallback(fallback: u32) -> c_int {
    guard::status(|| {
        named(fallback)?;
        DEFAULT.store(fallback, Ordering::Relaxed);
        Ok(())
    })
}

/// What makes code executable in this process where one of JITFD_FALLBACK_ is allowed:
/// one of JITFD_BACKEND_. The first call that makes code for that fallback finds it out,
/// by making some, and it stays so.
///
/// Returns -1 with errno as jit_create_code, if nothing does; jitfd_error says what
/// refuses each backend.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_backend(fallback: u32) -> c_int {
    guard::number(|| Ok(number(jit(fallback)?.backend())))
}

/// The name of one of JITFD_BACKEND_, for messages.
///
/// Returns null with errno EINVAL if there is no such backend.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_backend_name(backend: c_int) -> *const c_char {
    guard::address(|| {
        let name = match backend {
            JITFD_BACKEND_KERNEL => c"/dev/jit",
            JITFD_BACKEND_DUAL_MAPPING => c"dual mapping",
            JITFD_BACKEND_PROTECT_FLIPS => c"mprotect flips",
            _ => return Err(Failure::Refused(libc::EINVAL, "there is no such backend")),
        };
        Ok(name.as_ptr().cast_mut())
    })
}

/// What is called with one of JITFD_BACKEND_ and one line of text.
pub type jitfd_fallback_hook = Option<extern "C" fn(backend: c_int, text: *const c_char)>;

static HOOK: OnceLock<jitfd_fallback_hook> = OnceLock::new();

/// Has hook called once in the life of the process, when a fallback makes code
/// for the first time; without a hook a line is written to standard error. It
/// runs in the thread that makes the code, must return, and the text is valid
/// until then.
///
/// Returns 0, or -1 with errno EBUSY if there is a hook already; EINVAL if hook
/// is null.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_set_fallback_hook(hook: jitfd_fallback_hook) -> c_int {
    guard::status(|| {
        hook.ok_or(Failure::NULL)?;
        if HOOK.set(hook).is_err() || !rust::set_fallback_hook(call_hook) {
            return Err(Failure::Refused(libc::EBUSY, "there is a hook already"));
        }
        Ok(())
    })
}

fn call_hook(jit: &Jit) {
    let text = CString::new(jit.to_string()).unwrap_or_default();
    if let Some(Some(hook)) = HOOK.get() {
        hook(number(jit.backend()), text.as_ptr());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_has_a_number_and_its_name() {
        for backend in Backend::ALL {
            let name = jitfd_backend_name(number(backend));
            // SAFETY: the name of a backend is a C string.
            let name = unsafe { std::ffi::CStr::from_ptr(name) };
            assert_eq!(name.to_str(), Ok(&*backend.to_string()));
        }
        assert!(jitfd_backend_name(0).is_null());
    }

    #[test]
    fn fallbacks_have_their_numbers() {
        assert_eq!(fallback(0).ok(), Some(Fallback::Never));
        assert_eq!(fallback(1).ok(), Some(Fallback::Never));
        assert_eq!(fallback(2).ok(), Some(Fallback::DualMapping));
        assert_eq!(fallback(3).ok(), Some(Fallback::Any));
        assert!(named(0).is_err());
        for backend in Backend::ALL {
            let only = JITFD_FALLBACK_ONLY | number(backend).unsigned_abs();
            assert_eq!(fallback(only).ok(), Some(Fallback::Only(backend)));
        }
        for none in [4, JITFD_FALLBACK_ONLY, JITFD_FALLBACK_ONLY | 4, u32::MAX] {
            assert!(fallback(none).is_err(), "{none}");
        }
    }
}
