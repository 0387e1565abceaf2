// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pages become code, and ordinary memory again. All of this is done by who holds the
//! lock.

use core::ops::Range;
use core::sync::atomic::AtomicI32;
use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{CREATE_CODE_FIXED, CreateCode, JIT_CREATE_CODE};
use crate::maps::{self, Kind, Mapping};
use crate::options;
use crate::page::{Access, Page};
use crate::shared::{self, Held};
use crate::sys::{self, Errno, PAGE, Result};
use crate::table;

const WRITABLE: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;
const PRIVATE: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// The bytes of pages.
fn bytes(pages: &Range<usize>) -> (usize, usize) {
    (pages.start * PAGE, pages.len() * PAGE)
}

/// `/dev/jit`, once it was needed. A program may close it, or put another file in its
/// place; so an answer that it would not give is asked for once more.
static DEVICE: AtomicI32 = AtomicI32::new(-1);

/// Programs close, and reuse, the low ones.
const LOWEST_DESCRIPTOR: libc::c_int = 300;

fn device(anew: bool) -> Result<libc::c_int> {
    let device = DEVICE.load(Relaxed);
    if device >= 0 && !anew {
        return Ok(device);
    }
    let low = sys::open(c"/dev/jit")?;
    let device = match sys::fcntl(low, libc::F_DUPFD_CLOEXEC, LOWEST_DESCRIPTOR) {
        Ok(high) => {
            sys::close(low);
            high
        }
        Err(_) => low,
    };
    DEVICE.store(device, Relaxed);
    Ok(device)
}

/// One call: the pages become code with the bytes that they hold.
fn create(pages: &Range<usize>) -> Result<()> {
    if options::get().stand_in {
        return stand_in(pages);
    }
    let (address, len) = bytes(pages);
    let ask = |anew| {
        let mut code = CreateCode {
            source: address as u64,
            len: len as u64,
            addr: address as u64,
            flags: CREATE_CODE_FIXED,
            ..CreateCode::default()
        };
        // SAFETY: the kernel reads and writes the argument, and replaces pages by their
        // own bytes.
        unsafe {
            let argument = (&raw mut code).expose_provenance();
            sys::ioctl(device(anew)?, JIT_CREATE_CODE, argument).map(drop)
        }
    };
    match ask(false) {
        Err(libc::EBADF | libc::ENOTTY | libc::EBUSY) => ask(true),
        result => result,
    }
}

/// A file in memory instead of `/dev/jit`: for systems without the module. Nothing has
/// a descriptor or a writable mapping of it afterwards.
fn stand_in(pages: &Range<usize>) -> Result<()> {
    let (address, len) = bytes(pages);
    if mapping_at(address).is_none_or(|mapping| mapping.kind != Kind::Private) {
        return Err(libc::EINVAL);
    }
    let file = sys::memfd_create(c"jitfd-run")?;
    // SAFETY: the pages are mapped and can be read: who is asked for executable memory
    // has it readable. They are replaced by their own bytes.
    let result = unsafe {
        let source = core::slice::from_raw_parts(core::ptr::with_exposed_provenance(address), len);
        sys::write(file, source).and_then(|()| {
            let seals = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
            sys::fcntl(file, libc::F_ADD_SEALS, seals)?;
            let access = libc::PROT_READ | libc::PROT_EXEC;
            let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
            sys::mmap(address, len, access, flags, file, 0).map(drop)
        })
    };
    sys::close(file);
    result
}

/// The kernel's `mprotect()`. No page is ever made executable by it.
fn protect(pages: &Range<usize>, protection: libc::c_int) -> Result<()> {
    let (address, len) = bytes(pages);
    // SAFETY: the caller has a reason for it, and notes it.
    unsafe { sys::mprotect(address, len, protection).map(drop) }
}

/// The pages become code; `access` is what is noted that the program asked for. They
/// can be read.
///
/// # Errors
/// `ENOMEM` if the kernel has no room for it, else `EACCES`.
pub fn publish(held: &Held, pages: Range<usize>, access: Access) -> Result<()> {
    table::prepare(pages.clone())?;
    let before = table::get(pages.start);
    // What another thread writes after the kernel has read a page would be lost. So it
    // faults, and waits for the lock.
    let may_be_written = pages.clone().any(|page| table::get(page) == Page::Both);
    table::set(pages.clone(), Page::Code(access).changing());
    let mut result = match may_be_written {
        true => protect(&pages, libc::PROT_READ).and_then(|()| create(&pages)),
        false => create(&pages),
    };
    if result == Err(libc::EFAULT) {
        // Code can be read, whatever these pages allow; and not be written to.
        result = protect(&pages, libc::PROT_READ).and_then(|()| create(&pages));
    }
    if result == Err(libc::EINVAL) {
        result = piecewise(held, &pages);
    }
    match result {
        Ok(()) => {
            table::set(pages.clone(), Page::Code(access));
            let counts = shared::counts();
            shared::add(&counts.publications, 1);
            shared::add(&counts.bytes, pages.len() * PAGE);
            Ok(())
        }
        Err(error) => {
            if may_be_written {
                let _ = protect(&pages, WRITABLE);
            }
            table::set(pages, before);
            shared::add(&shared::counts().failures, 1);
            options::say_why(error, cause);
            Err(match error {
                libc::ENOMEM | libc::EDQUOT => libc::ENOMEM,
                _ => libc::EACCES,
            })
        }
    }
}

/// The pages are not all private anonymous memory: each mapping on its own.
fn piecewise(held: &Held, pages: &Range<usize>) -> Result<()> {
    let mut next = pages.start;
    while next < pages.end {
        let mapping = mapping_at(next * PAGE).ok_or(libc::ENOMEM)?;
        let piece = next..pages.end.min(mapping.end / PAGE);
        match mapping.kind {
            // Left by a thread that a forked child does not have.
            Kind::Code => {}
            Kind::Private => {
                // The kernel takes anonymous memory only.
                copy(held, &piece)?;
                create(&piece)?;
            }
            Kind::SharedAnonymous if options::get().unshare => {
                copy(held, &piece)?;
                create(&piece)?;
            }
            Kind::SharedAnonymous | Kind::SharedFile => return Err(libc::EINVAL),
        }
        next = piece.end;
    }
    Ok(())
}

/// The pages are replaced, in one step, by private memory that can be written to and
/// holds the same bytes.
fn copy(_held: &Held, pages: &Range<usize>) -> Result<()> {
    let (address, len) = bytes(pages);
    // SAFETY: the new memory is nobody else's, as long as it is; the pages can be read,
    // and get their own bytes.
    unsafe {
        let new = sys::mmap(0, len, WRITABLE, PRIVATE, -1, 0)?;
        let from = core::ptr::with_exposed_provenance::<u8>(address);
        core::ptr::copy_nonoverlapping(from, core::ptr::with_exposed_provenance_mut(new), len);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        if let Err(error) = sys::mremap(new, len, len, flags, address) {
            let _ = sys::munmap(new, len);
            return Err(error);
        }
    }
    Ok(())
}

/// Code becomes memory that can be written to, with the same bytes.
///
/// # Errors
/// Those of `mmap()` and `mremap()`.
pub fn withdraw(held: &Held, pages: Range<usize>) -> Result<()> {
    let before = table::get(pages.start);
    table::set(pages.clone(), before.changing());
    let result = copy(held, &pages);
    table::set(
        pages.clone(),
        if result.is_ok() {
            before.withdrawn()
        } else {
            before
        },
    );
    if result.is_ok() {
        shared::add(&shared::counts().withdrawn, pages.len());
    }
    result
}

/// Code becomes memory of zeros, for `MADV_DONTNEED`.
///
/// # Errors
/// Those of `mmap()`.
pub fn forget(_held: &Held, pages: Range<usize>, access: Access) -> Result<()> {
    let (address, len) = bytes(&pages);
    let (protection, note) = match access {
        Access::Execute => (libc::PROT_READ, Page::Idle),
        Access::Both => (WRITABLE, Page::Both),
        Access::Write => (WRITABLE, Page::Ordinary),
        Access::Read => (libc::PROT_READ, Page::Ordinary),
        Access::Nothing => (libc::PROT_NONE, Page::Ordinary),
    };
    // SAFETY: the program gives up what is there.
    unsafe { sys::mmap(address, len, protection, PRIVATE | libc::MAP_FIXED, -1, 0)? };
    table::set(pages, note);
    Ok(())
}

/// What is mapped at an address.
fn mapping_at(address: usize) -> Option<Mapping> {
    let mut found = None;
    each_mapping(|line| {
        found =
            maps::mapping(line).filter(|mapping| (mapping.start..mapping.end).contains(&address));
        found.is_none()
    });
    found
}

/// How many mappings of code this process has.
pub fn mappings() -> usize {
    let mut count = 0;
    each_mapping(|line| {
        let is_code = maps::mapping(line).is_some_and(|mapping| mapping.kind == Kind::Code);
        count += usize::from(is_code);
        true
    });
    count
}

/// Shows the lines of `/proc/self/maps`, in order, as long as that is wanted.
pub fn each_mapping(wanted: impl FnMut(&[u8]) -> bool) {
    if let Ok(file) = sys::open(c"/proc/self/maps") {
        let _ = each_line(file, wanted);
        sys::close(file);
    }
}

fn each_line(file: libc::c_int, mut wanted: impl FnMut(&[u8]) -> bool) -> Option<()> {
    // Longer than a line without its path, of which the beginning is enough.
    let mut room = [0; 1024];
    let mut filled = 0;
    loop {
        let read = sys::read(file, room.get_mut(filled..)?).ok()?;
        filled += read;
        let all = room.get(..filled)?;
        let end = all.iter().position(|&byte| byte == b'\n');
        if end.is_none() && filled < room.len() && read > 0 {
            continue;
        }
        let mut rest = all;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            if !wanted(rest.get(..end)?) {
                return None;
            }
            rest = rest.get(end + 1..)?;
        }
        if rest.len() == filled || read == 0 {
            // A path that is too long, or the end.
            return None;
        }
        let kept = rest.len();
        room.copy_within(filled - kept..filled, 0);
        filled = kept;
    }
}

/// An error of this module in words.
pub const fn cause(error: Errno) -> &'static str {
    match error {
        libc::ENOENT => "/dev/jit is not there: load the module (make install-module)",
        libc::EACCES => "a security policy, or the mode of /dev/jit, refuses it",
        libc::EPERM => "/dev is mounted noexec, or the memory is sealed",
        libc::EINVAL => "shared memory can't become code (see --unshare)",
        libc::EDQUOT => {
            "the user's bound on pages or regions (module parameters user_pages, user_regions)"
        }
        libc::ENOMEM => "there is no memory, or no room for more mappings (vm.max_map_count)",
        libc::EMFILE | libc::ENFILE => "there are too many open files",
        libc::ESHUTDOWN => "the administrator has stopped all new code",
        _ => "see jit(4)",
    }
}
