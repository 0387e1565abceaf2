// SPDX-License-Identifier: MIT OR Apache-2.0

//! `jit_create_code`, as the mail proposed it that this project was made from
//! (28 July 2020, by an x86 maintainer to the kernel's list, in the thread
//! "Implement Trampoline File Descriptor").

use crate::backend::choice::Fallback;
use crate::backend::dispatch::{self, Maker};
use crate::backend_name::Backend;
use crate::error::Error;
use crate::region::mapping::{Mapping, check_page};
use jitfd_code::{Chunk, Rules, validate};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

/// Puts code into a new mapping that holds exactly it and is executable from the
/// moment the call returns. The rest of the last page is filled with `int3`.
///
/// By `/dev/jit`, which is opened once in a process, or not at all; the code is
/// validated by [`Rules::new`]. [`Jit::code`](crate::Jit::code) is the same for code
/// with other rules, and with a fallback.
///
/// # Errors
/// [`Error::Code`] if the code is refused; [`Error::System`] of kind
/// [`NoModule`](crate::Kind::NoModule), [`Denied`](crate::Kind::Denied),
/// [`NoExec`](crate::Kind::NoExec), [`NoMemory`](crate::Kind::NoMemory) or
/// [`Quota`](crate::Kind::Quota). Nothing is left behind then.
///
/// # Example
/// ```
/// use jitfd::{Kind, jit_create_code};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// // mov eax, 42; ret
/// let code = match jit_create_code(&[0xb8, 42, 0, 0, 0, 0xc3]) {
///     Err(error) if error.kind() == Some(Kind::NoModule) => return Ok(()), // see `Jit`
///     code => code?,
/// };
/// // SAFETY: the code is such a function.
/// let answer = unsafe { code.entry::<extern "C" fn() -> i32>(0)? };
/// assert_eq!(answer(), 42);
/// # Ok(())
/// # }
/// ```
pub fn jit_create_code(code: &[u8]) -> Result<Mapping, Error> {
    let chunk = validate(code, &Rules::new())?;
    Ok(Mapping::of(device()?.create_code(&chunk)?))
}

/// The device of [`jit_create_code`], opened on first use. A failure is not kept, so
/// the next call tries again.
fn device() -> Result<Maker<'static>, Error> {
    static DEVICE: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(device) = DEVICE.get() {
        return Ok(Maker::Kernel(device.as_fd()));
    }
    let opened = dispatch::open_device()?;
    Ok(Maker::Kernel(DEVICE.get_or_init(|| opened).as_fd()))
}

#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CodeOptions {
    fallback: Fallback,
}

#[doc(hidden)]
impl CodeOptions {
    #[must_use]
    pub const fn new() -> Self {
        Self {
            fallback: Fallback::Never,
        }
    }

    #[must_use]
    pub const fn fallback(mut self, fallback: Fallback) -> Self {
        self.fallback = fallback;
        self
    }

    pub fn create(&self, code: &Chunk) -> Result<Code, Error> {
        self.fallback.choose(|backend| {
            let mapped = maker(backend)?.create_code(code)?;
            Ok(Code {
                mapping: Mapping::of(mapped),
                backend,
            })
        })
    }

    #[expect(unsafe_code, reason = "replaces memory of the caller's choice")]
    pub unsafe fn create_at(&self, code: &Chunk, at: *mut u8) -> Result<(), Error> {
        check_page(at)?;
        self.fallback.choose(|backend| {
            // SAFETY: as promised by the caller.
            unsafe { maker(backend)?.create_code_at(code, at) }
        })
    }
}

fn maker(backend: Backend) -> Result<Maker<'static>, Error> {
    match backend {
        Backend::Kernel => device(),
        process => Ok(Maker::Process(process)),
    }
}

#[doc(hidden)]
#[derive(Debug)]
pub struct Code {
    mapping: Mapping,
    backend: Backend,
}

#[doc(hidden)]
impl Code {
    #[must_use]
    pub const fn backend(&self) -> Option<Backend> {
        Some(self.backend)
    }

    #[must_use]
    pub fn into_raw(self) -> (*const u8, usize) {
        self.mapping.into_raw()
    }
}
