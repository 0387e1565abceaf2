// SPDX-License-Identifier: MIT OR Apache-2.0

//! `--check`: runs a program as it is, and looks at each of its requests for executable
//! memory, and those of its children: by seccomp, which stops it there, and ptrace, which
//! tells. So system calls that don't go through the C library are seen, too.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::mem::zeroed;
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::null_mut;

use libc::{c_int, c_long, c_uint, c_void, pid_t};

use crate::class::{Caller, Code, Memory, Request, Tally};

const EVENTS: c_int = libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_EXITKILL;

/// In the child, before the program: it is traced, and stops at the calls that matter.
fn enter() -> io::Result<()> {
    const ARCHITECTURE: u32 = 4;
    const NUMBER: u32 = 0;
    const PROTECTION: u32 = 16 + 2 * 8;
    const X86_64: u32 = 0xc000_003e;
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equal =
        |number, yes, no| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, number);
    let number = |call: c_long| u32::try_from(call).unwrap_or(u32::MAX);
    let mut filter = [
        load(ARCHITECTURE),
        equal(X86_64, 0, 6),
        load(NUMBER),
        equal(number(libc::SYS_mprotect), 5, 0),
        equal(number(libc::SYS_pkey_mprotect), 4, 0),
        equal(number(libc::SYS_mmap), 0, 2),
        load(PROTECTION),
        instruction(
            libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K,
            1,
            0,
            libc::PROT_EXEC.unsigned_abs(),
        ),
        instruction(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ALLOW),
        instruction(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_TRACE),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    let (one, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: flags of this process, and a filter that is there during the call.
    let done = unsafe {
        libc::ptrace(libc::PTRACE_TRACEME, 0, null_mut::<c_void>(), 0) == 0
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, one, none, none, none) == 0
            && libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::c_ulong::from(libc::SECCOMP_MODE_FILTER),
                &raw const program,
            ) == 0
    };
    if done {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

const fn instruction(code: c_uint, yes: u8, no: u8, operand: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: yes,
        jf: no,
        k: operand,
    }
}

/// How the program has ended, and what it has asked for.
pub struct Checked {
    /// Its exit status, or 128 and the signal's number.
    pub status: i32,
    /// Its requests.
    pub tally: Tally,
}

/// A thread of the program's processes.
struct Thread {
    process: pid_t,
    /// A mapping that is executable from the start, whose address comes with the answer.
    asked: Option<u64>,
}

/// What is known of all its processes.
#[derive(Default)]
struct Trace {
    threads: HashMap<pid_t, Thread>,
    code: HashMap<pid_t, Code>,
    tally: Tally,
    own_calls: OwnCalls,
}

/// Where the C library has `syscall()`, by which programs make calls of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OwnCalls {
    library: String,
    offsets: Range<u64>,
}

impl OwnCalls {
    /// That of this very program, whose C library the other one has as well, or another
    /// file.
    fn find() -> OwnCalls {
        const LEN: u64 = 64;
        let function = libc::syscall as *const () as *const c_void;
        // SAFETY: zeros are such a structure, and the call fills it with strings that stay.
        let (library, base) = unsafe {
            let mut found: libc::Dl_info = zeroed();
            if libc::dladdr(function, &raw mut found) == 0 || found.dli_fname.is_null() {
                return OwnCalls::default();
            }
            (CStr::from_ptr(found.dli_fname), found.dli_fbase)
        };
        let library = fs::canonicalize(&*library.to_string_lossy()).unwrap_or_default();
        let start = (function.addr() - base.addr()) as u64;
        OwnCalls {
            library: library.to_string_lossy().into_owned(),
            offsets: start..start + LEN,
        }
    }

    /// Whether an instruction of this library is of that function.
    fn have(&self, maps: &str, library: &str, instruction: u64) -> bool {
        let first = maps.lines().find(|line| line.ends_with(library));
        let base = first.and_then(|line| line.split_once('-'));
        let base = base.and_then(|(base, _)| u64::from_str_radix(base, 16).ok());
        library == self.library
            && base.is_some_and(|base| self.offsets.contains(&instruction.wrapping_sub(base)))
    }
}

/// Runs it, with its children, to the end.
///
/// # Errors
/// That it can't be started or traced.
pub fn check(mut command: Command) -> io::Result<Checked> {
    // SAFETY: it makes system calls only.
    unsafe { command.pre_exec(enter) };
    let child = pid_t::try_from(command.spawn()?.id()).map_err(io::Error::other)?;
    let mut trace = Trace {
        own_calls: OwnCalls::find(),
        ..Trace::default()
    };
    let mut status = 0;
    loop {
        let mut how = 0;
        // SAFETY: it fills the number.
        let thread = unsafe { libc::waitpid(-1, &raw mut how, libc::__WALL) };
        if thread < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ECHILD) => break,
                Some(libc::EINTR) => continue,
                _ => return Err(error),
            }
        }
        if libc::WIFSTOPPED(how) {
            trace.stopped(thread, how)?;
            continue;
        }
        trace.threads.remove(&thread);
        if thread == child {
            status = match libc::WIFEXITED(how) {
                true => libc::WEXITSTATUS(how),
                false => 128 + libc::WTERMSIG(how),
            };
        }
    }
    Ok(Checked {
        status,
        tally: trace.tally,
    })
}

/// Lets a thread go on, with a signal or none.
fn resume(thread: pid_t, to_answer: bool, signal: c_int) {
    let request = match to_answer {
        true => libc::PTRACE_SYSCALL,
        false => libc::PTRACE_CONT,
    };
    // SAFETY: the thread is stopped; if it was killed meanwhile, that is what is next.
    unsafe { libc::ptrace(request, thread, null_mut::<c_void>(), c_long::from(signal)) };
}

fn registers(thread: pid_t) -> Option<libc::user_regs_struct> {
    // SAFETY: zeros are registers, and the call fills them.
    unsafe {
        let mut registers: libc::user_regs_struct = zeroed();
        let done = libc::ptrace(
            libc::PTRACE_GETREGS,
            thread,
            null_mut::<c_void>(),
            &raw mut registers,
        );
        (done == 0).then_some(registers)
    }
}

impl Trace {
    /// A thread has stopped: by a signal, or for one of the events.
    fn stopped(&mut self, thread: pid_t, how: c_int) -> io::Result<()> {
        let is_new = !self.threads.contains_key(&thread);
        if is_new {
            self.begin(thread)?;
        }
        let (signal, event) = (libc::WSTOPSIG(how), how >> 16);
        if event == libc::PTRACE_EVENT_SECCOMP {
            let to_answer = self.request(thread);
            resume(thread, to_answer, 0);
        } else if signal == libc::SIGTRAP | 0x80 {
            self.answer(thread);
            resume(thread, false, 0);
        } else if event == libc::PTRACE_EVENT_EXEC {
            self.code.remove(&thread);
            self.begin(thread)?;
            resume(thread, false, 0);
        } else if event != 0 || (is_new && [libc::SIGSTOP, libc::SIGTRAP].contains(&signal)) {
            // The kernel's own, of a new thread.
            resume(thread, false, 0);
        } else {
            resume(thread, false, signal);
        }
        Ok(())
    }

    fn begin(&mut self, thread: pid_t) -> io::Result<()> {
        if self.threads.is_empty() {
            // The first one; the others inherit it.
            // SAFETY: the thread is stopped.
            let done = unsafe {
                libc::ptrace(
                    libc::PTRACE_SETOPTIONS,
                    thread,
                    null_mut::<c_void>(),
                    c_long::from(EVENTS),
                )
            };
            if done != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        let process = process(thread).unwrap_or(thread);
        self.threads.insert(
            thread,
            Thread {
                process,
                asked: None,
            },
        );
        Ok(())
    }

    /// A system call that is about to be made; whether its answer matters.
    fn request(&mut self, thread: pid_t) -> bool {
        let (Some(known), Some(registers)) = (self.threads.get_mut(&thread), registers(thread))
        else {
            return false;
        };
        let protection = registers.rdx;
        let has = |bit: c_int| protection & u64::from(bit.unsigned_abs()) != 0;
        let is_map = registers.orig_rax == libc::SYS_mmap.unsigned_abs();
        let (address, len) = (registers.rdi, registers.rsi.next_multiple_of(4096));
        let mut request = Request {
            range: address..address.saturating_add(len),
            write: has(libc::PROT_WRITE),
            execute: has(libc::PROT_EXEC),
            memory: Memory::Private,
            caller: Caller::CLibrary,
        };
        if request.execute {
            let maps = fs::read_to_string(format!("/proc/{thread}/maps")).unwrap_or_default();
            request.caller = caller(&maps, registers.rip, &self.own_calls);
            request.memory = match is_map {
                true => mapped(thread, registers.r10, registers.r8),
                false => memory(path_at(&maps, address).unwrap_or_default()),
            };
        }
        let code = self.code.entry(known.process).or_default();
        // Executable from the start: nothing was written before.
        let to_answer = is_map
            && !request.write
            && matches!(request.memory, Memory::Private | Memory::SharedAnonymous);
        if to_answer && request.caller != Caller::Loader {
            known.asked = Some(len);
            return true;
        }
        self.tally.note(&request, code);
        false
    }

    /// The answer to such a call: the mapping's address.
    fn answer(&mut self, thread: pid_t) {
        let Some(known) = self.threads.get_mut(&thread) else {
            return;
        };
        if let (Some(len), Some(registers)) = (known.asked.take(), registers(thread)) {
            let start = registers.rax;
            let code = self.code.entry(known.process).or_default();
            code.add(start..start.saturating_add(len));
        }
    }
}

/// The process of a thread.
fn process(thread: pid_t) -> Option<pid_t> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}

/// The permissions and the path of the mapping at an address.
fn path_at(maps: &str, address: u64) -> Option<(&str, &str)> {
    maps.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let access = words.next()?;
        (number(start)?..number(end)?)
            .contains(&address)
            .then(|| (access, words.nth(3).unwrap_or_default()))
    })
}

/// Who makes the system call behind which this instruction is.
fn caller(maps: &str, instruction: u64, own_calls: &OwnCalls) -> Caller {
    let (_, path) = path_at(maps, instruction).unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    if own_calls.have(maps, path, instruction) {
        Caller::Other
    } else if name.starts_with("libc.so") || name.starts_with("libc-") {
        Caller::CLibrary
    } else if name.starts_with("ld-") {
        Caller::Loader
    } else {
        Caller::Other
    }
}

fn is_memory_file(path: &str) -> bool {
    path.starts_with("/memfd:") || path.starts_with("/dev/shm/") || path.starts_with("/dev/zero")
}

/// What memory of these permissions and this path is.
fn memory((access, path): (&str, &str)) -> Memory {
    match (access.ends_with('s'), path) {
        (false, _) => Memory::Private,
        (true, path) if path.starts_with("/dev/zero") => Memory::SharedAnonymous,
        (true, path) if is_memory_file(path) => Memory::View,
        (true, _) => Memory::Disk,
    }
}

/// What is mapped by `mmap()` with these flags and this descriptor.
fn mapped(thread: pid_t, flags: u64, file: u64) -> Memory {
    let has = |bit: c_int| flags & u64::from(bit.unsigned_abs()) != 0;
    match (has(libc::MAP_ANONYMOUS), has(libc::MAP_SHARED)) {
        (true, false) => Memory::Private,
        (true, true) => Memory::SharedAnonymous,
        (false, _) => {
            let link = fs::read_link(format!("/proc/{thread}/fd/{}", file as u32 as c_int));
            let path = link.unwrap_or_default();
            match is_memory_file(&path.to_string_lossy()) {
                true => Memory::View,
                false => Memory::Disk,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_callers_are_told_apart() {
        let maps = "1000-2000 r-xp 00000000 00:01 9  /usr/lib/x86_64-linux-gnu/libc.so.6\n\
                    2000-3000 rw-s 00000000 00:01 9  /dev/zero (deleted)\n\
                    3000-4000 rw-p 00000000 00:00 0 \n\
                    4000-5000 rw-s 00000000 00:01 9  /memfd:x (deleted)\n\
                    5000-6000 r-xp 00000000 00:01 9  /lib64/ld-linux-x86-64.so.2\n\
                    6000-7000 r-xp 00000000 00:01 9  /usr/bin/node\n";
        let at = |address| path_at(maps, address).unwrap();
        let own_calls = OwnCalls {
            library: "/usr/lib/x86_64-linux-gnu/libc.so.6".into(),
            offsets: 0x100..0x140,
        };
        let caller = |address| caller(maps, address, &own_calls);
        assert_eq!(caller(0x1fff), Caller::CLibrary);
        assert_eq!(caller(0x1120), Caller::Other);
        assert_eq!(caller(0x5120), Caller::Loader);
        assert_eq!(caller(0x6000), Caller::Other);
        assert_eq!(memory(at(0x2000)), Memory::SharedAnonymous);
        assert_eq!(memory(at(0x3000)), Memory::Private);
        assert_eq!(memory(at(0x4000)), Memory::View);
        assert_eq!(memory(("r-xs", "/usr/lib/x")), Memory::Disk);
        assert_eq!(path_at(maps, 0x7000), None);
    }
}
