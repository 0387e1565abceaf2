// SPDX-License-Identifier: GPL-2.0
//! Code in a segment of the LDT with a base: its instruction pointer is no linear
//! address. 32-bit and 16-bit segments, entered from 64-bit code and left again
//! by far returns, as emulators of older systems do.

use std::arch::global_asm;
use std::cell::Cell;
use std::ffi::c_void;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::thread;
use std::time::{Duration, Instant};

use super::asm;
use super::harness::{Test, tests};
use super::memory::{Mapping, put_at};
use super::outcome::{Checked, OrFail, Outcome, equal, failed, holds, skipped};
use super::race::{had_fixups, needs_two_cpus};
use super::region::Region;
use super::sys::{self, PAGE};

pub fn tests() -> Vec<Test> {
    let limit = Duration::from_secs(90);
    tests![
        code_runs_in_a_32_bit_segment,
        code_runs_in_a_16_bit_segment,
        int3_in_a_32_bit_segment_is_sigtrap,
        int3_in_a_16_bit_segment_is_sigtrap,
        stale_traps_in_a_32_bit_segment_are_resumed,
        stale_traps_in_a_16_bit_segment_are_resumed,
    ]
    .into_iter()
    .map(|test| test.within(limit))
    .collect()
}

global_asm!(
    // rdi: what to enter, rsi: its code segment, rdx: a Gate.
    ".global jit_suite_enter",
    "jit_suite_enter:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rdx], rsp",
    "mov rsp, [rdx + 8]",
    "push rsi",
    "push rdi",
    "retfq",
);

unsafe extern "C" {
    fn jit_suite_enter(offset: usize, selector: usize, gate: usize) -> u64;
}

/// User code, 64 bits (`__USER_CS`).
const CODE_64: u64 = 0x33;

/// Memory below 4 GiB with a stack, and the way back: at its begin the caller's
/// stack pointer and that of the other stack, then code.
struct Gate(Mapping);

const GATE_PAGES: usize = 32;
/// Where the code is.
const EXIT: usize = 16;

impl Gate {
    fn new() -> Checked<Self> {
        let prot = sys::RW | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        let len = GATE_PAGES * PAGE;
        let addr = sys::mmap(0, len, prot, flags, -1, 0).or_fail("mmap below 4 GiB")?;
        let gate = Gate(Mapping::adopt(addr, len));
        // mov rsp, [addr]; pop r15 ... rbp; ret
        let mut code = vec![0x48, 0x8b, 0x24, 0x25];
        code.extend((addr as u32).to_le_bytes());
        code.extend([
            0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5b, 0x5d, 0xc3,
        ]);
        gate.0.write(EXIT, &code);
        Ok(gate)
    }

    fn exit(&self) -> usize {
        self.0.addr() + EXIT
    }

    /// Runs what is at `offset` of a segment, up to its far return or a signal.
    fn enter(&self, segment: &Segment, offset: u64) -> Result<u64, Trap> {
        let stack = self.0.addr() + self.0.len() - 64;
        put_at(self.0.addr() + 8, &stack);
        // What a far return of 32 bits takes.
        put_at(stack, &(self.exit() as u32 as u64 | CODE_64 << 32));
        CAUGHT.set(None);
        BACK.set(self.exit());
        // SAFETY: the tests run only code of their own there, which keeps no
        // register and touches no memory but the gate's stack.
        let value =
            unsafe { jit_suite_enter(segment.offset(offset), segment.selector(), self.0.addr()) };
        BACK.set(0);
        CAUGHT.take().map_or(Ok(value), Err)
    }
}

/// A signal that code in a segment has raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trap {
    signal: i32,
    code: i32,
    ip: usize,
    selector: usize,
}

thread_local! {
    static CAUGHT: Cell<Option<Trap>> = const { Cell::new(None) };
    static BACK: Cell<usize> = const { Cell::new(0) };
}

fn install() -> Outcome {
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) = on_signal;
    for signal in [libc::SIGTRAP, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL] {
        // SAFETY: all zeros is an empty action; the handler has the type of SA_SIGINFO.
        let result = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as libc::sighandler_t;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(signal, &action, std::ptr::null_mut())
        };
        sys::check(i64::from(result)).or_fail("sigaction")?;
    }
    Ok(())
}

extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    let back = BACK.get();
    if back == 0 {
        sys::exit(100 + signal);
    }
    // SAFETY: the kernel passes a valid siginfo and context.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let selectors = registers[libc::REG_CSGSFS as usize];
        CAUGHT.set(Some(Trap {
            signal,
            code: (*info).si_code,
            ip: registers[libc::REG_RIP as usize] as usize,
            selector: (selectors & 0xffff) as usize,
        }));
        registers[libc::REG_RIP as usize] = back as i64;
        registers[libc::REG_CSGSFS as usize] = selectors & !0xffff | CODE_64 as i64;
    }
}

/// A code segment of this process that has a region in it.
struct Segment {
    bits: u32,
    base: usize,
    /// Where the region begins in it.
    start: u64,
    /// The region's mapping.
    _map: Mapping,
}

/// `struct user_desc`.
#[repr(C)]
struct Descriptor {
    entry_number: u32,
    base_addr: u32,
    limit: u32,
    flags: u32,
}

const CONTENTS_CODE: u32 = 2 << 1;
const SEG_32BIT: u32 = 1;
const LIMIT_IN_PAGES: u32 = 1 << 4;
/// An index other than the first: not to be taken for another field.
const INDEX: u32 = 3;

impl Segment {
    fn of(region: &Region, bits: u32) -> Checked<Self> {
        let len = region.map.len();
        let fd = region.device.as_raw_fd();
        let flags = libc::MAP_SHARED | libc::MAP_32BIT;
        let addr = sys::mmap(0, len, sys::RX, flags, fd, 0).or_fail("mmap below 4 GiB")?;
        let map = Mapping::adopt(addr, len);
        // 16-bit segments end at 64 KiB.
        let start = if bits == 32 { 0x12_3000 } else { 0x2000 };
        let base = addr - start;
        let (limit, flags) = match bits {
            32 => (0xf_ffff, SEG_32BIT | LIMIT_IN_PAGES),
            _ => (0xffff, 0),
        };
        let descriptor = Descriptor {
            entry_number: INDEX,
            base_addr: base as u32,
            limit,
            flags: flags | CONTENTS_CODE,
        };
        const WRITE: usize = 0x11;
        let argument = std::ptr::from_ref(&descriptor).expose_provenance();
        let arguments = [WRITE, argument, size_of::<Descriptor>(), 0, 0, 0];
        match sys::syscall(libc::SYS_modify_ldt, arguments) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                skipped("this kernel has no LDTs")
            }
            result => {
                // An int: the upper half of the result may be anything.
                equal("modify_ldt", result.or_fail("modify_ldt")? as i32, 0)?;
                Ok(Segment {
                    bits,
                    base,
                    start: start as u64,
                    _map: map,
                })
            }
        }
    }

    fn selector(&self) -> usize {
        (INDEX << 3 | 7) as usize
    }

    /// Where `offset` of the region is in the segment.
    fn offset(&self, offset: u64) -> usize {
        (self.start + offset) as usize
    }

    /// `mov eax, value; retf` with 32 bits each.
    fn answer(&self, value: u32) -> Vec<u8> {
        let prefix: &[u8] = if self.bits == 32 { &[] } else { &[0x66] };
        let mov = [&[0xb8][..], &value.to_le_bytes()].concat();
        [prefix, &mov, prefix, &[0xcb]].concat()
    }
}

const PAGES: usize = 8;

fn code_runs(bits: u32) -> Outcome {
    let region = Region::new(PAGES)?;
    let segment = Segment::of(&region, bits)?;
    holds(segment.base != 0, "the segment has a base")?;
    let gate = Gate::new()?;
    install()?;
    for value in 1..20 {
        let offset = region.append(&segment.answer(value))?;
        let result = gate.enter(&segment, offset);
        equal("the result", result, Ok(u64::from(value)))?;
    }
    Ok(())
}

fn code_runs_in_a_32_bit_segment() -> Outcome {
    code_runs(32)
}

fn code_runs_in_a_16_bit_segment() -> Outcome {
    code_runs(16)
}

/// `SI_KERNEL`: what an int3 that nobody claims gives.
const SI_KERNEL: i32 = 0x80;

fn int3_is_sigtrap(bits: u32) -> Outcome {
    let region = Region::new(PAGES)?;
    let segment = Segment::of(&region, bits)?;
    let gate = Gate::new()?;
    install()?;
    for value in 1..20 {
        let code = [asm::breakpoint_then(0), segment.answer(value)].concat();
        let offset = region.append(&code)?;
        let trap_at = |offset| {
            Err(Trap {
                signal: libc::SIGTRAP,
                code: SI_KERNEL,
                ip: segment.offset(offset) + 1,
                selector: segment.selector(),
            })
        };
        equal("int3", gate.enter(&segment, offset), trap_at(offset))?;
        let fill = region.stats()?.cursor;
        equal("the fill", gate.enter(&segment, fill), trap_at(fill))?;
        let behind = gate.enter(&segment, offset + 7);
        equal("behind", behind, Ok(u64::from(value)))?;
    }
    equal("fixups", region.stats()?.fixups, 0)
}

fn int3_in_a_32_bit_segment_is_sigtrap() -> Outcome {
    int3_is_sigtrap(32)
}

fn int3_in_a_16_bit_segment_is_sigtrap() -> Outcome {
    int3_is_sigtrap(16)
}

/// Runs what `newest` tells (an offset plus one), and the newest again meanwhile.
fn run_announced(
    segment: &Segment,
    newest: &AtomicU64,
    done: &AtomicU64,
    stop: &AtomicBool,
) -> Outcome {
    let gate = Gate::new()?;
    while !stop.load(Acquire) {
        let number = newest.load(Acquire);
        if number != 0 {
            let result = gate.enter(segment, number - 1);
            equal("the result", result, Ok(number - 1))?;
            done.store(number, Release);
        }
    }
    Ok(())
}

/// Appends code, announces it, and waits until it has run.
fn publish_and_announce(
    region: &Region,
    segment: &Segment,
    newest: &AtomicU64,
    is_done: impl Fn(u64) -> bool,
) -> Outcome {
    let at = region.stats()?.cursor.next_multiple_of(16);
    region.skip_to(at)?;
    let offset = region.append(&segment.answer(at as u32))?;
    newest.store(offset + 1, Release);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_done(offset + 1) {
        if Instant::now() > deadline {
            return failed(format!("the function at {offset:#x} never ran"));
        }
        std::hint::spin_loop();
    }
    Ok(())
}

fn stale_traps_are_resumed(bits: u32) -> Outcome {
    needs_two_cpus()?;
    let region = Region::new(PAGES)?;
    let segment = Segment::of(&region, bits)?;
    install()?;
    let (newest, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let runner = scope.spawn(|| run_announced(&segment, &newest, &done, &stop));
        let is_done = |number| done.load(Acquire) == number || runner.is_finished();
        let outcome =
            (0..1000).try_for_each(|_| publish_and_announce(&region, &segment, &newest, is_done));
        stop.store(true, Release);
        runner.join().ok().or_fail("the thread panicked")??;
        outcome
    })?;
    had_fixups(&region)
}

fn stale_traps_in_a_32_bit_segment_are_resumed() -> Outcome {
    stale_traps_are_resumed(32)
}

fn stale_traps_in_a_16_bit_segment_are_resumed() -> Outcome {
    stale_traps_are_resumed(16)
}
