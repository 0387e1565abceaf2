// SPDX-License-Identifier: GPL-2.0
//! Probes of the kernel (uprobes) on other code of the same process. They claim
//! every int3 of such a process, so the #BP fixup must come before them.

use std::arch::global_asm;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::asm;
use super::execute::breaks_at;
use super::harness::{Test, tests};
use super::memory::{Mapping, load};
use super::outcome::{Checked, OrFail, Outcome, equal, failed, holds, skipped};
use super::race::{Shared, append_identity, had_fixups, with_executors};
use super::region::Region;
use super::sys;

pub fn tests() -> Vec<Test> {
    tests![
        probe_counts,
        stale_traps_are_resumed_beside_a_probe,
        int3_is_sigtrap_beside_a_probe,
        no_probe_on_the_device,
    ]
}

global_asm!(
    ".global jit_suite_probed",
    "jit_suite_probed:",
    "mov eax, 1",
    "ret",
);

unsafe extern "C" {
    fn jit_suite_probed() -> u32;
}

fn probed() -> u32 {
    // SAFETY: the function above: no arguments, no effects.
    unsafe { jit_suite_probed() }
}

/// Where in the program's file `addr` is.
fn file_offset(addr: usize) -> Checked<usize> {
    let maps = fs::read_to_string("/proc/self/maps").or_fail("read the mappings")?;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), _, Some(offset)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let hex = |text: &str| usize::from_str_radix(text, 16).ok();
        let (start, end) = range.split_once('-').or_fail("a range")?;
        let (start, end) = (hex(start).or_fail("start")?, hex(end).or_fail("end")?);
        if (start..end).contains(&addr) {
            return Ok(addr - start + hex(offset).or_fail("offset")?);
        }
    }
    failed("the function is in no mapping")
}

const TYPE: &str = "/sys/bus/event_source/devices/uprobe/type";
/// `struct perf_event_attr` up to `config2`.
const ATTRIBUTES: usize = 72;
/// Also count in threads that are started later.
const INHERIT: u64 = 1 << 1;

/// perf_event_open(2) of a probe at an offset of a file.
fn open_probe(path: &str, offset: usize) -> Checked<std::io::Result<OwnedFd>> {
    let Ok(kind) = fs::read_to_string(TYPE) else {
        return skipped("this kernel has no uprobes");
    };
    let kind: u64 = kind.trim().parse().ok().or_fail("the type of uprobes")?;
    // Never freed: the kernel reads the path again for each new thread.
    let path = CString::new(path).ok().or_fail("a path")?.into_raw();
    let mut attributes = [0u64; ATTRIBUTES / 8];
    attributes[0] = kind | (ATTRIBUTES as u64) << 32;
    attributes[5] = INHERIT;
    attributes[7] = path.expose_provenance() as u64;
    attributes[8] = offset as u64;
    let every_cpu = usize::MAX;
    let no_group = usize::MAX;
    let arguments = [
        attributes.as_ptr().expose_provenance(),
        0,
        every_cpu,
        no_group,
        0,
        0,
    ];
    let fd = sys::syscall(libc::SYS_perf_event_open, arguments);
    // SAFETY: the kernel has just given this descriptor to us.
    Ok(fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}

/// A probe on [`probed`].
fn probe() -> Checked<OwnedFd> {
    probe_in_file().map(|(probe, ..)| probe)
}

/// A probe on a function that returns 1; the program's file, and where in it the
/// function is.
pub fn probe_in_file() -> Checked<(OwnedFd, File, usize)> {
    let function = jit_suite_probed as unsafe extern "C" fn() -> u32;
    let path = fs::read_link("/proc/self/exe").or_fail("the program's path")?;
    let offset = file_offset(function as usize)?;
    let probe = open_probe(&path.to_string_lossy(), offset)?.or_fail("perf_event_open")?;
    let file = File::open(path).or_fail("open the program")?;
    Ok((probe, file, offset))
}

/// How often it was hit.
pub fn hits(probe: &OwnedFd) -> Checked<u64> {
    let page = Mapping::anonymous(1)?;
    sys::read_to(probe.as_raw_fd(), page.addr(), 8).or_fail("read the count")?;
    let bytes = load(page.addr(), 8);
    Ok(u64::from_ne_bytes(bytes.try_into().expect("eight bytes")))
}

fn probe_counts() -> Outcome {
    let probe = probe()?;
    for _ in 0..10 {
        equal("the probed function", probed(), 1)?;
    }
    equal("hits", hits(&probe)?, 10)
}

fn stale_traps_are_resumed_beside_a_probe() -> Outcome {
    let probe = probe()?;
    let region = Region::new(8)?;
    let shared = Shared::new()?;
    let board = shared.board();
    let base = |_, offset| {
        probed();
        region.at(offset)
    };
    with_executors(1, board, base, || {
        for _ in 0..1000 {
            board.announce(append_identity(&region)?, 1)?;
        }
        Ok(())
    })?;
    holds(hits(&probe)? >= 1000, "the probe was hit")?;
    had_fixups(&region)
}

fn int3_is_sigtrap_beside_a_probe() -> Outcome {
    let _probe = probe()?;
    let region = Region::new(1)?;
    for value in 0..20 {
        equal("the probed function", probed(), 1)?;
        let offset = region.append(&asm::breakpoint_then(value))?;
        let addr = region.at(offset);
        breaks_at("int3", addr, addr + 1)?;
        region.answers(offset + 1, value)?;
        let fill = region.at(region.stats()?.cursor);
        breaks_at("the fill", fill, fill + 1)?;
    }
    Ok(())
}

/// A probe would write a breakpoint into code.
fn no_probe_on_the_device() -> Outcome {
    let region = Region::new(1)?;
    region.append(&asm::answer(1))?;
    region.answers(0, 1)?;
    region.unchanged_by(|| {
        let result = open_probe("/dev/jit", 0)?;
        holds(result.is_err(), "a probe on /dev/jit was accepted")
    })
}
