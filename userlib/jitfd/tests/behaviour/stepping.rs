// SPDX-License-Identifier: MIT OR Apache-2.0

//! The unwinder at every single instruction of a trampoline and of what it goes
//! through: the CPU traps after each one, and the handler of that signal looks for its
//! callers.

use super::closure::jit;
use jitfd::space::SpaceOptions;
use jitfd::tools::EhFrame;
use jitfd::{Backend, Register};
use jitfd_trampoline::{Closure, SaveAllTrampoline, Thunk};
use std::arch::global_asm;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};

// step(function, argument): calls it with the trap flag set. Its own frame is found by
// rbp, so it is lost if an unwinder has that wrong.
global_asm!(
    ".pushsection .text.jitfd_test_step, \"ax\", @progbits",
    ".globl jitfd_test_step",
    ".type jitfd_test_step, @function",
    "jitfd_test_step:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "mov rax, rdi",
    "mov rdi, rsi",
    "pushfq",
    "or dword ptr [rsp], 0x100",
    "popfq",
    "call rax",
    ".globl jitfd_test_stepped",
    "jitfd_test_stepped:",
    "pushfq",
    "and dword ptr [rsp], 0xfffffeff",
    "popfq",
    "pop rbp",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
    ".size jitfd_test_step, . - jitfd_test_step",
    // Where a thunk goes that has pushed two values: their sum.
    ".globl jitfd_test_sum",
    ".type jitfd_test_sum, @function",
    "jitfd_test_sum:",
    ".cfi_startproc",
    ".cfi_def_cfa_offset 24",
    "pop rax",
    ".cfi_def_cfa_offset 16",
    "pop rcx",
    ".cfi_def_cfa_offset 8",
    "add rax, rcx",
    "ret",
    ".cfi_endproc",
    ".size jitfd_test_sum, . - jitfd_test_sum",
    ".popsection",
);

unsafe extern "C-unwind" {
    fn jitfd_test_step(function: *const c_void, argument: u64) -> u64;
    fn jitfd_test_stepped();
    fn jitfd_test_sum();
    // Of the library.
    #[link_name = concat!("jitfd_trampoline_registers_", env!("CARGO_PKG_VERSION"))]
    fn jitfd_trampoline_registers();
    #[link_name = concat!("jitfd_trampoline_registers_end_", env!("CARGO_PKG_VERSION"))]
    fn jitfd_trampoline_registers_end();
    #[link_name = concat!("jitfd_trampoline_return_", env!("CARGO_PKG_VERSION"))]
    fn jitfd_trampoline_return();
    #[link_name = concat!("jitfd_trampoline_return_end_", env!("CARGO_PKG_VERSION"))]
    fn jitfd_trampoline_return_end();
}

type Symbol = unsafe extern "C-unwind" fn();

/// The addresses from one symbol to another.
fn between(start: Symbol, end: Symbol) -> Range<usize> {
    let address = |symbol: Symbol| (symbol as *const c_void).addr();
    address(start)..address(end)
}

/// What to look at, and what was seen.
#[derive(Default)]
struct Watch {
    /// The trampoline.
    stub: Range<usize>,
    /// What it goes through, in the program's own text.
    body: Range<usize>,
    /// The addresses at which the callers were right, and the first at which they
    /// were not, with what was found there.
    right: BTreeSet<usize>,
    wrong: Vec<(usize, Vec<usize>)>,
    /// Instructions of all kinds.
    steps: usize,
}

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

extern "C" fn trapped(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes the registers of what was interrupted.
    let at = unsafe {
        let context = &*context.cast::<libc::ucontext_t>();
        context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize
    };
    WATCH.with_borrow_mut(|watch| {
        let Some(watch) = watch else {
            // Of another test, in a child that has inherited the handler.
            // SAFETY: ends this process as if there were no handler.
            unsafe {
                libc::signal(libc::SIGTRAP, libc::SIG_DFL);
                libc::raise(libc::SIGTRAP);
            }
            return;
        };
        watch.steps += 1;
        if !watch.stub.contains(&at) && !watch.body.contains(&at) {
            return;
        }
        let mut frames = Vec::new();
        // SAFETY: other tests that unwind meanwhile have locks of their own.
        unsafe {
            backtrace::trace_unsynchronized(|frame| {
                frames.push(frame.ip() as usize);
                frames.len() < 64
            });
        }
        let caller = jitfd_test_stepped as *const c_void;
        let here = frames.iter().position(|&ip| ip == at);
        // Its caller is the one that has called it, and that one has callers.
        let right = here.is_some_and(|here| {
            frames.get(here + 1) == Some(&caller.addr()) && frames.len() > here + 4
        });
        if right {
            watch.right.insert(at);
        } else if watch.wrong.len() < 10 {
            watch.wrong.push((at, frames));
        }
    });
}

/// Calls `function` one instruction at a time; looks at its callers where it is in its
/// 32 bytes or in `body`.
fn step(function: *const c_void, argument: u64, body: Range<usize>) -> (u64, Watch) {
    step_through(function, 32, argument, body)
}

/// The same for one of `len` bytes.
fn step_through(
    function: *const c_void,
    len: usize,
    argument: u64,
    body: Range<usize>,
) -> (u64, Watch) {
    let stub = function.addr()..function.addr() + len;
    // The handler is the process's.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let watch = Watch {
        stub,
        body,
        ..Watch::default()
    };
    WATCH.set(Some(watch));
    // What the unwinder does at first, it does now.
    backtrace::trace(|_| true);
    // SAFETY: the handler only looks; what is stepped through is there.
    let returned = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let mut old: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = trapped as *const c_void as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(
            libc::sigaction(libc::SIGTRAP, &raw const action, &raw mut old),
            0
        );
        let returned = jitfd_test_step(function, argument);
        libc::sigaction(libc::SIGTRAP, &raw const old, null_mut());
        returned
    };
    (returned, WATCH.take().unwrap())
}

fn check(watch: &Watch, least: usize) {
    assert!(
        watch.wrong.is_empty(),
        "wrong callers at {:x?}",
        watch.wrong
    );
    let right = watch.right.len();
    assert!(right >= least, "{right} addresses of {} steps", watch.steps);
    let in_stub = watch.right.iter().filter(|&at| watch.stub.contains(at));
    assert!(in_stub.count() >= 3, "the stub was stepped through");
}

pub fn callers_are_found_in_every_instruction_of_a_closure(backend: Backend) {
    let closure = Closure::new(&jit(backend), |number: u64| number + 1).unwrap();
    // SAFETY: the closure is there during the call.
    let start = unsafe { *closure.entry() } as *const c_void;
    let (returned, watch) = step(start, 41, 0..0);
    assert_eq!(returned, 42);
    check(&watch, 3);
}

pub fn callers_are_found_in_every_instruction_that_saves_registers(backend: Backend) {
    type One = extern "C" fn(u64) -> u64;
    // SAFETY: it reads and returns what such a function does.
    let closure = unsafe {
        Closure::<One>::with_registers(&jit(backend), |registers| {
            registers.set_result(registers.integers[0] + 1);
        })
    };
    let closure = closure.unwrap();
    let body = between(jitfd_trampoline_registers, jitfd_trampoline_registers_end);
    // SAFETY: the closure is there during the call.
    let start = unsafe { *closure.entry() } as *const c_void;
    let (returned, watch) = step(start, 41, body);
    assert_eq!(returned, 42);
    // 3 of the stub and 36 of the body.
    check(&watch, 39);
}

pub fn callers_are_found_in_every_instruction_of_a_return_trampoline(backend: Backend) {
    let jit = jit(backend);
    extern "C" fn add_one(number: u64) -> u64 {
        number + 1
    }
    for jumps in [false, true] {
        // SAFETY: it is called as such a function.
        let trampoline = SaveAllTrampoline::new(&jit, move |saved| unsafe {
            saved.set(Register::Rax, saved.get(Register::Rdi) + 1);
            if jumps {
                saved.jump(add_one as *const c_void);
            }
        });
        let trampoline = trampoline.unwrap();
        let body = between(jitfd_trampoline_return, jitfd_trampoline_return_end);
        let (returned, watch) = step(
            std::ptr::with_exposed_provenance(trampoline.address()),
            41,
            body,
        );
        assert_eq!(returned, 42);
        // 4 of the stub and more than 70 of the body.
        check(&watch, 74);
    }
}

pub fn callers_are_found_in_every_instruction_of_a_thunk(backend: Backend) {
    let space = jit(backend).space(SpaceOptions::default()).unwrap();
    let thunk = Thunk::to(jitfd_test_sum as *const c_void as usize);
    // Of each length, and of the kind that is a constant between code.
    let thunk = thunk
        .push(40)
        .push(2 << 40)
        .set(Register::R8, 1)
        .set(Register::Rdx, 1 << 40);
    let function = thunk.publish(&space, "sum").unwrap();
    let mut table = EhFrame::default();
    table
        .add(function.address, function.len, &thunk.frame().unwrap())
        .unwrap();
    // SAFETY: this is the code's frame, and the space outlives the table.
    let _table = unsafe { table.register() };
    let start = std::ptr::with_exposed_provenance(function.address);
    let (returned, watch) = step_through(start, function.len, 0, 0..0);
    assert_eq!(returned, 40 + (2 << 40));
    // endbr64, two pushes, two loads, a jump.
    check(&watch, 6);
}
