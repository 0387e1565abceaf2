// SPDX-License-Identifier: MIT OR Apache-2.0

//! Code for many mappings: the stubs of trampolines, which each copy of a table maps
//! beside its own data.
#![expect(unsafe_code, reason = "replaces memory of the caller's choice")]

use crate::abi;
use crate::backend::dispatch::{self, Maker, MemoryFile};
use crate::backend_name::Backend;
use crate::error::{Call, Error};
use crate::os::sys;
use crate::region::handle::{self, MapHandle};
use jitfd_code::Chunk;

/// Code that can be mapped over pages, any number of times. Nothing can be added to it.
#[derive(Debug)]
pub struct SharedCode(Source);

#[derive(Debug)]
enum Source {
    /// A sealed region of the kernel's.
    Region(MapHandle),
    /// A sealed memory file.
    File(MemoryFile),
    /// To be turned executable, for each copy anew.
    Bytes(Chunk),
}

impl SharedCode {
    /// The code, as this backend can map it.
    ///
    /// # Errors
    /// What the backend gives.
    pub fn new(backend: Backend, code: &Chunk) -> Result<Self, Error> {
        let source = match backend {
            Backend::Kernel => region_of(code).map(Source::Region),
            Backend::DualMapping => dispatch::finished(code.bytes()).map(Source::File),
            Backend::ProtectFlips => Ok(Source::Bytes(code.clone())),
        };
        source.map(Self)
    }

    /// Maps the first `len` bytes over what is at `at`.
    ///
    /// # Errors
    /// What the backend gives.
    ///
    /// # Safety
    /// The `len` bytes at `at`, rounded up to whole pages, are the caller's own
    /// mapping, private and of no file, and nothing that Rust knows about is in them.
    pub unsafe fn map_over(&self, at: *mut u8, len: usize) -> Result<(), Error> {
        let failed = |call| move |error| Error::system(call, &error);
        // SAFETY: as promised by the caller.
        unsafe {
            match &self.0 {
                Source::Region(handle) => {
                    sys::map_code_over(handle.fd()?, at, len).map_err(failed(Call::Map))
                }
                Source::File(file) => {
                    let fd = file.as_fd().map_err(failed(Call::OwnMap))?;
                    sys::map_code_over(fd, at, len).map_err(failed(Call::OwnMap))
                }
                Source::Bytes(code) => {
                    Maker::Process(Backend::ProtectFlips).create_code_at(code, at)
                }
            }
        }
    }
}

/// Nobody keeps the handle by which more could be published.
fn region_of(code: &Chunk) -> Result<MapHandle, Error> {
    let len = code.len().next_multiple_of(abi::PAGE_SIZE);
    let (map, append) = handle::create(Backend::Kernel, len, false, None)?;
    append.publish_all_at(&[code], Some(0))?;
    append.seal()?;
    Ok(map)
}
