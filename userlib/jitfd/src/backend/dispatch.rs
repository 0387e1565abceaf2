// SPDX-License-Identifier: MIT OR Apache-2.0

//! The seam between the library and its backends: what a handle can be asked to
//! do, by the kernel or in the process's own memory. No policy.

use crate::abi;
use crate::backend::kernel::ioctl;
use crate::backend::process::{self, ProcessRegion};
use crate::backend::segment::Segment;
use crate::backend_name::Backend;
use crate::error::{Call, Error};
use crate::os::near;
use crate::os::sys::{self, Mapped};
use crate::os::window::Window;
use jitfd_code::internal::Mode;
use jitfd_code::{Align, Chunk};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

pub(crate) use crate::backend::kernel::ioctl::open_device;
pub(crate) use crate::backend::process::{MemoryFile, finished, make_writable, membarrier_works};

/// Who makes finished code.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Maker<'a> {
    /// The kernel, by this device.
    Kernel(BorrowedFd<'a>),
    /// The process itself, by another backend.
    Process(Backend),
}

impl Maker<'_> {
    /// A new mapping that holds `code`. Its branches are checked once its address is
    /// known: nobody else knows the address before.
    pub(crate) fn create_code(self, code: &Chunk) -> Result<Mapped, Error> {
        let mapped = match self {
            Self::Kernel(device) => ioctl::create_code(device, code.bytes()),
            Self::Process(backend) => process::create_code(backend, code.bytes()),
        }?;
        code.check_leaves(mapped.as_ptr().addr(), |_| false)?;
        Ok(mapped)
    }

    /// Puts `code` in the place of the pages at `at`, in one step.
    ///
    /// # Safety
    /// The pages are the caller's own private memory, and nothing that Rust knows
    /// about is in them.
    #[expect(unsafe_code, reason = "replaces memory of the caller's choice")]
    pub(crate) unsafe fn create_code_at(self, code: &Chunk, at: *mut u8) -> Result<(), Error> {
        code.check_leaves(at.addr(), |_| false)?;
        // SAFETY: as promised by the caller.
        unsafe { self.replace(code.bytes(), at) }
    }

    /// Puts code with `bytes`, which may be those of the pages, in the place of the
    /// pages at `at`, in one step.
    ///
    /// # Safety
    /// As [`create_code_at`](Self::create_code_at).
    #[expect(unsafe_code, reason = "replaces memory of the caller's choice")]
    pub(crate) unsafe fn replace(self, bytes: &[u8], at: *mut u8) -> Result<(), Error> {
        // SAFETY: as promised by the caller.
        unsafe {
            match self {
                Self::Kernel(device) => ioctl::create_code_at(device, bytes, at),
                Self::Process(backend) => process::create_code_at(backend, bytes, at),
            }
        }
    }
}

/// One handle of a region. Each of the kernel's two descriptors takes only some
/// of the calls (else `ENOTTY`); a region in the process's own memory takes all
/// of them.
#[derive(Debug)]
pub(crate) enum Access {
    Kernel(OwnedFd),
    Process(Arc<ProcessRegion>),
}

/// Why there is no descriptor to give away.
const NO_DESCRIPTOR: &str = "a handle with rights of its own, that another process can be given";

/// Creates a region of `capacity` bytes: its two handles.
pub(crate) fn create(
    backend: Backend,
    capacity: usize,
    any_process: bool,
    window: Option<Window>,
) -> Result<(Access, Access), Error> {
    if backend == Backend::Kernel {
        let flags = if any_process { abi::CREATE_ANY_MM } else { 0 };
        let device = ioctl::open_device()?;
        let append = ioctl::create(device.as_fd(), capacity, flags)?;
        return Ok((Access::Kernel(device), Access::Kernel(append)));
    }
    if any_process {
        let what = "publishing from other processes";
        return Err(Error::Unsupported { backend, what });
    }
    let region = Arc::new(ProcessRegion::new(backend, capacity, window)?);
    Ok((
        Access::Process(Arc::clone(&region)),
        Access::Process(region),
    ))
}

/// What only the kernel's regions can do.
const NO_COPY: &str = "clones of a region at other addresses";

impl Access {
    /// A new region with what this one has: its two handles.
    pub(crate) fn clone_region(&self, any_process: bool) -> Result<(Self, Self), Error> {
        match self {
            Self::Kernel(source) => {
                let flags = if any_process { abi::CREATE_ANY_MM } else { 0 };
                let device = ioctl::open_device()?;
                let append = ioctl::clone(device.as_fd(), source.as_fd(), flags)?;
                Ok((Self::Kernel(device), Self::Kernel(append)))
            }
            Self::Process(region) => Err(Error::Unsupported {
                backend: region.backend(),
                what: NO_COPY,
            }),
        }
    }

    /// Makes this handle, the other one (`append`) and `mapped` those of a new
    /// region with what their region has.
    pub(crate) fn adopt(&self, append: &Self, mapped: &Mapped) -> Result<(), Error> {
        match (self, append) {
            (Self::Kernel(map), Self::Kernel(append)) => adopt(map, append, mapped),
            (Self::Process(region), _) => region.adopt(mapped),
            (Self::Kernel(_), Self::Process(_)) => Err(Error::Argument(OF_TWO)),
        }
    }

    pub(crate) fn backend(&self) -> Backend {
        match self {
            Self::Kernel(_) => Backend::Kernel,
            Self::Process(region) => region.backend(),
        }
    }

    pub(crate) fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        match self {
            Self::Kernel(fd) => Ok(fd.as_fd()),
            Self::Process(region) => Err(no_descriptor(region)),
        }
    }

    pub(crate) fn into_fd(self) -> Result<OwnedFd, Error> {
        match self {
            Self::Kernel(fd) => Ok(fd),
            Self::Process(region) => Err(no_descriptor(&region)),
        }
    }

    /// Maps the first `len` bytes, readable and executable, inside of `window`.
    pub(crate) fn map(&self, window: Option<Window>, len: usize) -> Result<Mapped, Error> {
        match self {
            Self::Kernel(fd) => {
                check_region(fd.as_fd()).map_err(|error| Error::system(Call::Map, &error))?;
                near::map(window, len, Call::Map, |at| {
                    sys::map_code(fd.as_fd(), at, len)
                })
            }
            Self::Process(region) => region.map(window, len),
        }
    }

    /// Publishes at the cursor; returns the offset of the first piece.
    pub(crate) fn append(
        &self,
        pieces: &[Segment<'_>],
        expect: Option<usize>,
        mode: Mode,
    ) -> Result<usize, Error> {
        match self {
            Self::Kernel(fd) => ioctl::append(fd.as_fd(), pieces, expect, mode),
            Self::Process(region) => region.append(pieces, expect, mode),
        }
    }

    pub(crate) fn fill(&self, pieces: &[Segment<'_>], mode: Mode) -> Result<(), Error> {
        match self {
            Self::Kernel(fd) => ioctl::fill(fd.as_fd(), pieces, mode),
            Self::Process(region) => region.fill(pieces),
        }
    }

    /// Returns the offset of the range.
    pub(crate) fn reserve(&self, len: usize, align: Align) -> Result<usize, Error> {
        match self {
            Self::Kernel(fd) => ioctl::reserve(fd.as_fd(), len, align),
            Self::Process(region) => region.reserve(len, align),
        }
    }

    pub(crate) fn seal(&self) -> Result<(), Error> {
        match self {
            Self::Kernel(fd) => ioctl::seal(fd.as_fd()),
            Self::Process(region) => region.seal(),
        }
    }

    pub(crate) fn stats(&self) -> Result<abi::Stats, Error> {
        match self {
            Self::Kernel(fd) => ioctl::stats(fd.as_fd()),
            Self::Process(region) => region.stats(),
        }
    }
}

/// Fails with `ENODEV` or `ENODATA` if the descriptor is not that of a region. Another
/// program may have sent it, and an ordinary file could be written to while it is
/// executed. A sandbox may be allowed to map but not to call `ioctl` (`EACCES`, `EPERM`);
/// then it was only checked to be a device.
fn check_region(fd: BorrowedFd<'_>) -> io::Result<()> {
    let of_none = || io::Error::from_raw_os_error(libc::ENODEV);
    if !sys::is_device(fd)? {
        return Err(of_none());
    }
    match ioctl::stats(fd).map_err(|error| error.errno()) {
        Ok(_) | Err(libc::EACCES | libc::EPERM) => Ok(()),
        Err(libc::ENOTTY) => Err(of_none()),
        Err(errno) => Err(io::Error::from_raw_os_error(errno)),
    }
}

const OF_TWO: &str = "the handles are of two regions";

/// The descriptors keep their numbers and the mapping its addresses.
fn adopt(map: &OwnedFd, append: &OwnedFd, mapped: &Mapped) -> Result<(), Error> {
    let failed = |error| Error::system(Call::Clone, &error);
    let device = ioctl::open_device()?;
    let copy = ioctl::clone(device.as_fd(), map.as_fd(), 0)?;
    mapped.replace(device.as_fd()).map_err(failed)?;
    // Both are open, so this can't fail.
    sys::replace_fd(map.as_fd(), device).map_err(failed)?;
    sys::replace_fd(append.as_fd(), copy).map_err(failed)
}

fn no_descriptor(region: &ProcessRegion) -> Error {
    Error::Unsupported {
        backend: region.backend(),
        what: NO_DESCRIPTOR,
    }
}
