// SPDX-License-Identifier: MIT OR Apache-2.0

//! The way in: chooses a backend once, and makes everything else by it.

use crate::abi::PAGE_SIZE;
use crate::backend::choice::{Fallback, Refused};
use crate::backend::dispatch::{self, Maker};
use crate::backend::segment::Segment;
use crate::backend_name::Backend;
use crate::error::Error;
use crate::os::sys;
use crate::region::Region;
use crate::region::mapping::{Mapping, check_page};
use crate::region::options::RegionOptions;
use crate::space::{CodeSpace, SpaceOptions};
use jitfd_code::internal::Mode;
use jitfd_code::{Align, Chunk, Rules, validate};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// What makes code executable in this process: `/dev/jit`, or a fallback that the
/// program accepts. Everything else of this crate is made by it. Clones share what
/// they have open.
///
/// ```
/// use jitfd::{Backend, Fallback, Jit, Rules, validate};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let jit = Jit::open(Fallback::Any)?;
/// if jit.backend() != Backend::Kernel {
///     println!("{jit}"); // by what code is made, and why not by /dev/jit
/// }
/// // mov eax, 42; ret
/// let code = jit.code(&validate(&[0xb8, 42, 0, 0, 0, 0xc3], &Rules::new())?)?;
/// // SAFETY: the code is such a function.
/// let answer = unsafe { code.entry::<extern "C" fn() -> i32>(0)? };
/// assert_eq!(answer(), 42);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Jit(Arc<Chosen>);

#[derive(Debug)]
struct Chosen {
    backend: Backend,
    refused: Refused,
    /// Of the kernel's backend: for finished code, without opening anything.
    device: Option<OwnedFd>,
}

impl Jit {
    /// Chooses the first of the accepted backends that this system allows, by making
    /// a small piece of code with it, which nobody runs: where there is a choice in a
    /// region, which needs the most; else finished code, so that a program that may
    /// only have that has it.
    ///
    /// If it is not the kernel's, that is reported once per process
    /// ([`set_fallback_hook`](crate::set_fallback_hook)).
    ///
    /// Finished code ([`code`](Self::code)) needs no further right to open files;
    /// a region opens `/dev/jit` for itself.
    ///
    /// # Errors
    /// Why the backend can't be used, if one was accepted: [`Error::System`] of kind
    /// [`NoModule`](crate::Kind::NoModule), [`Denied`](crate::Kind::Denied),
    /// [`NoExec`](crate::Kind::NoExec) or [`Refused`](crate::Kind::Refused).
    /// [`Error::NoBackend`] if none of several is allowed. A shortage
    /// ([`NoMemory`](crate::Kind::NoMemory), [`Quota`](crate::Kind::Quota),
    /// [`TooManyFiles`](crate::Kind::TooManyFiles)) is no reason to take the next
    /// backend, but an error.
    pub fn open(fallback: Fallback) -> Result<Self, Error> {
        let (device, backend, refused) = fallback.choose(|backend| try_out(backend, fallback))?;
        let jit = Self::new(backend, refused, device);
        report(&jit);
        Ok(jit)
    }

    pub(crate) fn new(backend: Backend, refused: Refused, device: Option<OwnedFd>) -> Self {
        Self(Arc::new(Chosen {
            backend,
            refused,
            device,
        }))
    }

    /// What makes code executable.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.0.backend
    }

    /// The better backends that were accepted too, each with why it is not used.
    ///
    /// ```
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # use jitfd::{Fallback, Jit};
    /// for (backend, error) in Jit::open(Fallback::Any)?.refused() {
    ///     println!("not by {backend}: {error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn refused(&self) -> &[(Backend, Error)] {
        &self.0.refused
    }

    /// Puts `code` into a new mapping that holds exactly it and is executable from
    /// the moment the call returns. The rest of the last page is filled with `int3`.
    /// Data in the chunk can be loaded at once: the pages are new.
    ///
    /// A fallback's code is not writable either, but it was prepared in memory of
    /// this process: a memory file, sealed before it is mapped, or pages that became
    /// executable (`mprotect`).
    ///
    /// See the example of [`Jit`].
    ///
    /// # Errors
    /// [`Error::System`] of kind [`NoExec`](crate::Kind::NoExec),
    /// [`NoMemory`](crate::Kind::NoMemory) or [`Quota`](crate::Kind::Quota); of a
    /// fallback [`Refused`](crate::Kind::Refused). Nothing is left behind then.
    pub fn code(&self, code: &Chunk) -> Result<Mapping, Error> {
        let mapped = self.maker().create_code(code)?;
        Ok(Mapping::of(mapped))
    }

    /// Replaces the pages at `at` by `code`, in one step: for engines that have a
    /// place for their code already.
    ///
    /// `at` is the start of a page, in the caller's own private memory; all pages that `code` needs are replaced, the rest of the last one by
    /// `int3`. They stay the caller's to unmap ([`Mapping::from_raw`] takes them
    /// over).
    ///
    /// # Errors
    /// [`Error::Argument`] if `at` is null or not the start of a page;
    /// [`Error::System`] as [`code`](Self::code), and by the kernel of kind
    /// [`Argument`](crate::Kind::Argument) if the pages are not private memory of the
    /// caller, or earlier code. The pages are unchanged then.
    ///
    /// # Safety
    /// The pages are private memory of the caller. Nothing refers to them as Rust
    /// memory any more, and no thread executes or accesses them during the call.
    ///
    /// # Example
    /// ```
    /// use jitfd::{Fallback, Jit, Mapping, Rules, validate};
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
    /// unsafe { Jit::open(Fallback::Any)?.code_at(&chunk, at.cast())? };
    /// // SAFETY: nobody else has the page. It is unmapped when `code` is dropped.
    /// let code = unsafe { Mapping::from_raw(at.cast(), chunk.bytes().len())? };
    /// // SAFETY: the code is such a function.
    /// let answer = unsafe { code.entry::<extern "C" fn() -> i32>(0)? };
    /// assert_eq!(answer(), 42);
    /// # Ok(())
    /// # }
    /// ```
    #[expect(unsafe_code, reason = "replaces memory of the caller's choice")]
    pub unsafe fn code_at(&self, code: &Chunk, at: *mut u8) -> Result<(), Error> {
        check_page(at)?;
        // SAFETY: as promised by the caller.
        unsafe { self.maker().create_code_at(code, at) }
    }

    /// Makes the pages from `at` on code, as they are: for an engine with a hook that is
    /// told where its code lies, but not what of it is data, so that nothing can be
    /// validated. It is `mprotect(at, len, PROT_READ | PROT_EXEC)` where that is refused.
    /// All pages with one of the `len` bytes keep all their bytes.
    ///
    /// Memory of a file becomes memory of its own; the file is not changed.
    ///
    /// # Errors
    /// As [`code_at`](Self::code_at).
    ///
    /// # Safety
    /// As [`code_at`](Self::code_at); the pages can be read, and what is executed of
    /// them is code.
    ///
    /// # Example
    /// ```
    /// use jitfd::{Entry, Fallback, Jit};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    /// # // SAFETY: a new mapping, of which nobody knows.
    /// # let at: *mut u8 = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, kind, -1, 0) }.cast();
    /// let jit = Jit::open(Fallback::Any)?;
    /// // mov eax, 42; ret
    /// let code = [0xb8, 42, 0, 0, 0, 0xc3];
    /// // SAFETY: `at` is a page of ours, to which nothing else refers.
    /// unsafe {
    ///     at.copy_from_nonoverlapping(code.as_ptr(), code.len());
    ///     jit.make_executable(at, code.len())?;
    ///     assert_eq!(Entry::<extern "C" fn() -> i32>::at(at)(), 42);
    /// #   libc::munmap(at.cast(), 4096);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[expect(unsafe_code, reason = "replaces memory of the caller's choice")]
    pub unsafe fn make_executable(&self, at: *mut u8, len: usize) -> Result<(), Error> {
        // SAFETY: as promised by the caller.
        match unsafe { pages_of(at, len) }? {
            [] => Ok(()),
            // SAFETY: as promised by the caller.
            bytes => unsafe { self.maker().replace(bytes, at) },
        }
    }

    /// The way back: makes the pages from `at` on ordinary memory with the same bytes,
    /// which can be written and not executed, in one step. Who executes them meanwhile
    /// gets `SIGSEGV`. It is `mprotect(at, len, PROT_READ | PROT_WRITE)` for code.
    ///
    /// # Errors
    /// [`Error::Argument`] if `at` is null or not the start of a page;
    /// [`Error::System`] of kind [`NoMemory`](crate::Kind::NoMemory). The pages are
    /// unchanged then.
    ///
    /// # Safety
    /// The pages are [`code_at`](Self::code_at) or
    /// [`make_executable`](Self::make_executable) made, or private memory of the caller
    /// that can be read. Nothing refers to them as Rust memory, and no thread executes or
    /// writes to them during the call.
    ///
    /// # Example
    /// ```
    /// use jitfd::{Entry, Fallback, Jit};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    /// # // SAFETY: a new mapping, of which nobody knows.
    /// # let at: *mut u8 = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, kind, -1, 0) }.cast();
    /// let jit = Jit::open(Fallback::Any)?;
    /// // mov eax, 42; ret
    /// let code = [0xb8, 42, 0, 0, 0, 0xc3];
    /// // SAFETY: `at` is a page of ours, to which nothing else refers.
    /// unsafe {
    ///     at.copy_from_nonoverlapping(code.as_ptr(), code.len());
    ///     jit.make_executable(at, code.len())?;
    ///     // The engine links it to something else.
    ///     jit.make_writable(at, code.len())?;
    ///     at.add(1).write(43);
    ///     jit.make_executable(at, code.len())?;
    ///     assert_eq!(Entry::<extern "C" fn() -> i32>::at(at)(), 43);
    /// #   libc::munmap(at.cast(), 4096);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[expect(unsafe_code, reason = "replaces memory of the caller's choice")]
    pub unsafe fn make_writable(&self, at: *mut u8, len: usize) -> Result<(), Error> {
        // SAFETY: as promised by the caller.
        match unsafe { pages_of(at, len) }? {
            [] => Ok(()),
            // SAFETY: as promised by the caller.
            bytes => unsafe { dispatch::make_writable(bytes, at) },
        }
    }

    /// Creates a region and maps it: one of that capacity in bytes, or by
    /// [`RegionOptions`].
    ///
    /// ```
    /// use jitfd::{Fallback, Jit, RegionOptions};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let jit = Jit::open(Fallback::Any)?;
    /// let region = jit.region(1_000_000)?;
    /// assert_eq!(region.mapping().len(), 1_003_520); // whole pages
    /// // A compiler that is sure of its branches.
    /// let options = RegionOptions { capacity: 1 << 20, boundary_map: false, ..Default::default() };
    /// let region = jit.region(options)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if the capacity is 0 or above 1 GiB; [`Error::NoRoom`]
    /// if there is no gap of this size in the window; [`Error::Unsupported`] if the
    /// backend can't do what is asked for; [`Error::System`] of kind
    /// [`NoExec`](crate::Kind::NoExec), [`NoMemory`](crate::Kind::NoMemory),
    /// [`Quota`](crate::Kind::Quota), [`TooManyFiles`](crate::Kind::TooManyFiles),
    /// [`FileSize`](crate::Kind::FileSize) (dual mapping, if `RLIMIT_FSIZE` is below
    /// the capacity), or as [`open`](Self::open).
    pub fn region(&self, options: impl Into<RegionOptions>) -> Result<Region, Error> {
        options.into().create(self.0.backend)
    }

    /// Makes a code space with its first region.
    ///
    /// ```
    /// use jitfd::space::SpaceOptions;
    /// use jitfd::{Fallback, Jit, Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let space = Jit::open(Fallback::Any)?.space(SpaceOptions::default())?;
    /// space.publish("nothing", &validate(&[0xc3], &Rules::new())?)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`region`](Self::region).
    pub fn space(&self, options: SpaceOptions) -> Result<CodeSpace, Error> {
        CodeSpace::create(self.0.backend, options)
    }

    fn maker(&self) -> Maker<'_> {
        maker(self.0.backend, self.0.device.as_ref())
    }
}

/// Makes a piece of code; the device, if it is the kernel's.
fn try_out(backend: Backend, fallback: Fallback) -> Result<Option<OwnedFd>, Error> {
    const RET: &[u8] = &[0xc3];
    let device = match backend {
        Backend::Kernel => Some(dispatch::open_device()?),
        _ => None,
    };
    if fallback.order().len() > 1 {
        let (map, append) = dispatch::create(backend, PAGE_SIZE, false, None)?;
        let _mapping = map.map(None, PAGE_SIZE)?;
        let ret = Segment {
            bytes: RET,
            offset: 0,
            align: Align::NONE,
        };
        append.append(&[ret], None, Mode::Lazy)?;
    } else {
        maker(backend, device.as_ref()).create_code(&validate(RET, &Rules::new())?)?;
    }
    Ok(device)
}

fn maker(backend: Backend, device: Option<&OwnedFd>) -> Maker<'_> {
    match device {
        Some(device) => Maker::Kernel(device.as_fd()),
        None => Maker::Process(backend),
    }
}

/// One line: what makes the code, and why nothing better does.
impl fmt::Display for Jit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Chosen {
            backend, refused, ..
        } = &*self.0;
        write!(f, "jitfd: code is made by {backend} in this process")?;
        match refused.as_slice() {
            [] if *backend == Backend::Kernel => Ok(()),
            [] => f.write_str(", as it asked for"),
            refused => refused
                .iter()
                .try_for_each(|(better, error)| write!(f, "; not by {better}: {error}")),
        }
    }
}

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
fn report(jit: &Jit) {
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

/// The whole pages that hold one of the `len` bytes at `at`, the start of a page.
///
/// # Safety
/// They can be read, and are not written to as long as the result is used.
#[expect(unsafe_code, reason = "reads memory of the caller's choice")]
unsafe fn pages_of<'a>(at: *mut u8, len: usize) -> Result<&'a [u8], Error> {
    check_page(at)?;
    let len = len
        .checked_next_multiple_of(PAGE_SIZE)
        .filter(|&len| len <= isize::MAX.unsigned_abs())
        .ok_or(Error::Argument("memory has no end"))?;
    // SAFETY: as promised by the caller.
    Ok(unsafe { std::slice::from_raw_parts(at, len) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Call;

    #[test]
    fn a_report_is_one_line_with_the_reasons() {
        let error = Error::of(Call::Open, libc::ENOENT);
        let text = |refused| Jit::new(Backend::DualMapping, refused, None).to_string();
        assert_eq!(text(Vec::new()).lines().count(), 1);
        let whole = text(vec![(Backend::Kernel, error)]);
        assert_eq!(whole.lines().count(), 1);
        for part in ["dual mapping", "not by /dev/jit", "modprobe jit"] {
            assert!(whole.contains(part), "{whole}");
        }
    }

    #[test]
    fn a_backend_that_is_refused_is_not_taken() {
        for backend in [Backend::DualMapping, Backend::ProtectFlips] {
            let jit = Jit::open(Fallback::Only(backend)).unwrap();
            assert_eq!((jit.backend(), jit.refused().len()), (backend, 0));
            assert_eq!(jit.clone().region(4096).unwrap().backend(), backend);
        }
        let any = Jit::open(Fallback::Any).unwrap();
        let better = Backend::ALL.iter().position(|&one| one == any.backend());
        assert_eq!(Some(any.refused().len()), better);
    }
}
