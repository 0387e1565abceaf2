// SPDX-License-Identifier: GPL-2.0
//! Compares what can be seen with what the model says: by loads, stores,
//! execution, as a debugger, and in `/proc`.

use std::arch::global_asm;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use jitfd_plan::abi;

use super::arena::{Cell, Mapped};
use super::call::{ARENA, Look};
use super::kernel::{Kernel, address, page_address};
use super::region::{FUNCTION, Function, Region};
use super::world::World;
use crate::suite::execute::{Trap, guarded};
use crate::suite::outcome::{Checked, OrFail, Outcome, equal, failed, holds};
use crate::suite::sys::PAGE;

/// Fails unless what is seen is what the model says.
pub fn look(world: &World, kernel: &Kernel, look: Look) -> Outcome {
    match look {
        Look::Load { page } => load(world, page),
        Look::Store { page } => store(page),
        Look::Debugger { page } => debugger(world, kernel, page),
        Look::Run { page, offset } => run(world, page, offset),
        Look::Mappings => mappings(world),
        Look::Info { slot } => info(world, kernel, slot),
    }
}

/// What an access must come to.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Signal(i32),
    Works,
    /// It depends on the CPU.
    Unknown,
}

/// What a load from the page must come to.
fn expected_load(world: &World, cell: Cell) -> Expected {
    let prot = match cell {
        Cell::Hole => return Expected::Signal(libc::SIGSEGV),
        Cell::Memory { prot, .. } => prot,
        Cell::Code(mapped) => mapped.prot,
    };
    if prot == libc::PROT_EXEC {
        // With protection keys the kernel makes this unreadable.
        return Expected::Unknown;
    }
    match cell {
        _ if prot & libc::PROT_READ == 0 => Expected::Signal(libc::SIGSEGV),
        Cell::Code(Mapped { region, page, .. }) if !world.regions[region].live[page] => {
            Expected::Signal(libc::SIGBUS)
        }
        _ => Expected::Works,
    }
}

fn load(world: &World, page: usize) -> Outcome {
    let cell = world.arena.cells[page];
    let mut seen = vec![0u8; PAGE];
    let expected = expected_load(world, cell);
    if expected == Expected::Unknown {
        return Ok(());
    }
    let trap = copy(
        page_address(page),
        seen.as_mut_ptr().expose_provenance(),
        PAGE,
    )?;
    let what = format!("a load from page {page}, {cell:?}");
    came_to(&what, trap, &expected)?;
    match (expected, cell) {
        (Expected::Works, Cell::Memory { byte, .. }) => {
            equal(&what, seen.iter().all(|&is| is == byte), true)
        }
        (Expected::Works, Cell::Code(mapped)) => same(
            &what,
            &seen,
            &world.regions[mapped.region],
            mapped.page,
            true,
        ),
        _ => Ok(()),
    }
}

/// Fails unless `seen` is a page of the region; where a load may see an old
/// page, 0xCC is right too.
fn same(what: &str, seen: &[u8], region: &Region, page: usize, old: bool) -> Outcome {
    let from = page * PAGE;
    let wanted = &region.bytes[from..from + PAGE];
    if seen == wanted {
        return Ok(());
    }
    let soft = &region.soft[from..from + PAGE];
    for (at, &byte) in seen.iter().enumerate() {
        if byte != wanted[at] && !(old && soft[at] && byte == abi::FILL) {
            let (byte, wanted) = (byte, wanted[at]);
            return failed(format!("{what}: {byte:#x}, not {wanted:#x}, at {at:#x}"));
        }
    }
    Ok(())
}

fn came_to(what: &str, trap: Option<Trap>, expected: &Expected) -> Outcome {
    let got = trap.map(|trap| trap.signal);
    match *expected {
        Expected::Unknown => Ok(()),
        Expected::Works => equal(what, got, None),
        Expected::Signal(signal) => equal(what, got, Some(signal)),
    }
}

/// No store to code, whatever its protection.
fn store(page: usize) -> Outcome {
    static BYTE: u8 = 0x41;
    let trap = copy((&raw const BYTE).expose_provenance(), page_address(page), 1)?;
    let what = format!("a store to page {page}");
    came_to(&what, trap, &Expected::Signal(libc::SIGSEGV))
}

fn debugger(world: &World, kernel: &Kernel, page: usize) -> Outcome {
    let mut seen = vec![0u8; PAGE];
    let result = kernel
        .memory()
        .read_exact_at(&mut seen, page_address(page) as u64);
    let cell = world.arena.cells[page];
    let what = format!("/proc/self/mem of page {page}, {cell:?}");
    match cell {
        Cell::Hole => equal(&what, result.is_err(), true),
        // The kernel may refuse this, or not.
        Cell::Memory { prot, .. } if prot & libc::PROT_READ == 0 => Ok(()),
        Cell::Memory { byte, .. } => {
            result.or_fail(&what)?;
            equal(&what, seen.iter().all(|&is| is == byte), true)
        }
        Cell::Code(mapped) => {
            result.or_fail(&what)?;
            let region = &world.regions[mapped.region];
            same(&what, &seen, region, mapped.page, false)
        }
    }
}

fn run(world: &World, page: usize, offset: usize) -> Outcome {
    let addr = address(page * PAGE + offset);
    let cell = world.arena.cells[page];
    let what = format!("executing {offset:#x} of page {page}, {cell:?}");
    if is_executable_memory(cell) {
        return Ok(());
    }
    let Cell::Code(mapped) = cell else {
        return came_to(
            &what,
            guarded(addr)?.err(),
            &Expected::Signal(libc::SIGSEGV),
        );
    };
    let region = &world.regions[mapped.region];
    if let Some(signal) = refuses_execution(region, mapped) {
        return came_to(&what, guarded(addr)?.err(), &Expected::Signal(signal));
    }
    let at = mapped.page * PAGE + offset;
    if region.bytes[at] == abi::FILL {
        let trap = guarded(addr)?.err().map(|trap| (trap.signal, trap.ip));
        return equal(&what, trap, Some((libc::SIGTRAP, addr + 1)));
    }
    match region
        .functions
        .iter()
        .find(|function| function.offset == at)
    {
        Some(function) if is_runnable(world, page, *function) => {
            equal(&what, guarded(addr)?, Ok(u64::from(function.answer)))
        }
        _ => Ok(()),
    }
}

/// Memory of the program's own, made executable: anything may happen there.
fn is_executable_memory(cell: Cell) -> bool {
    matches!(cell, Cell::Memory { prot, .. } if prot & libc::PROT_EXEC != 0)
}

/// The signal that any execution on the page raises. That nothing is published is
/// found out before that execution is forbidden.
fn refuses_execution(region: &Region, mapped: Mapped) -> Option<i32> {
    match mapped.prot {
        libc::PROT_NONE => Some(libc::SIGSEGV),
        _ if !region.live[mapped.page] => Some(libc::SIGBUS),
        prot if prot & libc::PROT_EXEC == 0 => Some(libc::SIGSEGV),
        _ => None,
    }
}

/// Whether all of a function that starts on the page is there, and whole.
fn is_runnable(world: &World, page: usize, function: Function) -> bool {
    let Cell::Code(mapped) = world.arena.cells[page] else {
        return false;
    };
    let last = (function.offset + FUNCTION - 1) / PAGE;
    let there = last == mapped.page
        || match world.arena.cells.get(page + 1) {
            Some(Cell::Code(next)) => {
                next.region == mapped.region
                    && next.page == last
                    && next.prot & libc::PROT_EXEC != 0
            }
            _ => false,
        };
    there && world.regions[mapped.region].is_whole(function)
}

/// The lines of `/proc/self/maps` of the arena that are code.
fn mappings(world: &World) -> Outcome {
    let text = fs::read_to_string("/proc/self/maps").or_fail("read the mappings")?;
    let arena = page_address(0)..page_address(ARENA);
    let lines = text.lines().filter(|line| line.ends_with("/dev/jit"));
    let seen: Vec<Line> = lines
        .filter_map(Line::parse)
        .filter(|line| arena.contains(&line.start))
        .collect();
    let wanted: Vec<Line> = world.arena.areas().iter().map(Line::of).collect();
    holds(seen.len() == wanted.len(), "as many mappings")
        .and_then(|()| {
            let created = |mapped: Mapped| world.regions[mapped.region].created;
            let areas = world.arena.areas();
            let pairs = seen.iter().zip(&wanted).zip(&areas);
            holds(
                pairs
                    .into_iter()
                    .all(|((seen, wanted), area)| seen.is(wanted, created(area.2))),
                "the same mappings",
            )
        })
        .or_else(|_| failed(format!("mappings {seen:x?}, wanted {wanted:x?}")))
}

/// What a line of `/proc/self/maps` says.
#[derive(Debug)]
struct Line {
    start: usize,
    end: usize,
    access: String,
    offset: usize,
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let access = words.next()?.to_owned();
        Some(Line {
            start: usize::from_str_radix(start, 16).ok()?,
            end: usize::from_str_radix(end, 16).ok()?,
            access,
            offset: usize::from_str_radix(words.next()?, 16).ok()?,
        })
    }

    fn of(&(page, pages, mapped): &(usize, usize, Mapped)) -> Self {
        let letter = |bit, letter| if mapped.prot & bit != 0 { letter } else { '-' };
        Line {
            start: page_address(page),
            end: page_address(page + pages),
            access: [
                letter(libc::PROT_READ, 'r'),
                '-',
                letter(libc::PROT_EXEC, 'x'),
                's',
            ]
            .iter()
            .collect(),
            offset: mapped.page * PAGE,
        }
    }

    /// Where userspace does not know a code's offset, that is not compared.
    fn is(&self, wanted: &Line, any_offset: bool) -> bool {
        (self.start, self.end, &self.access) == (wanted.start, wanted.end, &wanted.access)
            && (any_offset || self.offset == wanted.offset)
    }
}

/// The counters in fdinfo; none where there is no region.
fn info(world: &World, kernel: &Kernel, slot: usize) -> Outcome {
    let path = format!("/proc/self/fdinfo/{}", kernel.fd(slot));
    let text = fs::read_to_string(path).or_fail("read fdinfo")?;
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    let Ok(region) = world.shown(slot) else {
        return equal("a capacity in fdinfo", value("jit-capacity:"), None);
    };
    let stats = world.regions[region].stats();
    equal("fdinfo's cursor", value("jit-cursor:"), Some(stats.cursor))?;
    equal("fdinfo's seal", value("jit-sealed:"), Some(stats.sealed))?;
    equal("fdinfo's bytes", value("jit-bytes:"), Some(stats.bytes))
}

/// What [`copy`] is to do: from, to, how much.
static ORDER: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

global_asm!(
    ".global jit_fuzz_copy",
    "jit_fuzz_copy:",
    "lea rax, [rip + {order}]",
    "mov rsi, [rax]",
    "mov rdi, [rax + 8]",
    "mov rcx, [rax + 16]",
    "rep movsb",
    "xor eax, eax",
    "ret",
    order = sym ORDER,
);

unsafe extern "C" {
    fn jit_fuzz_copy();
}

/// Copies memory by loads and stores. Returns the signal that this raises. What
/// is not a source or target of the test's own must be its arena.
fn copy(from: usize, to: usize, len: usize) -> Checked<Option<Trap>> {
    for (word, value) in ORDER.iter().zip([from, to, len]) {
        word.store(value, Relaxed);
    }
    let code = jit_fuzz_copy as unsafe extern "C" fn();
    Ok(guarded(code as usize)?.err())
}
