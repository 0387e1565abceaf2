// SPDX-License-Identifier: MIT OR Apache-2.0

//! How regions and created code are made: where, by which backend, and who may
//! publish.

use crate::guard::{self, Failure};
use crate::versioned::{self, Versioned};
use rust::{Backend, CodeOptions, Fallback, FallbackReport, RegionOptions, Window};
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The kernel, by /dev/jit. No part of the program can write to code.
pub const JITFD_BACKEND_KERNEL: c_int = 1;
/// A memory file mapped twice, once for writing and once for executing.
pub const JITFD_BACKEND_DUAL_MAPPING: c_int = 2;
/// Pages that are prepared in writable memory, then turned executable.
pub const JITFD_BACKEND_PROTECT_FLIPS: c_int = 3;

/// /dev/jit or an error.
pub const JITFD_FALLBACK_NEVER: u32 = 0;
/// /dev/jit, else dual mapping.
pub const JITFD_FALLBACK_DUAL_MAPPING: u32 = 1;
/// /dev/jit, else dual mapping, else mprotect flips.
pub const JITFD_FALLBACK_ANY: u32 = 2;
/// Together with one of JITFD_BACKEND_: this one or an error. For tests.
pub const JITFD_FALLBACK_ONLY: u32 = 256;

/// Every process that holds the append descriptor may publish, not only the one
/// that created the region.
pub const JITFD_ANY_PROCESS: u32 = 1;
/// Keep no map of where instructions start, and check no branches between
/// chunks. Publications need not wait for each other then.
pub const JITFD_NO_BOUNDARY_MAP: u32 = 2;
/// Map the region as anonymous memory, so that perf looks up its functions in
/// /tmp/perf-PID.map. EOPNOTSUPP with mprotect flips.
pub const JITFD_PERF_MAP: u32 = 4;

const FLAGS: u32 = JITFD_ANY_PROCESS | JITFD_NO_BOUNDARY_MAP | JITFD_PERF_MAP;

/// How a region, or created code, is made. All zero but for the size: by
/// /dev/jit or not at all, at any address, only this process publishes, branches
/// between chunks are checked.
#[repr(C)]
pub struct jitfd_options {
    /// sizeof(struct jitfd_options).
    pub size: usize,
    /// JITFD_ANY_PROCESS, JITFD_NO_BOUNDARY_MAP, JITFD_PERF_MAP. For regions only.
    pub flags: u32,
    /// One of JITFD_FALLBACK_. The use of a fallback is reported once, see
    /// jitfd_set_fallback_hook.
    pub fallback: u32,
    /// Unless null, the region is placed where 32-bit displacements reach all
    /// addresses from this one to near_last. For regions only.
    pub near_first: *const c_void,
    /// Null if it is the same as near_first.
    pub near_last: *const c_void,
}

// SAFETY: `repr(C)`, a word, two half words, two words; zero is a value of all.
unsafe impl Versioned for jitfd_options {
    const FIRST: usize = 32;
}

/// What programs that pass no options want, as one of `JITFD_FALLBACK_`.
static DEFAULT: AtomicU32 = AtomicU32::new(JITFD_FALLBACK_NEVER);

/// The options, checked.
pub(crate) struct Choice {
    flags: u32,
    pub(crate) fallback: Fallback,
    pub(crate) window: Option<Window>,
}

impl Choice {
    /// What is asked for by passing no options.
    pub(crate) fn default() -> Result<Self, Failure> {
        Ok(Self {
            flags: 0,
            fallback: fallback(DEFAULT.load(Ordering::Relaxed))?,
            window: None,
        })
    }

    /// # Safety
    /// `options` is null or points to such a struct of the size it says.
    pub(crate) unsafe fn read(options: *const jitfd_options) -> Result<Self, Failure> {
        if options.is_null() {
            return Self::default();
        }
        // SAFETY: as promised by the caller.
        let options = unsafe { versioned::read(options) }?;
        if options.flags & !FLAGS != 0 {
            return Err(Failure::Refused(libc::EINVAL, "a flag is not known"));
        }
        Ok(Self {
            flags: options.flags,
            fallback: fallback(options.fallback)?,
            window: window(options.near_first.addr(), options.near_last.addr())?,
        })
    }

    pub(crate) fn region(&self) -> RegionOptions {
        let options = RegionOptions::new()
            .any_process(self.flags & JITFD_ANY_PROCESS != 0)
            .boundary_map(self.flags & JITFD_NO_BOUNDARY_MAP == 0)
            .perf_map(self.flags & JITFD_PERF_MAP != 0)
            .fallback(self.fallback);
        match self.window {
            Some(window) => options.window(window),
            None => options,
        }
    }

    pub(crate) fn code(&self) -> Result<CodeOptions, Failure> {
        if self.flags != 0 || self.window.is_some() {
            let text = "finished code has no flags, and no choice of its address";
            return Err(Failure::Refused(libc::EINVAL, text));
        }
        Ok(CodeOptions::new().fallback(self.fallback))
    }
}

pub(crate) fn fallback(number: u32) -> Result<Fallback, Failure> {
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

/// What reaches all addresses from `first` to `last`; 0 is "not set".
pub(crate) fn window(first: usize, last: usize) -> Result<Option<Window>, Failure> {
    match (first, last) {
        (0, 0) => Ok(None),
        (first, 0) => Ok(Some(Window::reaching(first))),
        (first, last) if first != 0 && first <= last => Ok(Some(Window::reaching_all(first, last))),
        _ => Err(Failure::Refused(
            libc::EINVAL,
            "near_last is not behind near_first",
        )),
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

/// What jit_create_code, and calls that are given null options, do from now on
/// where there is no /dev/jit: one of JITFD_FALLBACK_. At first it is NEVER.
///
/// Returns 0, or -1 with errno EINVAL if there is no such fallback.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_allow_fallback(fallback: u32) -> c_int {
    guard::status(|| {
        self::fallback(fallback)?;
        DEFAULT.store(fallback, Ordering::Relaxed);
        Ok(())
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

fn call_hook(report: &FallbackReport<'_>) {
    let text = CString::new(report.to_string()).unwrap_or_default();
    if let Some(Some(hook)) = HOOK.get() {
        hook(number(report.backend), text.as_ptr());
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
            assert_eq!(name.to_str(), Ok(backend.name()));
        }
        assert!(jitfd_backend_name(0).is_null());
    }

    #[test]
    fn fallbacks_have_their_numbers() {
        assert_eq!(fallback(0).ok(), Some(Fallback::Never));
        assert_eq!(fallback(1).ok(), Some(Fallback::DualMapping));
        assert_eq!(fallback(2).ok(), Some(Fallback::Any));
        for backend in Backend::ALL {
            let only = JITFD_FALLBACK_ONLY | number(backend).unsigned_abs();
            assert_eq!(fallback(only).ok(), Some(Fallback::Only(backend)));
        }
        for none in [3, JITFD_FALLBACK_ONLY, JITFD_FALLBACK_ONLY | 4, u32::MAX] {
            assert!(fallback(none).is_err(), "{none}");
        }
    }
}
