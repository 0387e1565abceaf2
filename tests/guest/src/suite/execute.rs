// SPDX-License-Identifier: GPL-2.0
//! Runs published code, and catches the signal if it raises one.
//!
//! A guarded call keeps its stack pointer in a thread-local; the handler sends
//! the thread back there, so that a fault costs the call and not the process.

use std::arch::global_asm;
use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::outcome::{Checked, OrFail, Outcome, equal, failed};
use super::sys;

/// A signal that code has raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// The signal.
    pub signal: i32,
    /// Its `si_code`.
    pub code: i32,
    /// The instruction pointer when it came.
    pub ip: usize,
    /// The address that faulted, for SIGBUS and SIGSEGV.
    pub addr: usize,
}

global_asm!(
    ".global jit_suite_guarded",
    "jit_suite_guarded:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rsi], rsp",
    "sub rsp, 8",
    "call rdi",
    "add rsp, 8",
    ".global jit_suite_resume",
    "jit_suite_resume:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
);

unsafe extern "C" {
    fn jit_suite_guarded(code: usize, stack: *mut usize) -> u64;
    fn jit_suite_resume();
}

thread_local! {
    static STACK: Cell<usize> = const { Cell::new(0) };
    static CAUGHT: Cell<Option<Trap>> = const { Cell::new(None) };
}

/// Calls the code at `addr`, which takes nothing and returns a number.
pub fn call(addr: usize) -> u64 {
    let code = std::ptr::with_exposed_provenance::<c_void>(addr);
    // SAFETY: the tests call only code that they have published, which keeps to
    // the C calling convention; if it was not there, the signal ends the test.
    let function: extern "C" fn() -> u64 = unsafe { std::mem::transmute(code) };
    function()
}

/// Calls the code at `addr` and fails unless it returns `wanted`.
pub fn answers(what: &str, addr: usize, wanted: u32) -> Outcome {
    match guarded(addr)? {
        Ok(value) => equal(what, value, u64::from(wanted)),
        Err(trap) => failed(format!("{what}: {trap:x?}")),
    }
}

/// Calls the code at `addr`. A signal that it raises is the result.
pub fn guarded(addr: usize) -> Checked<Result<u64, Trap>> {
    install_once()?;
    let mut stack = 0;
    CAUGHT.set(None);
    STACK.set(std::ptr::from_mut(&mut stack).expose_provenance());
    // SAFETY: as in `call`. A signal resumes at `jit_suite_resume` with the
    // stack pointer that was kept, so all saved registers are restored.
    let value = unsafe { jit_suite_guarded(addr, &mut stack) };
    STACK.set(0);
    Ok(CAUGHT.take().map_or(Ok(value), Err))
}

/// Calls the code at `addr` and returns the signal that it must raise.
pub fn trapped(what: &str, addr: usize) -> Checked<Trap> {
    match guarded(addr)? {
        Err(trap) => Ok(trap),
        Ok(value) => failed(format!("{what}: returned {value:#x} instead of a signal")),
    }
}

/// Fails unless the code raises a SIGTRAP that leaves the program at `ip`.
pub fn breaks_at(what: &str, addr: usize, ip: usize) -> Outcome {
    let trap = trapped(what, addr)?;
    equal(what, (trap.signal, trap.ip), (libc::SIGTRAP, ip))
}

/// Fails unless executing at `addr` raises `signal` there.
pub fn faults(what: &str, addr: usize, signal: i32) -> Outcome {
    let trap = trapped(what, addr)?;
    equal(what, (trap.signal, trap.addr), (signal, addr))
}

/// Installs [`on_signal`] for all signals that code can raise.
fn install_once() -> Outcome {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if !INSTALLED.load(Relaxed) {
        for signal in [libc::SIGTRAP, libc::SIGBUS, libc::SIGSEGV, libc::SIGILL] {
            install(signal).or_fail("sigaction")?;
        }
        INSTALLED.store(true, Relaxed);
    }
    Ok(())
}

/// Installs [`on_signal`] for `signal`.
fn install(signal: i32) -> std::io::Result<()> {
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) = on_signal;
    // SAFETY: all zeros is an empty action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    // Not blocked while it runs: it never returns to a half-done handler.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
    // SAFETY: the action is complete, the handler has the type of SA_SIGINFO.
    let value = unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
    sys::check(i64::from(value)).map(|_| ())
}

extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    let stack = STACK.get();
    if stack == 0 {
        // Not within a guarded call: the test itself is broken.
        sys::exit(100 + signal);
    }
    // SAFETY: the kernel passes a valid siginfo and context; `stack` is the
    // address of a variable of the guarded call that is under way.
    unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        let registers = &mut context.uc_mcontext.gregs;
        CAUGHT.set(Some(Trap {
            signal,
            code: (*info).si_code,
            ip: registers[libc::REG_RIP as usize] as usize,
            addr: (*info).si_addr().addr(),
        }));
        let resume = jit_suite_resume as unsafe extern "C" fn();
        registers[libc::REG_RIP as usize] = resume as usize as i64;
        registers[libc::REG_RSP as usize] =
            *std::ptr::with_exposed_provenance::<usize>(stack) as i64;
    }
}
