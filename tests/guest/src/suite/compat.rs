// SPDX-License-Identifier: GPL-2.0
//! The calls as a 32-bit program makes them: through `int 0x80`, with all
//! addresses below 4 GiB. The structs are the same.

use std::arch::asm;
use std::os::fd::{AsRawFd, RawFd};

use jitfd_plan::abi::{self, Create, CreateCode};

use super::asm as code;
use super::calls;
use super::execute::answers;
use super::harness::{Test, tests};
use super::memory::{Mapping, load, put_at};
use super::outcome::{Checked, OrFail, Outcome, equal, skipped};
use super::process::in_child;
use super::sys::{self, PAGE};

pub fn tests() -> Vec<Test> {
    tests![region_through_32_bit_calls, code_through_32_bit_calls]
}

/// Memory below 4 GiB.
fn low_memory() -> Checked<Mapping> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
    let addr = sys::mmap(0, PAGE, sys::RW, flags, -1, 0).or_fail("mmap below 4 GiB")?;
    Ok(Mapping::adopt(addr, PAGE))
}

/// ioctl of the 32-bit interface: its result, or minus its errno.
fn ioctl32(fd: RawFd, request: u32, argument: usize) -> i32 {
    const IOCTL: u64 = 54;
    let mut result = IOCTL;
    // SAFETY: the kernel writes only to the argument, which is memory of the
    // test. rbx is given back; r8 to r11 may change.
    unsafe {
        asm!(
            "xchg rbx, {fd}",
            "int 0x80",
            "xchg rbx, {fd}",
            fd = inout(reg) fd as u64 => _,
            inout("rax") result,
            in("rcx") u64::from(request),
            in("rdx") argument as u64,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    result as i32
}

/// Skips the test where the kernel takes no 32-bit calls: `int 0x80` is then a
/// fault, which a child finds out.
fn needs_32_bit_calls() -> Outcome {
    let tried = in_child(|| {
        // Of no descriptor: EBADF.
        equal("ioctl", ioctl32(-1, 0, 0), -libc::EBADF)
    });
    match tried {
        Ok(()) => Ok(()),
        Err(_) => skipped("this kernel takes no 32-bit calls"),
    }
}

fn region_through_32_bit_calls() -> Outcome {
    needs_32_bit_calls()?;
    let memory = low_memory()?;
    let device = calls::open_device()?;
    let argument = Create {
        size: PAGE as u64,
        ..Default::default()
    };
    memory.put(&argument);
    let append = ioctl32(device.as_raw_fd(), abi::JIT_CREATE, memory.addr());
    let map = Mapping::of_file(device.as_raw_fd(), PAGE, sys::RX, 0).or_fail("mmap")?;
    let code = code::answer(5);
    memory.write(1024, &code);
    let segment = abi::Segment {
        source: memory.addr() as u64 + 1024,
        len: code.len() as u64,
        ..Default::default()
    };
    put_at(memory.addr() + 2048, &segment);
    let mut publication = calls::publication(&[segment]);
    publication.segments = memory.addr() as u64 + 2048;
    memory.put(&publication);
    for offset in [0, 6] {
        let result = ioctl32(append, abi::JIT_APPEND, memory.addr());
        equal("the offset", result, offset)?;
        answers("the code", map.addr() + offset as usize, 5)?;
    }
    let result = ioctl32(append, abi::JIT_STATS, memory.addr());
    equal("JIT_STATS", result, 0)?;
    equal("the cursor", load(memory.addr() + 8, 1)[0], 12)
}

fn code_through_32_bit_calls() -> Outcome {
    needs_32_bit_calls()?;
    let memory = low_memory()?;
    let device = calls::open_device()?;
    let code = code::answer(5);
    memory.write(1024, &code);
    let argument = CreateCode {
        source: memory.addr() as u64 + 1024,
        len: code.len() as u64,
        ..Default::default()
    };
    memory.put(&argument);
    let result = ioctl32(device.as_raw_fd(), abi::JIT_CREATE_CODE, memory.addr());
    equal("JIT_CREATE_CODE", result, 0)?;
    let addr = load(memory.addr() + 16, 8);
    let addr = u64::from_ne_bytes(addr.try_into().expect("eight bytes"));
    answers("the code", addr as usize, 5)
}
