// SPDX-License-Identifier: MIT OR Apache-2.0

//! The seam between the library and its backends: what a handle can be asked to
//! do, by the kernel or in the process's own memory. No policy.

use crate::abi;
use crate::backend::Backend;
use crate::error::{Call, Error, Unsupported};
use crate::ioctl;
use crate::layout::Align;
use crate::own::OwnRegion;
use crate::piece::Piece;
use crate::region::RegionOptions;
use crate::space::{Window, near};
use crate::sys::{self, Mapped};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// One handle of a region. Of the kernel's two descriptors each knows only some
/// of the calls (`ENOTTY`); a region in our own memory knows all.
#[derive(Debug)]
pub(crate) enum Access {
    Kernel(OwnedFd),
    Own(Arc<OwnRegion>),
}

/// Why there is no descriptor to give away.
const NO_DESCRIPTOR: &str = "a handle with rights of its own, that another process can be given";

/// Creates a region of `capacity` bytes: its two handles.
pub(crate) fn create(
    backend: Backend,
    capacity: usize,
    options: RegionOptions,
) -> Result<(Access, Access), Error> {
    if backend == Backend::Kernel {
        let flags = if options.any_process {
            abi::CREATE_ANY_MM
        } else {
            0
        };
        let device = ioctl::open_device()?;
        let append = ioctl::create(device.as_fd(), capacity, flags)?;
        return Ok((Access::Kernel(device), Access::Kernel(append)));
    }
    if options.any_process {
        let what = "publishing from other processes";
        return Err(Unsupported::new(backend, what).into());
    }
    let region = Arc::new(OwnRegion::new(backend, capacity, options.window)?);
    Ok((Access::Own(Arc::clone(&region)), Access::Own(region)))
}

impl Access {
    pub(crate) fn backend(&self) -> Backend {
        match self {
            Self::Kernel(_) => Backend::Kernel,
            Self::Own(region) => region.backend(),
        }
    }

    pub(crate) fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        match self {
            Self::Kernel(fd) => Ok(fd.as_fd()),
            Self::Own(region) => Err(no_descriptor(region)),
        }
    }

    pub(crate) fn into_fd(self) -> Result<OwnedFd, Error> {
        match self {
            Self::Kernel(fd) => Ok(fd),
            Self::Own(region) => Err(no_descriptor(&region)),
        }
    }

    /// Maps the first `len` bytes, readable and executable, inside of `window`.
    pub(crate) fn map(&self, window: Option<Window>, len: usize) -> Result<Mapped, Error> {
        match self {
            Self::Kernel(fd) => near::map(window, len, Call::Map, |at| {
                sys::map_code(fd.as_fd(), at, len)
            }),
            Self::Own(region) => region.map(window, len),
        }
    }

    /// Publishes at the cursor; returns the offset of the first piece.
    pub(crate) fn append(
        &self,
        pieces: &[Piece<'_>],
        expect: Option<usize>,
        flags: u32,
    ) -> Result<usize, Error> {
        match self {
            Self::Kernel(fd) => ioctl::append(fd.as_fd(), pieces, expect, flags),
            Self::Own(region) => region.append(pieces, expect, flags),
        }
    }

    pub(crate) fn fill(&self, pieces: &[Piece<'_>], flags: u32) -> Result<(), Error> {
        match self {
            Self::Kernel(fd) => ioctl::fill(fd.as_fd(), pieces, flags),
            Self::Own(region) => region.fill(pieces),
        }
    }

    /// Returns the offset of the range.
    pub(crate) fn reserve(&self, len: usize, align: Align) -> Result<usize, Error> {
        match self {
            Self::Kernel(fd) => ioctl::reserve(fd.as_fd(), len, align),
            Self::Own(region) => region.reserve(len, align),
        }
    }

    pub(crate) fn seal(&self) -> Result<(), Error> {
        match self {
            Self::Kernel(fd) => ioctl::seal(fd.as_fd()),
            Self::Own(region) => region.seal(),
        }
    }

    pub(crate) fn stats(&self) -> Result<abi::Stats, Error> {
        match self {
            Self::Kernel(fd) => ioctl::stats(fd.as_fd()),
            Self::Own(region) => region.stats(),
        }
    }
}

fn no_descriptor(region: &OwnRegion) -> Error {
    Unsupported::new(region.backend(), NO_DESCRIPTOR).into()
}
