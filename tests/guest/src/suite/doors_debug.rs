// SPDX-License-Identifier: GPL-2.0
//! Rule R8, the doors of debuggers: they read the authoritative bytes, and
//! write none. A child may do no more than its parent.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use super::asm;
use super::calls;
use super::execute::answers;
use super::harness::{Test, tests};
use super::memory::{debugger_view, load};
use super::outcome::{Checked, OrFail, Outcome, equal, holds, refused};
use super::process::{Child, Gate, in_child};
use super::region::Region;
use super::sys::{self, PAGE};
use super::tracer::Traced;

pub fn tests() -> Vec<Test> {
    tests![
        own_memory_file_cannot_write,
        other_memory_file_cannot_write,
        memory_file_reads_the_newest,
        memory_file_reads_fill_where_nothing_is,
        memory_file_reads_across_the_end,
        ptrace_cannot_write,
        ptrace_reads_the_newest,
        ptrace_reads_what_the_child_never_touched,
        process_vm_cannot_write,
        process_vm_read_changes_nothing,
        stolen_append_handle_has_no_right,
        stolen_device_handle_maps_no_writable_page,
        created_code_is_no_different,
    ]
}

/// A region with code on two of three pages, entries used.
fn region_with_code() -> Checked<Region> {
    let region = Region::new(3)?;
    region.append(&asm::long_answer(1, PAGE + 100))?;
    region.answers(0, 1)?;
    Ok(region)
}

/// Places of different kinds: live, live at a page's end, fill, unpublished.
fn places(region: &Region) -> [usize; 5] {
    let page = PAGE as u64;
    [0, 1, page - 8, page + 200, 2 * page].map(|offset| region.at(offset))
}

/// Fails unless writes through the memory file of `pid` fail at all places.
fn memory_file_refuses(pid: u32, places: &[usize]) -> Outcome {
    let path = format!("/proc/{pid}/mem");
    let file = OpenOptions::new().write(true).open(path);
    let file = file.or_fail("open the memory file")?;
    for &addr in places {
        let result = file.write_at(&[0xf4; 8], addr as u64);
        refused("a write", result, libc::EIO)?;
    }
    Ok(())
}

fn own_memory_file_cannot_write() -> Outcome {
    let region = region_with_code()?;
    region.unchanged_by(|| memory_file_refuses(std::process::id(), &places(&region)))
}

fn other_memory_file_cannot_write() -> Outcome {
    let region = region_with_code()?;
    let (child, traced) = Traced::idle_child()?;
    region.unchanged_by(|| memory_file_refuses(child.pid() as u32, &places(&region)))?;
    traced.detach()?;
    child.end()
}

fn memory_file_reads_the_newest() -> Outcome {
    let region = Region::new(2)?;
    let mut wanted = Vec::new();
    for value in 0..900 {
        let code = asm::answer(value);
        region.append(&code)?;
        wanted.extend(code);
        if value % 50 == 0 {
            let view = debugger_view(std::process::id(), region.at(0), wanted.len());
            equal("the view", view.or_fail("read")?, wanted.clone())?;
            region.answers(0, 0)?;
        }
    }
    Ok(())
}

fn memory_file_reads_fill_where_nothing_is() -> Outcome {
    let region = Region::new(3)?;
    region.append(&[0x90; 10])?;
    let mut wanted = vec![0xcc; 3 * PAGE];
    wanted[..10].fill(0x90);
    equal("the view", region.content()?, wanted)?;
    let stats = region.stats()?;
    equal("swaps", (stats.swaps, stats.retired), (0, 0))
}

/// A read that goes on into what is not mapped ends at the last byte.
fn memory_file_reads_across_the_end() -> Outcome {
    let region = region_with_code()?;
    sys::munmap(region.at(2 * PAGE as u64), PAGE).or_fail("munmap")?;
    let file = std::fs::File::open("/proc/self/mem").or_fail("open")?;
    let mut bytes = [0; 64];
    let at = region.at(2 * PAGE as u64) - 16;
    let count = file.read_at(&mut bytes, at as u64).or_fail("read")?;
    equal("the bytes read", count, 16)?;
    equal("the bytes", bytes[..16].to_vec(), vec![0xcc; 16])
}

fn ptrace_cannot_write() -> Outcome {
    let region = region_with_code()?;
    let (child, traced) = Traced::idle_child()?;
    region.unchanged_by(|| {
        for addr in places(&region) {
            let result = traced.poke(addr, [0xf4; 8]);
            refused("PTRACE_POKETEXT", result, libc::EIO)?;
        }
        Ok(())
    })?;
    traced.detach()?;
    child.end()
}

fn ptrace_reads_the_newest() -> Outcome {
    let region = region_with_code()?;
    let (child, traced) = Traced::idle_child()?;
    for value in 0..200 {
        let mut code = asm::answer(value);
        code.extend([0x90; 2]);
        let offset = region.append(&code)?;
        let word = traced.peek(region.at(offset)).or_fail("PTRACE_PEEKTEXT")?;
        equal("the word", word.to_vec(), code)?;
    }
    traced.detach()?;
    child.end()
}

fn ptrace_reads_what_the_child_never_touched() -> Outcome {
    let region = Region::new(2)?;
    let (child, traced) = Traced::idle_child()?;
    let word = traced.peek(region.at(0)).or_fail("PTRACE_PEEKTEXT")?;
    equal("an unpublished word", word, [0xcc; 8])?;
    region.append(&[0x90; 8])?;
    let word = traced.peek(region.at(0)).or_fail("PTRACE_PEEKTEXT")?;
    equal("the word", word, [0x90; 8])?;
    let word = traced.peek(region.at(4)).or_fail("PTRACE_PEEKTEXT")?;
    equal("half and half", word[4..].to_vec(), vec![0xcc; 4])?;
    let word = traced
        .peek(region.at(PAGE as u64 - 4))
        .or_fail("PTRACE_PEEKTEXT")?;
    equal("across pages", word, [0xcc; 8])?;
    traced.detach()?;
    child.end()
}

/// process_vm_writev() or process_vm_readv() of eight bytes.
fn process_vm(call: i64, pid: libc::pid_t, addr: usize) -> std::io::Result<i64> {
    let mut bytes = [0xf4u8; 8];
    let local = [bytes.as_mut_ptr().expose_provenance(), bytes.len()];
    let remote = [addr, bytes.len()];
    let arguments = [
        pid as usize,
        local.as_ptr().expose_provenance(),
        1,
        remote.as_ptr().expose_provenance(),
        1,
        0,
    ];
    sys::syscall(call, arguments)
}

fn process_vm_cannot_write() -> Outcome {
    let region = region_with_code()?;
    let child = Child::start(|| {
        loop {
            std::thread::park();
        }
    })?;
    region.unchanged_by(|| {
        for addr in places(&region) {
            for pid in [child.pid(), std::process::id() as libc::pid_t] {
                let result = process_vm(libc::SYS_process_vm_writev, pid, addr);
                refused("process_vm_writev", result, libc::EFAULT)?;
            }
        }
        Ok(())
    })?;
    child.end()
}

/// It pins pages, which these do not allow.
fn process_vm_read_changes_nothing() -> Outcome {
    let region = region_with_code()?;
    region.unchanged_by(|| {
        let pid = std::process::id() as libc::pid_t;
        for addr in places(&region) {
            let result = process_vm(libc::SYS_process_vm_readv, pid, addr);
            refused("process_vm_readv", result, libc::EFAULT)?;
        }
        Ok(())
    })
}

/// Takes a descriptor out of the process `pid`.
fn steal(pid: libc::pid_t, fd: i32) -> Checked<i32> {
    let pidfd =
        sys::syscall(libc::SYS_pidfd_open, [pid as usize, 0, 0, 0, 0, 0]).or_fail("pidfd_open")?;
    let arguments = [pidfd as usize, fd as usize, 0, 0, 0, 0];
    let stolen = sys::syscall(libc::SYS_pidfd_getfd, arguments).or_fail("pidfd_getfd")?;
    Ok(stolen as i32)
}

/// Runs `thief` with a process that has made a region of its own since, and
/// the numbers of its device and append handles.
fn with_victim(thief: impl FnOnce(libc::pid_t, i32, i32) -> Outcome) -> Outcome {
    let (there, back) = (Gate::new()?, Gate::new()?);
    let victim = Child::start(|| {
        let region = region_with_code()?;
        region.unchanged_by(|| {
            back.send(region.device.as_raw_fd() as u64)?;
            back.send(region.fd() as u64)?;
            there.wait()
        })?;
        region.answers(0, 1)
    })?;
    let device = back.receive()? as i32;
    let append = back.receive()? as i32;
    let outcome = thief(victim.pid(), device, append);
    there.open()?;
    outcome?;
    victim.join()
}

fn stolen_append_handle_has_no_right() -> Outcome {
    with_victim(|pid, _, append| {
        let append = steal(pid, append)?;
        refused("JIT_APPEND", calls::append(append, &[0xc3]), libc::EPERM)?;
        refused("JIT_RESERVE", calls::reserve(append, 1, 0), libc::EPERM)?;
        refused("JIT_SEAL", calls::seal(append), libc::EPERM)
    })
}

fn stolen_device_handle_maps_no_writable_page() -> Outcome {
    with_victim(|pid, device, _| {
        let device = steal(pid, device)?;
        let result = sys::mmap(0, PAGE, sys::RW, libc::MAP_SHARED, device, 0);
        refused("mmap, writable", result, libc::EACCES)?;
        let addr = sys::mmap(0, PAGE, sys::RX, libc::MAP_SHARED, device, 0).or_fail("mmap")?;
        equal("the code", load(addr, 8), vec![0x90; 8])?;
        memory_file_refuses(std::process::id(), &[addr])
    })
}

fn created_code_is_no_different() -> Outcome {
    let mut argument = jitfd_plan::abi::CreateCode::default();
    let code = asm::answer(6);
    argument.source = code.as_ptr().addr() as u64;
    argument.len = code.len() as u64;
    let device = calls::open_device()?;
    calls::create_code(device.as_raw_fd(), &mut argument).or_fail("JIT_CREATE_CODE")?;
    let addr = argument.addr as usize;
    memory_file_refuses(std::process::id(), &[addr, addr + 100])?;
    let view = debugger_view(std::process::id(), addr, PAGE).or_fail("read")?;
    holds(view[..6] == code[..], "a debugger sees the code")?;
    holds(view[6..].iter().all(|&byte| byte == 0xcc), "and the fill")?;
    in_child(|| memory_file_refuses(std::process::id(), &[addr]))?;
    answers("the code", addr, 6)
}
