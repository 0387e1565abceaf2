// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `mmap()`, `mprotect()` and the like do here. Each returns what the kernel would.

use core::ops::Range;

use libc::c_int;

use crate::code;
use crate::page::{Access, Cure, Fault, Page, Step, parts};
use crate::shared::{self, Held};
use crate::sys::{self, PAGE, Result};
use crate::{caller, fault, options, table};

const WRITE_AND_EXECUTE: c_int = libc::PROT_WRITE | libc::PROT_EXEC;
const USUAL: c_int = libc::PROT_READ | WRITE_AND_EXECUTE;

fn pages(address: usize, len: usize) -> Range<usize> {
    let first = address / PAGE;
    first..first.saturating_add(len.div_ceil(PAGE))
}

/// Whether pages of this range are none of the library's business; also if it is none.
fn is_ordinary(address: usize, len: usize) -> bool {
    !sys::is_aligned(address, len) || !table::any(pages(address, len))
}

const fn access(protection: c_int) -> Access {
    if protection & WRITE_AND_EXECUTE == WRITE_AND_EXECUTE {
        Access::Both
    } else if protection & libc::PROT_EXEC != 0 {
        Access::Execute
    } else if protection & libc::PROT_WRITE != 0 {
        Access::Write
    } else if protection & libc::PROT_READ != 0 {
        Access::Read
    } else {
        Access::Nothing
    }
}

/// What the kernel is asked for: never for writing and executing at once.
const fn kernels(protection: c_int) -> c_int {
    match access(protection) {
        Access::Both => protection & !libc::PROT_EXEC,
        _ => protection,
    }
}

/// What is noted about pages that the kernel has given this protection.
const fn note(access: Access) -> Page {
    match access {
        Access::Both => Page::Both,
        _ => Page::Ordinary,
    }
}

/// Writable and executable memory is refused as `PR_SET_MDWE` does it, unless it was
/// asked for (`--faults`), and `is_own`: it is this process's alone. All that could become
/// code is refused to who may not ask (`--only`).
fn check(protection: c_int, is_own: bool, asker: usize) -> Result<()> {
    let options = options::get();
    let is_granted = match access(protection) {
        Access::Both if !(options.faults && (is_own || options.unshare)) => false,
        Access::Both | Access::Execute => is_allowed(asker),
        _ => true,
    };
    if !is_granted {
        shared::add(&shared::counts().refusals, 1);
        return Err(libc::EACCES);
    }
    Ok(())
}

fn is_allowed(asker: usize) -> bool {
    let may_ask = caller::may_ask(asker);
    if !may_ask {
        options::say_not_named(asker);
    }
    may_ask
}

/// `asker` is where the call comes from.
///
/// # Safety
/// As `mmap()`.
pub unsafe fn mmap(
    asker: usize,
    address: usize,
    len: usize,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: usize,
) -> Result {
    let is_file = flags & libc::MAP_ANONYMOUS == 0;
    // Libraries are mapped so.
    if !is_file || access(protection) != Access::Execute {
        check(
            protection,
            flags & libc::MAP_TYPE == libc::MAP_PRIVATE,
            asker,
        )?;
    }
    // SAFETY: as promised by the caller.
    let map = || unsafe { sys::mmap(address, len, kernels(protection), flags, file, offset) };
    if access(protection) == Access::Both {
        let held = shared::lock();
        return note_both(&held, map()?, len);
    }
    if flags & libc::MAP_FIXED == 0 || is_ordinary(address, len) {
        let mapped = map()?;
        // Where something was unmapped without this library's knowledge.
        if !is_ordinary(mapped, len) {
            let _held = shared::lock();
            table::set(pages(mapped, len), Page::Ordinary);
        }
        return Ok(mapped);
    }
    let _held = shared::lock();
    let mapped = map()?;
    table::set(pages(mapped, len), Page::Ordinary);
    Ok(mapped)
}

/// New memory that is to be written to and executed. If that can't be noted, there is
/// none.
fn note_both(held: &Held, mapped: usize, len: usize) -> Result {
    fault::handle(held);
    if let Err(error) = table::prepare(pages(mapped, len)) {
        // SAFETY: nobody uses it yet.
        let _ = unsafe { sys::munmap(mapped, len) };
        return Err(error);
    }
    table::set(pages(mapped, len), Page::Both);
    Ok(mapped)
}

/// # Safety
/// As `munmap()`.
pub unsafe fn munmap(address: usize, len: usize) -> Result {
    if is_ordinary(address, len) {
        // SAFETY: as promised by the caller.
        return unsafe { sys::munmap(address, len) };
    }
    let _held = shared::lock();
    // SAFETY: as promised by the caller.
    let result = unsafe { sys::munmap(address, len)? };
    table::set(pages(address, len), Page::Ordinary);
    Ok(result)
}

/// # Safety
/// As `mremap()`.
pub unsafe fn mremap(old: usize, old_len: usize, len: usize, flags: c_int, new: usize) -> Result {
    // SAFETY: as promised by the caller.
    let remap = || unsafe { sys::mremap(old, old_len, len, flags, new) };
    let fixed = flags & libc::MREMAP_FIXED != 0;
    if is_ordinary(old, old_len) && (!fixed || is_ordinary(new, len)) {
        return remap();
    }
    let _held = shared::lock();
    let mapped = remap()?;
    let (from, to) = (pages(old, old_len), pages(mapped, len));
    let last = table::get(from.end.saturating_sub(1));
    if mapped == old {
        table::set(from.start.max(to.end)..from.end, Page::Ordinary);
    } else {
        // They do not overlap: the kernel refuses that.
        table::set(to.clone(), Page::Ordinary);
        if table::prepare(to.clone()).is_ok() {
            for (from, to) in from.clone().zip(to.clone()) {
                table::set(to..to + 1, table::get(from));
            }
        }
        table::set(from.clone(), Page::Ordinary);
    }
    // What was added is as the page before it.
    let added = to.start.saturating_add(from.len()).min(to.end)..to.end;
    if last == Page::Both && table::prepare(added.clone()).is_ok() {
        table::set(added, Page::Both);
    }
    Ok(mapped)
}

/// # Safety
/// As `madvise()`.
pub unsafe fn madvise(address: usize, len: usize, advice: c_int) -> Result {
    // SAFETY: as promised by the caller.
    let advise = |address, len| unsafe { sys::madvise(address, len, advice) };
    if is_ordinary(address, len) {
        return advise(address, len);
    }
    let held = shared::lock();
    for (part, page) in parts(pages(address, len), table::get) {
        match (page, advice) {
            (Page::Code(access), libc::MADV_DONTNEED | libc::MADV_FREE) => {
                code::forget(&held, part, access)?;
            }
            // Their other kinds are about memory that can be reclaimed, which code can't.
            (Page::Code(_), _) => {}
            _ => drop(advise(part.start * PAGE, part.len() * PAGE)?),
        }
    }
    Ok(0)
}

/// `asker` is where the call comes from.
///
/// # Safety
/// As `mprotect()`.
pub unsafe fn mprotect(asker: usize, address: usize, len: usize, protection: c_int) -> Result {
    check(protection, true, asker)?;
    // SAFETY: as promised by the caller.
    let protect = |address, len, protection| unsafe { sys::mprotect(address, len, protection) };
    let is_plain = protection & !USUAL == 0 && sys::is_aligned(address, len);
    let wanted = access(protection);
    let is_both = is_plain && wanted == Access::Both;
    if !is_both && (!is_plain || is_ordinary(address, len)) {
        match protect(address, len, protection) {
            Err(libc::EACCES | libc::EPERM) if is_plain && wanted == Access::Execute => {}
            result => return result,
        }
    }
    let held = shared::lock();
    if is_both {
        fault::handle(&held);
        table::prepare(pages(address, len))?;
    }
    for (part, step) in parts(pages(address, len), |page| table::get(page).request(wanted)) {
        if step == Step::WithdrawAndProtect {
            code::withdraw(&held, part.clone())?;
        }
        match step {
            Step::Note(page) => table::set(part, page),
            Step::Publish => publish_touched(&held, part)?,
            Step::Protect | Step::WithdrawAndProtect => {
                protect(part.start * PAGE, part.len() * PAGE, kernels(protection))?;
                table::set(part, note(wanted));
            }
        }
    }
    Ok(0)
}

/// Code that the program may write to becomes writable, where these bytes lie. Whether
/// there was any.
pub fn make_writable(address: usize, len: usize) -> bool {
    // No call transfers more.
    const MOST: usize = 0x7fff_f000;
    let len = len.min(MOST);
    let last = address.saturating_add(len).div_ceil(PAGE);
    let all = address / PAGE..last;
    if len == 0 || !table::any(all.clone()) {
        return false;
    }
    let held = shared::lock();
    let mut any = false;
    for (part, page) in parts(all, table::get) {
        if page.fault(Fault::Write) == Some(Cure::Withdraw) {
            any |= code::withdraw(&held, part).is_ok();
        }
    }
    any
}

/// Ordinary memory becomes code; what is not in memory, and so was hardly ever touched,
/// is only noted.
fn publish_touched(held: &Held, all: Range<usize>) -> Result<()> {
    const AT_ONCE: usize = 1024;
    fault::handle(held);
    table::prepare(all.clone())?;
    let mut resident = [0; AT_ONCE];
    let mut next = all.start;
    while next < all.end {
        let some = next..all.end.min(next + AT_ONCE);
        let bytes = resident.get_mut(..some.len()).unwrap_or_default();
        let known = sys::mincore(some.start * PAGE, bytes);
        if known == Err(libc::ENOMEM) {
            return Err(libc::ENOMEM);
        }
        let is_touched = |page: usize| {
            known.is_err()
                || resident
                    .get(page - some.start)
                    .is_none_or(|byte| byte & 1 != 0)
        };
        for (part, touched) in parts(some.clone(), is_touched) {
            if touched {
                code::publish(held, part, Access::Execute)?;
                continue;
            }
            // SAFETY: the program has asked that it be not writable.
            unsafe { sys::mprotect(part.start * PAGE, part.len() * PAGE, libc::PROT_READ)? };
            table::set(part, Page::Idle);
        }
        next = some.end;
    }
    Ok(())
}
