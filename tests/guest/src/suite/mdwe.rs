// SPDX-License-Identifier: GPL-2.0
//! Everything works in a process that has given up making memory executable
//! (`PR_SET_MDWE`), where the ordinary ways are refused.

use std::os::fd::AsRawFd;

use jitfd_plan::abi::{self, CreateCode};

use super::asm;
use super::calls;
use super::execute::answers;
use super::harness::{Test, tests};
use super::memory::Mapping;
use super::outcome::{Checked, OrFail, Outcome, refused};
use super::process::in_child;
use super::region::Region;
use super::sys::{self, PAGE, RX};

pub fn tests() -> Vec<Test> {
    tests![
        ordinary_ways_are_refused,
        region_works,
        region_of_before_works,
        created_code_works,
        created_code_replaces_written_pages,
        child_works,
        clone_works,
        moved_mapping_works,
        execution_once_lost_is_lost,
    ]
}

const PR_SET_MDWE: i32 = 65;
const REFUSE_EXEC_GAIN: usize = 1;

fn give_up() -> Outcome {
    sys::prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN).or_fail("PR_SET_MDWE")?;
    Ok(())
}

fn ordinary_ways_are_refused() -> Outcome {
    give_up()?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let result = sys::mmap(0, PAGE, sys::RW | libc::PROT_EXEC, flags, -1, 0);
    refused("mmap W+X", result, libc::EACCES)?;
    let page = Mapping::anonymous(1)?;
    let result = sys::mprotect(page.addr(), PAGE, RX);
    refused("mprotect W to X", result, libc::EACCES)
}

/// Publishes and runs some functions, across pages.
fn works(region: &Region) -> Outcome {
    for value in 0..900 {
        let offset = region.append(&asm::answer(value))?;
        region.answers(offset, value)?;
    }
    let hole = calls::reserve(region.fd(), 100, 4).or_fail("JIT_RESERVE")?;
    region.fill(hole, &asm::answer(5))?;
    region.answers(hole, 5)
}

fn region_works() -> Outcome {
    give_up()?;
    works(&Region::new(4)?)
}

fn region_of_before_works() -> Outcome {
    let region = Region::new(4)?;
    region.append(&asm::answer(1))?;
    give_up()?;
    works(&region)
}

/// Creates code, in place of what is at `addr` unless that is 0.
fn create(code: &[u8], addr: usize) -> Checked<usize> {
    let device = calls::open_device()?;
    let mut argument = CreateCode {
        source: code.as_ptr().addr() as u64,
        len: code.len() as u64,
        addr: addr as u64,
        flags: if addr == 0 { 0 } else { abi::CREATE_CODE_FIXED },
        ..Default::default()
    };
    calls::create_code(device.as_raw_fd(), &mut argument).or_fail("JIT_CREATE_CODE")?;
    Ok(argument.addr as usize)
}

fn created_code_works() -> Outcome {
    give_up()?;
    let addr = create(&asm::long_answer(4, 3 * PAGE), 0)?;
    answers("the code", addr, 4)
}

/// In place of pages that were written before: none is ever both.
fn created_code_replaces_written_pages() -> Outcome {
    give_up()?;
    let pages = Mapping::anonymous(2)?;
    pages.write(0, &[0xf4; 2 * PAGE]);
    create(&asm::long_answer(4, PAGE + 10), pages.addr())?;
    answers("the code", pages.addr(), 4)
}

fn child_works() -> Outcome {
    give_up()?;
    let region = Region::new(2)?;
    let offset = region.append(&asm::answer(3))?;
    in_child(|| {
        region.answers(offset, 3)?;
        works(&Region::new(4)?)
    })
}

fn clone_works() -> Outcome {
    give_up()?;
    let region = Region::new(4)?;
    region.append(&asm::answer(3))?;
    let device = calls::open_device()?;
    let argument = abi::CloneFrom {
        source_fd: region.device.as_raw_fd(),
        ..Default::default()
    };
    let append = calls::clone_region(device.as_raw_fd(), &argument).or_fail("JIT_CLONE")?;
    let map = Mapping::of_file(device.as_raw_fd(), 4 * PAGE, RX, 0).or_fail("mmap")?;
    works(&Region {
        device,
        append,
        map,
    })
}

fn moved_mapping_works() -> Outcome {
    give_up()?;
    let region = Region::new(1)?;
    let offset = region.append(&asm::answer(3))?;
    region.answers(offset, 3)?;
    let target = Mapping::anonymous(1)?;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    sys::mremap(region.at(0), PAGE, PAGE, flags, target.addr()).or_fail("mremap")?;
    answers("after the move", target.addr(), 3)
}

/// The flag forbids to gain the right to execute, for code too.
fn execution_once_lost_is_lost() -> Outcome {
    let region = Region::new(1)?;
    let offset = region.append(&asm::answer(3))?;
    give_up()?;
    sys::mprotect(region.at(0), PAGE, RX).or_fail("mprotect to the same")?;
    region.answers(offset, 3)?;
    sys::mprotect(region.at(0), PAGE, libc::PROT_READ).or_fail("mprotect READ")?;
    let result = sys::mprotect(region.at(0), PAGE, RX);
    refused("mprotect READ|EXEC", result, libc::EACCES)?;
    let again = Mapping::of_file(region.device.as_raw_fd(), PAGE, RX, 0).or_fail("mmap")?;
    answers("a new mapping", again.addr() + offset as usize, 3)
}
