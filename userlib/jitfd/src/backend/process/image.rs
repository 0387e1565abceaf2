// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finished code in the process's own memory, and the way back to memory. The pages
//! are new to all CPUs, so none has to be told.

use super::dual_mapping;
use super::sys::Pages;
use crate::backend_name::Backend;
use crate::error::{Call, Error, failed, refused};
use crate::os::sys::{self, Mapped};

/// A new mapping that holds `bytes`.
pub(crate) fn create_code(backend: Backend, bytes: &[u8]) -> Result<Mapped, Error> {
    if bytes.is_empty() {
        return Err(refused(Call::CreateCode)(libc::EINVAL));
    }
    match backend {
        Backend::ProtectFlips => Ok(turned(bytes)?.into_mapped(bytes.len())),
        _ => dual_mapping::create_code(bytes),
    }
}

/// Puts `bytes` in the place of the pages at `at`, in one step.
///
/// # Safety
/// The pages are the caller's own private memory, and nothing that Rust knows
/// about is in them.
#[expect(unsafe_code, reason = "replaces memory of the caller's choice")]
pub(crate) unsafe fn create_code_at(
    backend: Backend,
    bytes: &[u8],
    at: *mut u8,
) -> Result<(), Error> {
    if backend == Backend::ProtectFlips {
        let pages = turned(bytes)?;
        // SAFETY: as promised by the caller.
        return unsafe { pages.move_to(at) }.map_err(failed(Call::Move));
    }
    let file = dual_mapping::finished(bytes)?;
    let fd = file.as_fd().map_err(failed(Call::OwnMap))?;
    // SAFETY: as promised by the caller.
    unsafe { sys::map_code_over(fd, at, bytes.len()) }.map_err(failed(Call::OwnMap))
}

/// Puts writable memory with `bytes` in the place of the pages at `at`, in one step.
///
/// # Safety
/// As [`create_code_at`].
#[expect(unsafe_code, reason = "replaces memory of the caller's choice")]
pub(crate) unsafe fn make_writable(bytes: &[u8], at: *mut u8) -> Result<(), Error> {
    let pages = Pages::new(bytes).map_err(failed(Call::OwnMap))?;
    // SAFETY: as promised by the caller.
    unsafe { pages.move_to(at) }.map_err(failed(Call::Move))
}

fn turned(bytes: &[u8]) -> Result<Pages, Error> {
    let mut pages = Pages::new(bytes).map_err(failed(Call::OwnMap))?;
    pages.turn().map_err(failed(Call::Protect))?;
    Ok(pages)
}
