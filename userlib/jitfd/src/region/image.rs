// SPDX-License-Identifier: MIT OR Apache-2.0

//! `jit_create_code`, as the mail proposed it that this project was made from
//! (28 July 2020, by an x86 maintainer to the kernel's list, in the thread
//! "Implement Trampoline File Descriptor").

use crate::backend::dispatch::{self, Maker};
use crate::error::Error;
use crate::region::mapping::Mapping;
use jitfd_code::{Rules, validate};
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
