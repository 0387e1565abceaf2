// SPDX-License-Identifier: GPL-2.0
//! The process of these tests has given up making memory executable.

use crate::suite::harness::{Test, tests};
use crate::suite::outcome::{OrFail, Outcome, holds, refused};
use crate::suite::sys;
use jitfd::{Backend, Error, Fallback, Jit, Kind, Register};
use jitfd_trampoline::Table;

pub fn tests() -> Vec<Test> {
    tests![ordinary_ways_are_refused, flips_are_refused]
}

const PR_SET_MDWE: i32 = 65;
const REFUSE_EXEC_GAIN: usize = 1;

/// For this process and all that it starts.
pub fn harden() -> std::io::Result<()> {
    sys::prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN).map(drop)
}

const PAGE: usize = 4096;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

fn ordinary_ways_are_refused() -> Outcome {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let both = sys::mmap(0, PAGE, RW | libc::PROT_EXEC, flags, -1, 0);
    refused("mmap W+X", both, libc::EACCES)?;
    let page = sys::mmap(0, PAGE, RW, flags, -1, 0).or_fail("mmap")?;
    let turned = sys::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_EXEC);
    refused("mprotect W to X", turned, libc::EACCES)
}

fn flips_are_refused() -> Outcome {
    let flips = Jit::open(Fallback::Only(Backend::ProtectFlips));
    let made = flips.and_then(|jit| Table::create(&jit, Register::Rdi));
    let why = made.map(drop).err();
    let is_refusal = why.as_ref().and_then(Error::kind) == Some(Kind::Refused);
    holds(is_refusal, format!("flips: {why:?}"))
}
