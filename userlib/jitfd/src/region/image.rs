// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finished code in a mapping of its own: `jit_create_code`, as the mail
//! proposed it that this project was made from (28 July 2020, by an x86
//! maintainer to the kernel's list, in the thread "Implement Trampoline
//! File Descriptor").

use crate::backend::choice::Fallback;
use crate::backend::dispatch::{self, Maker};
use crate::backend_name::Backend;
use crate::entry::{CodePointer, Entry};
use crate::error::{Error, NO_ENTRY};
use crate::os::sys::Mapped;
use crate::region::mapping::check_page;
use jitfd_code::Chunk;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

/// An open `/dev/jit` on which code can be created.
///
/// [`jit_create_code`] opens and keeps one by itself. A program that is going
/// to give up its right to open files opens a `Device` before that.
///
/// ```
/// use jitfd::{Backend, Device, Rules, probe, validate};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// if !probe().works(Backend::Kernel) {
///     return Ok(()); // there is nothing to open
/// }
/// let device = Device::open()?;
/// // From here on the process could do without opening files.
/// // mov eax, 42; ret
/// let chunk = validate(&[0xb8, 42, 0, 0, 0, 0xc3], &Rules::new())?;
/// let code = device.create_code(&chunk)?;
/// // SAFETY: the code is such a function, and `code` outlives the call.
/// let answer = unsafe { code.entry::<extern "C" fn() -> i32>(0)? };
/// assert_eq!(answer(), 42);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Device {
    fd: OwnedFd,
}

impl Device {
    /// Opens `/dev/jit`, close-on-exec.
    ///
    /// # Errors
    /// [`Error::System`] of kind [`NoModule`](crate::Kind::NoModule) if there
    /// is none, [`Denied`](crate::Kind::Denied) if this process may not open it.
    pub fn open() -> Result<Self, Error> {
        dispatch::open_device().map(|fd| Self { fd })
    }

    /// As [`jit_create_code`], on this device.
    ///
    /// # Errors
    /// As [`jit_create_code`].
    pub fn create_code(&self, code: &Chunk) -> Result<Code, Error> {
        let mapped = Maker::Kernel(self.as_fd()).create_code(code)?;
        Ok(Code {
            mapped,
            backend: Some(Backend::Kernel),
        })
    }

    /// As [`jit_create_code_at`], on this device.
    ///
    /// # Errors
    /// As [`jit_create_code_at`].
    ///
    /// # Safety
    /// As [`jit_create_code_at`].
    ///
    /// # Example
    /// ```
    /// use jitfd::{Backend, Device, Rules, probe, validate};
    ///
    /// # fn page() -> *mut u8 {
    /// #     let (access, kind) = (libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    /// #     unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, kind, -1, 0) }.cast()
    /// # }
    /// # fn main() -> Result<(), jitfd::Error> {
    /// if !probe().works(Backend::Kernel) {
    ///     return Ok(()); // see `CodeOptions::create_at`
    /// }
    /// // mov eax, 42; ret
    /// let chunk = validate(&[0xb8, 42, 0, 0, 0, 0xc3], &Rules::new())?;
    /// let at = page(); // of the engine: from mmap(MAP_PRIVATE | MAP_ANONYMOUS)
    /// // SAFETY: nothing refers to the page, nor executes it.
    /// unsafe { Device::open()?.create_code_at(&chunk, at)? };
    /// // SAFETY: the code is such a function, and the page stays mapped.
    /// let answer = unsafe { std::mem::transmute::<*mut u8, extern "C" fn() -> i32>(at) };
    /// assert_eq!(answer(), 42);
    /// # Ok(())
    /// # }
    /// ```
    #[expect(unsafe_code, reason = "replaces memory of the caller's choice")]
    pub unsafe fn create_code_at(&self, code: &Chunk, at: *mut u8) -> Result<(), Error> {
        check_page(at)?;
        // SAFETY: as promised by the caller.
        unsafe { Maker::Kernel(self.as_fd()).create_code_at(code, at) }
    }

    /// The device of [`jit_create_code`], opened on first use. A failure is not
    /// kept, so the next call tries again.
    fn shared() -> Result<&'static Self, Error> {
        static DEVICE: OnceLock<Device> = OnceLock::new();
        if let Some(device) = DEVICE.get() {
            return Ok(device);
        }
        let opened = Self::open()?;
        Ok(DEVICE.get_or_init(|| opened))
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Puts `code` into a new mapping that holds exactly it and is executable from
/// the moment the call returns. The rest of the last page is filled with `int3`.
///
/// Data in the chunk can be loaded at once: the pages are new.
///
/// # Errors
/// [`Error::System`] of kind [`NoModule`](crate::Kind::NoModule),
/// [`Denied`](crate::Kind::Denied), [`NoExec`](crate::Kind::NoExec),
/// [`NoMemory`](crate::Kind::NoMemory) or [`Quota`](crate::Kind::Quota). Nothing is left behind then.
///
/// # Example
/// ```
/// use jitfd::{Backend, Rules, jit_create_code, probe, validate};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// if !probe().works(Backend::Kernel) {
///     return Ok(()); // see `CodeOptions`, for programs that can do without
/// }
/// // mov eax, 42; ret
/// let code = jit_create_code(&validate(&[0xb8, 42, 0, 0, 0, 0xc3], &Rules::new())?)?;
/// // SAFETY: the code is such a function, and `code` outlives the call.
/// let answer = unsafe { code.entry::<extern "C" fn() -> i32>(0)? };
/// assert_eq!(answer(), 42);
/// # Ok(())
/// # }
/// ```
pub fn jit_create_code(code: &Chunk) -> Result<Code, Error> {
    Device::shared()?.create_code(code)
}

/// Replaces the pages at `at` by `code`, in one step: for engines that write
/// code at the address at which they will execute it.
///
/// `at` is the start of a page, in the caller's own private anonymous memory;
/// all pages that `code` needs, rounded up to whole pages, are replaced, the
/// rest of the last one by `int3`. They stay the caller's to unmap
/// ([`Code::from_raw`] takes them over).
///
/// # Errors
/// [`Error::Argument`] if `at` is null or not the start of a page;
/// [`Error::System`] as [`jit_create_code`], and of kind
/// [`Argument`](crate::Kind::Argument) if the pages are not private anonymous
/// memory of the caller. The pages are unchanged then.
///
/// # Safety
/// Nothing refers to the replaced pages as Rust memory any more, and no thread
/// executes or accesses them during the call.
///
/// # Example
/// ```
/// use jitfd::{Backend, Rules, jit_create_code_at, probe, validate};
///
/// # fn page() -> *mut u8 {
/// #     let (access, kind) = (libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
/// #     unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, kind, -1, 0) }.cast()
/// # }
/// # fn main() -> Result<(), jitfd::Error> {
/// if !probe().works(Backend::Kernel) {
///     return Ok(()); // see `CodeOptions::create_at`
/// }
/// // mov eax, 42; ret
/// let chunk = validate(&[0xb8, 42, 0, 0, 0, 0xc3], &Rules::new())?;
/// let at = page(); // of the engine: from mmap(MAP_PRIVATE | MAP_ANONYMOUS)
/// // SAFETY: nothing refers to the page, nor executes it.
/// unsafe { jit_create_code_at(&chunk, at)? };
/// // SAFETY: the code is such a function, and the page stays mapped.
/// let answer = unsafe { std::mem::transmute::<*mut u8, extern "C" fn() -> i32>(at) };
/// assert_eq!(answer(), 42);
/// # Ok(())
/// # }
/// ```
#[expect(unsafe_code, reason = "replaces memory of the caller's choice")]
pub unsafe fn jit_create_code_at(code: &Chunk, at: *mut u8) -> Result<(), Error> {
    check_page(at)?;
    // SAFETY: as promised by the caller.
    unsafe { Device::shared()?.create_code_at(code, at) }
}

/// How finished code is made executable: with a fallback where there is no
/// `/dev/jit`, if the program asks for one.
///
/// ```
/// use jitfd::{CodeOptions, Fallback, Rules, validate};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// // mov eax, 42; ret
/// let chunk = validate(&[0xb8, 42, 0, 0, 0, 0xc3], &Rules::new())?;
/// let code = CodeOptions::new().fallback(Fallback::Any).create(&chunk)?;
/// // SAFETY: the code is such a function, and outlives the call.
/// let answer = unsafe { code.entry::<extern "C" fn() -> i32>(0)? };
/// assert_eq!(answer(), 42);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeOptions {
    fallback: Fallback,
}

impl CodeOptions {
    /// `/dev/jit` or an error.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            fallback: Fallback::Never,
        }
    }

    /// Which backends are accepted.
    #[must_use]
    pub const fn fallback(mut self, fallback: Fallback) -> Self {
        self.fallback = fallback;
        self
    }

    /// As [`jit_create_code`], by the first of the accepted backends that this
    /// system allows. A fallback's code is not writable either, but it was
    /// prepared in memory of this process: a memory file, sealed before it is
    /// mapped, or pages that became executable (`mprotect`).
    ///
    /// # Errors
    /// As [`jit_create_code`]; of another backend [`Kind::Refused`] or
    /// [`Kind::NoMemory`]; [`Error::NoBackend`] if more than one was accepted
    /// and none is allowed.
    ///
    /// [`Kind::Refused`]: crate::Kind::Refused
    /// [`Kind::NoMemory`]: crate::Kind::NoMemory
    pub fn create(&self, code: &Chunk) -> Result<Code, Error> {
        self.fallback.choose(|backend| {
            if backend == Backend::Kernel {
                return jit_create_code(code);
            }
            let mapped = Maker::Process(backend).create_code(code)?;
            let backend = Some(backend);
            Ok(Code { mapped, backend })
        })
    }

    /// As [`jit_create_code_at`], by the first of the accepted backends that
    /// this system allows. Only the kernel checks that the pages are private
    /// anonymous memory.
    ///
    /// # Errors
    /// As [`jit_create_code_at`] and [`create`](Self::create).
    ///
    /// # Safety
    /// As [`jit_create_code_at`]; and the pages are private anonymous memory of
    /// the caller.
    ///
    /// # Example
    /// ```
    /// use jitfd::{Code, CodeOptions, Fallback, Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let (access, kind) = (libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    /// // SAFETY: a new mapping, of which nobody knows.
    /// let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, kind, -1, 0) };
    /// assert_ne!(at, libc::MAP_FAILED);
    ///
    /// // mov eax, 42; ret
    /// let chunk = validate(&[0xb8, 42, 0, 0, 0, 0xc3], &Rules::new())?;
    /// // SAFETY: the page is ours; nothing refers to it, nor executes it.
    /// unsafe { CodeOptions::new().fallback(Fallback::Any).create_at(&chunk, at.cast())? };
    /// // SAFETY: nobody else has the page. It is unmapped when `code` is dropped.
    /// let code = unsafe { Code::from_raw(at.cast(), chunk.len())? };
    /// // SAFETY: the code is such a function, and `code` outlives the call.
    /// let answer = unsafe { code.entry::<extern "C" fn() -> i32>(0)? };
    /// assert_eq!(answer(), 42);
    /// # Ok(())
    /// # }
    /// ```
    #[expect(unsafe_code, reason = "replaces memory of the caller's choice")]
    pub unsafe fn create_at(&self, code: &Chunk, at: *mut u8) -> Result<(), Error> {
        check_page(at)?;
        self.fallback.choose(|backend| match backend {
            // SAFETY: as promised by the caller.
            Backend::Kernel => unsafe { jit_create_code_at(code, at) },
            // SAFETY: as promised by the caller.
            process => unsafe { Maker::Process(process).create_code_at(code, at) },
        })
    }
}

/// Executable code in a mapping of its own; unmapped on drop.
///
/// Function pointers into it do not keep it alive.
///
/// ```
/// use jitfd::{Code, CodeOptions, Fallback, Rules, validate};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let chunk = validate(&[0x90, 0xc3], &Rules::new())?;
/// let code: Code = CodeOptions::new().fallback(Fallback::Any).create(&chunk)?;
/// println!("{} bytes at {:p}", code.len(), code.as_ptr());
/// // Debuggers and unwinders read it.
/// // SAFETY: so many bytes are readable as long as `code` lives.
/// let seen = unsafe { std::slice::from_raw_parts(code.as_ptr(), code.len()) };
/// assert_eq!(seen, chunk.bytes());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Code {
    mapped: Mapped,
    backend: Option<Backend>,
}

impl Code {
    /// The address of the first byte. Readable and executable for
    /// [`len`](Self::len) bytes, never writable.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.mapped.as_ptr()
    }

    /// The number of bytes of code.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.mapped.len()
    }

    /// What made it executable; `None` if it was taken over by
    /// [`from_raw`](Self::from_raw).
    #[must_use]
    pub const fn backend(&self) -> Option<Backend> {
        self.backend
    }

    /// The function at `offset`, in bytes from the first byte.
    ///
    /// # Errors
    /// [`Error::Argument`] if `offset` is not inside the code.
    ///
    /// # Safety
    /// As [`Mapping::entry`](crate::Mapping::entry).
    ///
    /// # Example
    /// ```
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let options = jitfd::CodeOptions::new().fallback(jitfd::Fallback::Any);
    /// # // lea rax, [rdi + rdi]; ret
    /// # let bytes = [0x48, 0x8d, 0x04, 0x3f, 0xc3];
    /// # let code = options.create(&jitfd::validate(&bytes, &jitfd::Rules::new())?)?;
    /// // SAFETY: the code at 0 is such a function, and `code` outlives the call.
    /// let double = unsafe { code.entry::<extern "C" fn(u64) -> u64>(0)? };
    /// assert_eq!(double(21), 42);
    /// # Ok(())
    /// # }
    /// ```
    #[expect(unsafe_code, reason = "the caller vouches for the function's type")]
    pub unsafe fn entry<F: CodePointer>(&self, offset: usize) -> Result<Entry<'_, F>, Error> {
        if offset >= self.len() {
            return Err(NO_ENTRY);
        }
        // SAFETY: as promised by the caller; the mapping lives as long as the borrow.
        Ok(unsafe { Entry::at(self.as_ptr().wrapping_add(offset)) })
    }

    /// Gives the mapping away: its address, and its length in bytes. It is
    /// leaked unless [`Code::from_raw`] takes it back.
    ///
    /// ```
    /// use jitfd::{Code, CodeOptions, Fallback, Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let chunk = validate(&[0xc3], &Rules::new())?;
    /// let code = CodeOptions::new().fallback(Fallback::Any).create(&chunk)?;
    /// // For a table of the engine that knows plain addresses only.
    /// let (address, len) = code.into_raw();
    /// // SAFETY: these are the numbers from above, and nobody else took them over.
    /// let code = unsafe { Code::from_raw(address, len)? };
    /// assert_eq!(code.as_ptr(), address);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn into_raw(self) -> (*const u8, usize) {
        self.mapped.into_raw()
    }

    /// Takes over the mapping of `len` bytes at `address`: from
    /// [`into_raw`](Self::into_raw), or put there by [`jit_create_code_at`].
    ///
    /// See the example of [`into_raw`](Self::into_raw).
    ///
    /// # Errors
    /// [`Error::Argument`] if `address` is null or `len` is 0.
    ///
    /// # Safety
    /// The pages belong to nobody else; they are unmapped on drop.
    #[expect(unsafe_code, reason = "takes over memory of the caller's choice")]
    pub unsafe fn from_raw(address: *const u8, len: usize) -> Result<Self, Error> {
        const NOTHING: Error = Error::Argument("there is no code at null, nor in 0 bytes");
        if len == 0 {
            return Err(NOTHING);
        }
        // SAFETY: as promised by the caller.
        let mapped = unsafe { Mapped::from_raw(address.expose_provenance(), len) };
        let backend = None;
        mapped.map(|mapped| Self { mapped, backend }).ok_or(NOTHING)
    }
}

impl From<Device> for OwnedFd {
    fn from(device: Device) -> Self {
        device.fd
    }
}
