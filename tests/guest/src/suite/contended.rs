// SPDX-License-Identifier: GPL-2.0
//! Traps that come while another thread of the process changes mappings. Each
//! ends, however the two threads are scheduled, and means what it always does.
//!
//! Nothing here measures time: a thread that changes mappings counts how often
//! it did, and a trap is over before it did so more than a few times.

use std::arch::global_asm;
use std::cell::Cell;
use std::ffi::c_void;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::*};
use std::thread;
use std::time::Duration;

use super::asm;
use super::calls;
use super::execute::{call, guarded};
use super::harness::{Test, tests};
use super::memory::Mapping;
use super::outcome::{Checked, OrFail, Outcome, equal, failed, holds};
use super::process::Child;
use super::race::{Shared, append_identity, had_fixups, with_executors};
use super::random::Random;
use super::region::Region;
use super::sys::{self, PAGE};
use super::tracer::Traced;
use super::uprobe;

pub fn tests() -> Vec<Test> {
    let limit = Duration::from_secs(120);
    tests![
        unrelated_changes_delay_no_real_time_trap,
        real_time_traps_in_changing_code_end,
        real_time_traps_in_changing_foreign_memory_end,
        two_byte_int_3_in_changing_code_is_sigtrap,
        a_trap_in_changing_code_is_like_any_other,
        a_trap_in_changing_foreign_memory_is_like_any_other,
        stale_traps_in_changing_code_are_resumed,
        a_step_over_int3_in_changing_code_is_like_any_other,
        probes_in_changing_code_are_hit_once,
        a_real_time_thread_lets_the_publisher_go_on,
    ]
    .into_iter()
    .map(|test| test.within(limit))
    .collect()
}

/// The CPU that threads share here.
const CPU: usize = 0;

/// From here on the calling thread runs on [`CPU`] whenever it can.
fn become_first() -> Outcome {
    sys::stay_on_cpu(CPU).or_fail("sched_setaffinity")?;
    sys::become_real_time().or_fail("sched_setscheduler")
}

/// Memory whose protection a thread changes back and forth, as long as this
/// lives. Execution is always allowed.
struct Changes {
    addr: usize,
    len: usize,
    stop: AtomicBool,
    done: AtomicU64,
}

impl Changes {
    fn of(addr: usize, len: usize) -> Self {
        Changes {
            addr,
            len,
            stop: AtomicBool::new(false),
            done: AtomicU64::new(0),
        }
    }

    /// How many there were.
    fn count(&self) -> u64 {
        self.done.load(Relaxed)
    }

    /// Makes them until told to stop.
    fn make(&self) -> Outcome {
        while !self.stop.load(Relaxed) {
            for prot in [libc::PROT_EXEC, sys::RX] {
                sys::mprotect(self.addr, self.len, prot).or_fail("mprotect")?;
                self.done.fetch_add(1, Relaxed);
            }
        }
        Ok(())
    }

    /// Makes them in another thread on the same CPU while `run` runs here.
    fn during<T>(&self, run: impl FnOnce() -> Checked<T>) -> Checked<T> {
        thread::scope(|scope| {
            let maker = scope.spawn(|| {
                sys::stay_on_cpu(CPU).or_fail("sched_setaffinity")?;
                self.make()
            });
            while self.count() == 0 && !maker.is_finished() {
                thread::sleep(Duration::from_micros(100));
            }
            let outcome = run();
            self.stop.store(true, Relaxed);
            maker.join().ok().or_fail("the thread panicked")??;
            outcome
        })
    }
}

/// Anonymous memory of `pages` pages, of which each eighth is there, so that
/// changing its protection takes long.
fn long_memory(pages: usize) -> Checked<Mapping> {
    let memory = Mapping::anonymous(pages)?;
    for page in (0..pages).step_by(8) {
        memory.write(page * PAGE, &[0xcc, 0xc3]);
    }
    Ok(memory)
}

/// A region with some code all over, so that changing its protection takes
/// long: `code` at its begin and nothing that matters elsewhere.
fn long_region(code: &[u8]) -> Checked<Region> {
    const PAGES: usize = 32768;
    const STEP: u64 = 512 * PAGE as u64;
    let region = Region::new(PAGES)?;
    region.append(code)?;
    let len = region.stats()?.capacity;
    region.skip_to(len)?;
    for offset in (STEP..len).step_by(STEP as usize) {
        region.fill(offset, &identity_at(offset))?;
        region.answers(offset, offset as u32)?;
    }
    Ok(region)
}

fn identity_at(offset: u64) -> Vec<u8> {
    asm::answer(offset as u32)
}

/// How many changes may end while a thread of the same CPU stands at one trap. It
/// waits for the one that is under way.
const MOST: u64 = 4;

fn times_waited() -> Checked<u64> {
    sys::times_waited().or_fail("getrusage")
}

/// Runs `trap`, which meets an int3, many times in a real-time thread, at all
/// moments of `changes`. Returns how many traps waited for something.
fn trap_often(changes: &Changes, trap: impl Fn() -> Outcome) -> Checked<u64> {
    let mut random = Random::new(3);
    let mut waited = 0;
    become_first()?;
    for round in 0..150 {
        thread::sleep(Duration::from_micros(500 + random.below(3000) as u64));
        let (before, times) = (changes.count(), times_waited()?);
        trap()?;
        waited += u64::from(times_waited()? > times);
        let during = changes.count() - before;
        let what = format!("trap {round}: {during} changes of mappings during it");
        holds(during <= MOST, what)?;
    }
    Ok(waited)
}

/// The same in a thread of its own: it ends as a real-time thread.
fn trap_often_during(changes: &Changes, trap: impl Fn() -> Outcome + Send) -> Checked<u64> {
    changes.during(|| {
        thread::scope(|scope| {
            let runner = scope.spawn(|| trap_often(changes, trap));
            runner.join().ok().or_fail("the thread panicked")?
        })
    })
}

/// Fails unless the code at `addr` raises a SIGTRAP with the ip at `ip`.
fn breaks(addr: usize, ip: usize) -> Outcome {
    match guarded(addr)? {
        Err(trap) => equal("the trap", (trap.signal, trap.ip), (libc::SIGTRAP, ip)),
        Ok(value) => failed(format!("no trap, but {value:#x}")),
    }
}

fn unrelated_changes_delay_no_real_time_trap() -> Outcome {
    let region = Region::new(1)?;
    let addr = region.at(region.append(&asm::breakpoint_then(1))?);
    let memory = long_memory(32768)?;
    let changes = Changes::of(memory.addr(), memory.len());
    let waited = trap_often_during(&changes, || breaks(addr, addr + 1))?;
    // For a page of its stack, perhaps.
    holds(waited < 5, format!("{waited} traps waited"))
}

fn real_time_traps_in_changing_code_end() -> Outcome {
    let region = long_region(&asm::breakpoint_then(1))?;
    let changes = Changes::of(region.at(0), region.map.len());
    let waited = trap_often_during(&changes, || breaks(region.at(0), region.at(1)))?;
    holds(waited > 0, "some traps came during a change")
}

fn real_time_traps_in_changing_foreign_memory_end() -> Outcome {
    let region = Region::new(1)?;
    let memory = long_memory(32768)?;
    let addr = memory.addr();
    let changes = Changes::of(addr, memory.len());
    let waited = trap_often_during(&changes, || breaks(addr, addr + 1))?;
    holds(waited > 0, "some traps came during a change")?;
    drop(region);
    Ok(())
}

/// Also where it can't be read: execute-only.
fn two_byte_int_3_in_changing_code_is_sigtrap() -> Outcome {
    let region = long_region(&asm::int_3_then(1))?;
    let changes = Changes::of(region.at(0), region.map.len());
    let waited = trap_often_during(&changes, || breaks(region.at(0), region.at(2)))?;
    holds(waited > 0, "some traps came during a change")?;
    let memory = long_memory(32768)?;
    let addr = memory.addr();
    memory.write(0, &[0xcd, 0x03, 0xc3]);
    let changes = Changes::of(addr, memory.len());
    let waited = trap_often_during(&changes, || breaks(addr, addr + 2))?;
    holds(waited > 0, "some traps came during a change")
}

/// Signals to one thread, one after the other.
struct Storm {
    target: AtomicI32,
    stop: AtomicBool,
}

static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_signal(_: i32) {
    SIGNALS.fetch_add(1, Relaxed);
}

impl Storm {
    fn new() -> Self {
        let handler: extern "C" fn(i32) = count_signal;
        // SAFETY: the handler only adds to an atomic.
        unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
        Storm {
            target: AtomicI32::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// At the calling thread.
    fn aim(&self) {
        self.target.store(sys::thread_id(), Relaxed);
    }

    fn blow(&self) -> Outcome {
        while !self.stop.load(Relaxed) {
            let target = self.target.load(Relaxed);
            if target != 0 {
                // It may have ended.
                let _ = sys::signal_thread(target, libc::SIGUSR1);
            }
            thread::sleep(Duration::from_micros(50));
        }
        holds(SIGNALS.load(Relaxed) > 10, "signals came")
    }

    fn during<T>(&self, run: impl FnOnce() -> Checked<T>) -> Checked<T> {
        thread::scope(|scope| {
            let storm = scope.spawn(|| self.blow());
            let outcome = run();
            self.stop.store(true, Relaxed);
            storm.join().ok().or_fail("the thread panicked")??;
            outcome
        })
    }
}

global_asm!(
    // Calls the code at rdi with a known value in each other register.
    ".global jit_suite_marked",
    "jit_suite_marked:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "sub rsp, 8",
    "mov eax, 0x101",
    "mov ebx, 0x102",
    "mov ecx, 0x103",
    "mov edx, 0x104",
    "mov esi, 0x105",
    "mov ebp, 0x106",
    "mov r8d, 0x108",
    "mov r9d, 0x109",
    "mov r10d, 0x10a",
    "mov r11d, 0x10b",
    "mov r12d, 0x10c",
    "mov r13d, 0x10d",
    "mov r14d, 0x10e",
    "mov r15d, 0x10f",
    "test eax, eax",
    "call rdi",
    "add rsp, 8",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
);

unsafe extern "C" {
    fn jit_suite_marked(code: usize) -> u64;
}

const REGISTERS: usize = 23;
const INFO: usize = 128;

/// All that a handler is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    registers: [i64; REGISTERS],
    info: [u8; INFO],
}

thread_local! {
    static TOLD: Cell<Option<Told>> = const { Cell::new(None) };
    static TIMES: Cell<u64> = const { Cell::new(0) };
}

extern "C" fn tell(_: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo and context.
    let mut told = unsafe {
        Told {
            registers: (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs,
            info: *info.cast(),
        }
    };
    // Those are of the thread's last fault.
    told.registers[libc::REG_CR2 as usize] = 0;
    told.registers[libc::REG_EFL as usize] &= !RESUME_FLAG;
    TOLD.set(Some(told));
    TIMES.set(TIMES.get() + 1);
}

const RESUME_FLAG: i64 = 1 << 16;

/// What a handler is told about the int3 at `addr`, behind which there is a
/// return. But for the stack pointer, which differs from caller to caller.
fn told(addr: usize) -> Checked<Told> {
    let times = TIMES.get();
    // SAFETY: the tests publish such code there.
    unsafe { jit_suite_marked(addr) };
    equal("signals of one trap", TIMES.get() - times, 1)?;
    let mut told = TOLD.take().or_fail("the handler has run")?;
    told.registers[libc::REG_RSP as usize] = 0;
    Ok(told)
}

fn install_tell() -> Outcome {
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) = tell;
    // SAFETY: all zeros is an empty action; the handler has the type of SA_SIGINFO.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGTRAP, &action, std::ptr::null_mut())
    };
    sys::check(i64::from(result))
        .or_fail("sigaction")
        .map(|_| ())
}

/// Each SIGTRAP of the int3 at `addr` during `changes` is told like one before
/// them, to the last bit of siginfo and registers. Other signals come meanwhile.
fn all_are_told_alike(changes: &Changes, addr: usize) -> Outcome {
    install_tell()?;
    let storm = Storm::new();
    let compare = || {
        let ordinary = told(addr)?;
        let ip = ordinary.registers[libc::REG_RIP as usize];
        equal("the place", ip as usize, addr + 1)?;
        storm.aim();
        let waited = changes.during(|| {
            trap_often(changes, || {
                equal("what a handler is told", told(addr)?, ordinary)
            })
        })?;
        holds(waited > 0, "some traps came during a change")
    };
    storm.during(|| {
        thread::scope(|scope| {
            let runner = scope.spawn(compare);
            runner.join().ok().or_fail("the thread panicked")?
        })
    })
}

fn a_trap_in_changing_code_is_like_any_other() -> Outcome {
    let region = long_region(&[0xcc, 0xc3])?;
    let changes = Changes::of(region.at(0), region.map.len());
    all_are_told_alike(&changes, region.at(0))
}

fn a_trap_in_changing_foreign_memory_is_like_any_other() -> Outcome {
    let region = Region::new(1)?;
    let memory = long_memory(32768)?;
    let prot = libc::PROT_READ | libc::PROT_EXEC;
    sys::mprotect(memory.addr(), memory.len(), prot).or_fail("mprotect")?;
    let changes = Changes::of(memory.addr(), memory.len());
    all_are_told_alike(&changes, memory.addr())?;
    drop(region);
    Ok(())
}

/// Meets an int3 again and again while its mapping changes.
pub fn trap_for_ever() -> Outcome {
    install_tell()?;
    let region = long_region(&[0xcc, 0xc3])?;
    let changes = Changes::of(region.at(0), region.map.len());
    thread::scope(|scope| {
        scope.spawn(|| changes.make());
        loop {
            told(region.at(0))?;
        }
    })
}

fn stale_traps_in_changing_code_are_resumed() -> Outcome {
    let region = Region::new(64)?;
    let shared = Shared::new()?;
    let board = shared.board();
    let changes = Changes::of(region.at(0), region.map.len());
    thread::scope(|scope| {
        let maker = scope.spawn(|| changes.make());
        let outcome = with_executors(
            1,
            board,
            |_, offset| region.at(offset),
            || (0..600).try_for_each(|_| board.announce(append_identity(&region)?, 1)),
        );
        changes.stop.store(true, Relaxed);
        maker.join().ok().or_fail("the thread panicked")??;
        outcome
    })?;
    had_fixups(&region)
}

/// In the child: changes mappings in one thread and waits in the other.
fn change_for_ever(region: &Region) -> Outcome {
    let changes = Changes::of(region.at(0), region.map.len());
    thread::scope(|scope| {
        scope.spawn(|| changes.make());
        loop {
            thread::park();
        }
    })
}

fn a_step_over_int3_in_changing_code_is_like_any_other() -> Outcome {
    let region = long_region(&asm::breakpoint_then(5))?;
    let child = Child::start(|| change_for_ever(&region))?;
    let traced = Traced::attach(child.pid())?;
    for _ in 0..300 {
        let mut registers = traced.registers()?;
        registers.rip = region.at(0) as u64;
        registers.orig_rax = u64::MAX;
        traced.set_registers(&registers)?;
        equal("the signal", traced.step(0)?, libc::SIGTRAP)?;
        equal("the ip", traced.registers()?.rip as usize, region.at(1))?;
        equal("its code", traced.signal_code()?, SI_KERNEL)?;
        equal("the signal", traced.step(0)?, libc::SIGTRAP)?;
        equal("the ip", traced.registers()?.rip as usize, region.at(6))?;
        equal("eax", traced.registers()?.rax, 5)?;
        equal("its code", traced.signal_code()?, libc::TRAP_TRACE)?;
    }
    traced.detach()?;
    child.end()
}

/// What an int3 that nobody claims gives.
const SI_KERNEL: i32 = 0x80;

/// The function with a probe, called in a mapping that changes, by a real-time
/// thread, while signals come too.
fn probes_in_changing_code_are_hit_once() -> Outcome {
    let region = Region::new(1)?;
    let (probe, file, offset) = uprobe::probe_in_file()?;
    let len = file.metadata().or_fail("the program's length")?.len() as usize;
    let (prot, flags) = (sys::RX, libc::MAP_PRIVATE | libc::MAP_POPULATE);
    let len = len.next_multiple_of(PAGE);
    let addr = sys::mmap(0, len, prot, flags, file.as_raw_fd(), 0).or_fail("mmap")?;
    let memory = Mapping::adopt(addr, len);
    let changes = Changes::of(memory.addr(), memory.len());
    let calls = AtomicU64::new(0);
    let storm = Storm::new();
    let waited = storm.during(|| {
        trap_often_during(&changes, || {
            storm.aim();
            calls.fetch_add(1, Relaxed);
            equal("the function", call(memory.addr() + offset), 1)
        })
    })?;
    holds(waited > 0, "some traps came during a change")?;
    drop(region);
    equal("hits", uprobe::hits(&probe)?, calls.load(Relaxed))
}

/// Real-time threads jump to what is being published by a thread that they have
/// preempted: the newest version is there and the entry is not. The page is mapped
/// often, so that most of a publication is that.
fn a_real_time_thread_lets_the_publisher_go_on() -> Outcome {
    const PLACES: u64 = 200;
    /// The retries before a thread sleeps, and some where it does.
    const MOST: u64 = 32 + 16;
    let region = Region::new(2)?;
    let hole = calls::reserve(region.fd(), PAGE as u64, 0).or_fail("JIT_RESERVE")?;
    let fd = region.device.as_raw_fd();
    // Fewer if there is a bound.
    let maps: Vec<Mapping> = (0..250)
        .map_while(|_| Mapping::of_file(fd, PAGE, sys::RX, 0).ok())
        .collect();
    holds(maps.len() >= 32, "the page is mapped often")?;
    // The entries of all are there.
    region.fill(hole, &identity_at(hole))?;
    for map in &maps {
        equal("the first", call(map.addr() + hole as usize), hole)?;
    }
    let last = maps.last().map_or(0, Mapping::addr);
    let next = AtomicU64::new(0);
    let most = AtomicU64::new(0);
    thread::scope(|scope| {
        let jumper = scope.spawn(|| {
            become_first()?;
            let mut random = Random::new(5);
            let mut before = region.stats()?.fixups;
            while next.load(Acquire) < PLACES {
                thread::sleep(Duration::from_micros(100 + random.below(2000) as u64));
                let place = hole + 16 * next.load(Acquire);
                match guarded(last + place as usize)? {
                    Ok(value) => equal("the result", value, place)?,
                    Err(trap) => equal("the trap", trap.signal, libc::SIGTRAP)?,
                }
                let fixups = region.stats()?.fixups;
                most.fetch_max(fixups - before, Relaxed);
                let what = format!("{} retries", fixups - before);
                holds(fixups - before <= MOST, what)?;
                before = fixups;
            }
            Ok(())
        });
        sys::stay_on_cpu(CPU).or_fail("sched_setaffinity")?;
        for place in 1..PLACES {
            next.store(place, Release);
            region.fill(hole + 16 * place, &identity_at(hole + 16 * place))?;
        }
        next.store(PLACES, Release);
        jumper.join().ok().or_fail("the thread panicked")?
    })?;
    holds(most.load(Relaxed) > 1, "some publication was met half done")
}
