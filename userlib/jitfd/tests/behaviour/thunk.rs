// SPDX-License-Identifier: MIT OR Apache-2.0

//! Thunks: registers, pushed values and flags as the target finds them.

use super::closure::jit;
use super::process::{End, child};
use jitfd::space::SpaceOptions;
use jitfd::{Backend, CodeSpace, Mapping, RegionOptions, Register, Window};
use jitfd_trampoline::Thunk;
use std::arch::global_asm;
use std::sync::{Mutex, PoisonError};

// `enter` saves what a function must leave, sets the flags and all registers, and
// jumps to where `rdi` was.
// `seen` is a target that notes all it finds and goes back to the caller of `enter`.
global_asm!(
    "jitfd_thunk_enter:",
    "endbr64",
    "push rbx; push rbp; push r12; push r13; push r14; push r15",
    "lea rax, [rip + jitfd_thunk_found]",
    "mov [rax + 8 * 24], rsp",
    "mov [rax + 8 * 25], rdi",
    "mov eax, 0xd500",
    "sahf",
    "mov eax, 0x1000; mov ecx, 0x1001; mov edx, 0x1002; mov ebx, 0x1003; mov ebp, 0x1005",
    "mov esi, 0x1006; mov edi, 0x1007; mov r8d, 0x1008; mov r9d, 0x1009; mov r10d, 0x100a",
    "mov r11d, 0x100b; mov r12d, 0x100c; mov r13d, 0x100d; mov r14d, 0x100e; mov r15d, 0x100f",
    "jmp [rip + jitfd_thunk_found + 8 * 25]",
    "jitfd_thunk_seen:",
    "endbr64",
    "mov [rip + jitfd_thunk_found], rax",
    "lahf",
    "mov [rip + jitfd_thunk_found + 8 * 16], rax",
    "lea rax, [rip + jitfd_thunk_found]",
    "mov [rax + 8], rcx; mov [rax + 16], rdx; mov [rax + 24], rbx; mov [rax + 32], rsp",
    "mov [rax + 40], rbp; mov [rax + 48], rsi; mov [rax + 56], rdi; mov [rax + 64], r8",
    "mov [rax + 72], r9; mov [rax + 80], r10; mov [rax + 88], r11; mov [rax + 96], r12",
    "mov [rax + 104], r13; mov [rax + 112], r14; mov [rax + 120], r15",
    "mov rcx, [rsp]; mov [rax + 8 * 17], rcx",
    "mov rcx, [rsp + 8]; mov [rax + 8 * 18], rcx",
    "mov rcx, [rsp + 16]; mov [rax + 8 * 19], rcx",
    "mov rcx, [rsp + 24]; mov [rax + 8 * 20], rcx",
    "mov rsp, [rax + 8 * 24]",
    "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
    "ret",
    ".local jitfd_thunk_found",
    ".comm jitfd_thunk_found, 256, 16",
);

unsafe extern "C" {
    safe fn jitfd_thunk_enter(code: *const u8);
    safe fn jitfd_thunk_seen();
    fn jitfd_thunk_note(to: *mut [u64; 32]);
}

global_asm!(
    "jitfd_thunk_note:",
    "endbr64",
    "lea rsi, [rip + jitfd_thunk_found]",
    "mov ecx, 32",
    "rep movsq",
    "ret",
);

/// What the target found.
#[derive(Debug)]
struct Found {
    registers: [u64; 16],
    flags: u64,
    /// From `[rsp]` on.
    stack: [u64; 4],
    /// Where the stack was before the call of the code.
    caller: u64,
}

/// There is one place to note things in.
static TURN: Mutex<()> = Mutex::new(());

fn enter(code: *const u8) -> Found {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut all = [0; 32];
    jitfd_thunk_enter(code);
    // SAFETY: `all` has the size of what is copied.
    unsafe { jitfd_thunk_note(&raw mut all) };
    Found {
        registers: all[..16].try_into().unwrap(),
        flags: all[16] >> 8 & 0xff,
        stack: all[17..21].try_into().unwrap(),
        caller: all[24],
    }
}

fn to_seen() -> Thunk {
    Thunk::to(jitfd_thunk_seen as *const () as usize)
}

fn create(backend: Backend, thunk: &Thunk) -> Mapping {
    jit(backend).code(&thunk.code(None).unwrap()).unwrap()
}

fn pointer(code: &Mapping) -> *const u8 {
    std::ptr::with_exposed_provenance(code.address())
}

/// A value for each register: with 64, 32, 31 and 7 bits, and negative ones.
fn value(register: Register) -> u64 {
    let number = register as u64;
    let wide = 0x0123_4567_89ab_cdef_u64.rotate_left(4 * u32::try_from(number).unwrap());
    match number % 5 {
        0 => wide,
        1 => wide >> 32,
        2 => !(wide >> 34),
        3 => number,
        _ => !number,
    }
}

/// SF, ZF, AF, PF and CF, and the bit that is always set.
const FLAGS: u64 = 0xd7;

/// All registers but that of the stack.
fn others() -> impl Iterator<Item = Register> {
    Register::ALL
        .into_iter()
        .filter(|&register| register != Register::Rsp)
}

pub fn all_registers_are_set_at_once(backend: Backend) {
    let others = || {
        Register::ALL
            .into_iter()
            .filter(|&register| register != Register::Rsp)
    };
    let set = |thunk: Thunk, register| thunk.set(register, value(register));
    let code = create(backend, &others().fold(to_seen(), set));
    let found = enter(pointer(&code));
    for register in others() {
        let got = found.registers[register as usize];
        assert_eq!(got, value(register), "{register:?}");
    }
    assert_eq!(
        (found.flags, found.registers[Register::Rsp as usize]),
        (FLAGS, found.caller)
    );
}

pub fn a_register_that_is_not_set_stays(backend: Backend) {
    for register in others() {
        let code = create(backend, &to_seen().set(register, value(register)));
        let found = enter(pointer(&code));
        for seen in others() {
            let before = 0x1000 + seen as u64;
            let now = if seen == register {
                value(seen)
            } else {
                before
            };
            assert_eq!(
                found.registers[seen as usize], now,
                "{seen:?}, {register:?} set"
            );
        }
        let stack = found.registers[Register::Rsp as usize];
        assert_eq!((found.flags, stack), (FLAGS, found.caller));
    }
}

pub fn values_are_pushed_in_order(backend: Backend) {
    let values = [5, !6, 0x7654_3210, 0x1234_5678_9abc_def0];
    let thunk = values.into_iter().fold(to_seen(), Thunk::push);
    let found = enter(pointer(&create(backend, &thunk.set(Register::R11, 9))));
    let mut pushed = found.stack;
    pushed.reverse();
    assert_eq!(pushed, values);
    let stack = found.registers[Register::Rsp as usize];
    assert_eq!(
        (found.caller - stack, found.registers[11], found.flags),
        (32, 9, FLAGS)
    );
}

pub fn another_stack_can_be_pushed_on(backend: Backend) {
    let mut stack = vec![0_u64; 512];
    let end = stack.as_mut_ptr().wrapping_add(500) as u64;
    let thunk = to_seen()
        .push(7)
        .set(Register::Rsp, end)
        .set(Register::Rax, 3);
    let found = enter(pointer(&create(backend, &thunk)));
    assert_eq!(found.registers[Register::Rsp as usize], end - 8);
    assert_eq!((found.registers[0], found.stack[0]), (3, 7));
}

extern "C" fn add(first: u64, second: u64) -> u64 {
    first + second
}

fn space(backend: Backend, window: Option<Window>) -> CodeSpace {
    let region = RegionOptions {
        capacity: 1 << 20,
        window,
        ..Default::default()
    };
    let options = SpaceOptions {
        region,
        ..Default::default()
    };
    jit(backend).space(options).unwrap()
}

fn adder(number: u64) -> Thunk {
    Thunk::to(add as *const () as usize).set(Register::Rsi, number)
}

pub fn thunks_are_published_near_and_far(backend: Backend) {
    let near = Window::reaching(add as *const () as usize);
    for (window, longest) in [(Some(near), 32), (None, 40)] {
        let space = space(backend, window);
        let mut functions = Vec::new();
        for number in 0..500 {
            functions.push(adder(number << 25).publish(&space, "one").unwrap());
        }
        let many =
            Vec::from_iter((500..1500).map(|number| adder(number << 25).code(None).unwrap()));
        let named = Vec::from_iter(many.iter().map(|code| ("many", code)));
        functions.extend(space.publish_all(&named).unwrap());
        for (number, function) in functions.into_iter().enumerate() {
            // SAFETY: `add` gets its second argument by the code.
            let call = unsafe { space.entry::<extern "C" fn(u64) -> u64>(function) }.unwrap();
            assert_eq!(call(2), 2 + ((number as u64) << 25));
            assert!(function.len <= longest);
        }
    }
}

pub fn no_store_changes_a_thunk(backend: Backend) {
    let code = create(backend, &adder(1 << 40));
    for offset in (0..code.len()).step_by(8) {
        let at = pointer(&code).wrapping_add(offset).cast_mut();
        // SAFETY: the store does not happen: the page is not writable.
        let stored = child(|| unsafe {
            at.write_volatile(0);
            0
        });
        assert_eq!(stored, End::Signal(libc::SIGSEGV));
    }
}
