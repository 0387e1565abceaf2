// SPDX-License-Identifier: GPL-2.0
//! What the module refuses, and that nothing but executing a trampoline from its
//! start is an invocation.

use std::io;
use std::os::fd::AsRawFd;

use jitfd_peers::probe::{State, WORDS, probe, witness};
use jitfd_peers::{Blank, Description, Entry, Kernel, NAMES, RSP, Trampoline, UNUSED_CALL};

use crate::suite::harness::{self, Test};
use crate::suite::outcome::{Checked, OrFail, Outcome, equal, holds, refused};
use crate::suite::sys;

pub(super) fn tests() -> Vec<Test> {
    harness::tests![
        contexts_are_checked,
        mappings_are_checked,
        a_mapped_context_is_not_changed,
        a_fault_at_other_addresses_kills,
        data_access_kills,
        the_kernel_reads_nothing,
        permissions_cannot_be_changed,
        without_a_stack_it_is_killed,
        the_number_is_unused_elsewhere,
        moved_and_forked,
        code_of_the_call_can_be_read,
    ]
}

const REGS: i64 = 0;
const STACK: i64 = 4096;
const RIP: u64 = 16;

fn blank() -> Checked<Blank> {
    let kernel = Kernel::open().or_fail("/dev/trampfd")?;
    kernel.create().or_fail("a trampoline")
}

fn made(what: &Description, entry: Entry) -> Checked<Trampoline> {
    let kernel = Kernel::open().or_fail("/dev/trampfd")?;
    kernel.trampoline(what, entry).or_fail("a trampoline")
}

fn plain(entry: Entry) -> Checked<Trampoline> {
    made(&Description::to(witness()), entry)
}

fn contexts_are_checked() -> Outcome {
    let blank = blank()?;
    let regs = |words: &[u64]| blank.write(REGS, words);
    refused("no such register", regs(&[17, 0]), libc::EINVAL)?;
    refused("rsp", regs(&[RSP as u64, 0]), libc::EINVAL)?;
    refused("reserved", regs(&[1 << 32, 0]), libc::EINVAL)?;
    refused("twice", regs(&[1, 0, 1, 0]), libc::EINVAL)?;
    refused("half", regs(&[1]), libc::EINVAL)?;
    refused("kernel address", regs(&[RIP, 1 << 63]), libc::EINVAL)?;
    refused("not canonical", regs(&[RIP, 1 << 56]), libc::EINVAL)?;
    refused("nine values", blank.write(STACK, &[0; 9]), libc::EINVAL)?;
    refused("elsewhere", blank.write(8, &[0; 2]), libc::EINVAL)?;
    refused("many", regs(&[0; 36]), libc::EINVAL)?;
    regs(&[RIP, 0x1000]).or_fail("the program counter")?;
    blank.write(STACK, &[0; 8]).or_fail("eight values")
}

fn map(blank: &Blank, len: usize, prot: i32, offset: usize) -> io::Result<usize> {
    sys::mmap(0, len, prot, libc::MAP_SHARED, blank.0.as_raw_fd(), offset)
}

fn mappings_are_checked() -> Outcome {
    let blank = blank()?;
    refused("no target", map(&blank, 4096, 0, 0), libc::EINVAL)?;
    blank.write(REGS, &[RIP, 0x1000]).or_fail("a target")?;
    refused("two pages", map(&blank, 8192, 0, 0), libc::EINVAL)?;
    refused("an offset", map(&blank, 4096, 0, 4096), libc::EINVAL)?;
    for prot in [libc::PROT_WRITE, sys::RW] {
        let result = map(&blank, 4096, prot, 0);
        refused("another protection", result, libc::EOPNOTSUPP)?;
    }
    map(&blank, 4096, 0, 0).or_fail("a trampoline")?;
    map(&blank, 4096, libc::PROT_READ, 0)
        .or_fail("the other form")
        .map(drop)
}

fn a_mapped_context_is_not_changed() -> Outcome {
    let blank = blank()?;
    blank.write(REGS, &[RIP, 0x1000]).or_fail("a target")?;
    blank.map(Entry::PageFault).or_fail("a mapping")?;
    let result = blank.write(REGS, &[RIP, 0x2000]);
    refused("registers", result, libc::EBUSY)?;
    refused("a stack", blank.write(STACK, &[1]), libc::EBUSY)
}

/// The signal that ends a child which does `what`.
fn killed_by(what: impl FnOnce()) -> Checked<Option<i32>> {
    let child = sys::fork().or_fail("a process")?;
    if child == 0 {
        what();
        sys::exit(0);
    }
    let status = sys::wait(child).or_fail("its end")?;
    Ok(libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)))
}

fn start() -> State {
    State {
        registers: [0; NAMES],
        vectors: [0; 8],
        stack: [0; WORDS],
    }
}

/// Whether a call of `code`, in a process of its own, ends in SIGSEGV.
fn dies(what: &str, code: usize, from: State) -> Outcome {
    let signal = killed_by(|| {
        // SAFETY: It goes to the witness or ends the process.
        unsafe { probe(code, &from) };
    });
    equal(what, signal?, Some(libc::SIGSEGV))
}

fn a_fault_at_other_addresses_kills() -> Outcome {
    let code = plain(Entry::PageFault)?;
    for offset in [1, 16, 2048, 4095] {
        dies("an address inside", code.code() + offset, start())?;
    }
    // A page of nops and then the trampoline: the program counter is right there.
    let pages = sys::mmap(
        0,
        8192,
        sys::RW,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        -1,
        0,
    );
    let pages = pages.or_fail("pages")?;
    // SAFETY: The first page is this test's own and writable. `mov eax, imm32`
    // begins two bytes before its end.
    unsafe { ((pages + 4094) as *mut [u8; 2]).write([0xb8, 0]) };
    sys::mprotect(pages, 4096, sys::RX).or_fail("code")?;
    let fixed = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    sys::mremap(code.code(), 4096, 4096, fixed, pages + 4096).or_fail("a move")?;
    dies("an instruction that reaches in", pages + 4094, start())
}

fn data_access_kills() -> Outcome {
    let made = plain(Entry::PageFault)?;
    let read = killed_by(|| {
        // SAFETY: It ends the process.
        unsafe { (made.code() as *const u8).read_volatile() };
    });
    equal("a read", read?, Some(libc::SIGSEGV))?;
    let write = killed_by(|| {
        // SAFETY: It ends the process.
        unsafe { (made.code() as *mut u8).write_volatile(0) };
    });
    equal("a write", write?, Some(libc::SIGSEGV))
}

fn the_kernel_reads_nothing() -> Outcome {
    let code = plain(Entry::PageFault)?;
    let (_reader, writer) = sys::pipe().or_fail("a pipe")?;
    let result = sys::write_from(writer.as_raw_fd(), code.code(), 8);
    refused("write(2) from it", result, libc::EFAULT)
}

fn permissions_cannot_be_changed() -> Outcome {
    for entry in [Entry::PageFault, Entry::SystemCall] {
        let code = plain(entry)?;
        for prot in [libc::PROT_READ, sys::RW, sys::RX | sys::RW] {
            let result = sys::mprotect(code.code(), 4096, prot);
            refused("mprotect", result, libc::EACCES)?;
        }
    }
    Ok(())
}

/// There is room for the return address and what the code of the call saves, but
/// not for the values.
fn without_a_stack_it_is_killed() -> Outcome {
    let stack = sys::mmap(0, 8192, 0, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
    let stack = stack.or_fail("a stack")? + 4096;
    sys::mprotect(stack, 4096, sys::RW).or_fail("a page")?;
    let mut from = start();
    from.registers[RSP] = stack as u64 + 24;
    let full = (0..3).try_fold(Description::to(witness()), |what, value| what.push(value));
    let what = full.ok().or_fail("three values")?;
    for entry in [Entry::PageFault, Entry::SystemCall] {
        dies("no room to push", made(&what, entry)?.code(), from)?;
    }
    Ok(())
}

fn the_number_is_unused_elsewhere() -> Outcome {
    let result = sys::syscall(UNUSED_CALL, [0; 6]);
    refused("the number of the call", result, libc::ENOSYS)?;
    let result = sys::syscall(UNUSED_CALL + 1, [0; 6]);
    refused("the next number", result, libc::ENOSYS)
}

fn moved_and_forked() -> Outcome {
    for entry in [Entry::PageFault, Entry::SystemCall] {
        let what = Description::to(witness()).set(3, 77).ok();
        let made = made(&what.or_fail("a register")?, entry)?;
        let there = sys::mmap(0, 4096, 0, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        let there = there.or_fail("an address")?;
        let fixed = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        sys::mremap(made.code(), 4096, 4096, fixed, there).or_fail("a move")?;
        // SAFETY: It goes to the witness.
        let seen = unsafe { probe(there, &start()) };
        equal("after a move", seen.registers[3], 77)?;
        let child = sys::fork().or_fail("a process")?;
        if child == 0 {
            // SAFETY: As above.
            let seen = unsafe { probe(there, &start()) };
            sys::exit(i32::from(seen.registers[3] != 77));
        }
        equal("in a child", sys::wait(child).or_fail("its end")?, 0)?;
    }
    Ok(())
}

/// An unwinder reads the instructions at the addresses that it goes through.
fn code_of_the_call_can_be_read() -> Outcome {
    let made = plain(Entry::SystemCall)?;
    // SAFETY: A readable page, as long as `made` lives.
    let code = unsafe { (made.code() as *const [u8; 14]).read() };
    holds(code.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]), "no endbr64")?;
    equal(
        "after the call",
        code[11..].to_vec(),
        vec![0x0f, 0x05, 0xcc],
    )
}
