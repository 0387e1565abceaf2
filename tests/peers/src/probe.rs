// SPDX-License-Identifier: GPL-2.0

//! What a trampoline does to a caller's registers and stack: [`probe`] calls code
//! with all registers set, and the code has to get to [`witness`], which notes what
//! it sees. One probe at a time in a process: what it keeps is static.

use std::arch::global_asm;
use std::sync::Mutex;

use crate::description::NAMES;

/// Words of the stack that are noted, from the stack pointer upwards.
pub const WORDS: usize = 16;

/// What a probe starts with, and what the witness saw.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The general registers, by their numbers. To begin with, a stack pointer of 0
    /// is the probe's own stack.
    pub registers: [u64; NAMES],
    /// The low halves of xmm0 to xmm7.
    pub vectors: [u64; 8],
    /// The stack, from the stack pointer upwards; not set to begin with.
    pub stack: [u64; WORDS],
}

// `peers_probe(code, from, seen)`. The return address that the call pushes is
// never returned to: the witness puts the stack back instead.
global_asm!(
    ".pushsection .text.peers_probe, \"ax\"",
    ".p2align 4",
    ".globl peers_probe",
    "peers_probe:",
    "push rbx; push rbp; push r12; push r13; push r14; push r15; sub rsp, 8",
    "mov [rip + peers_code], rdi",
    "mov [rip + peers_seen], rdx",
    "mov [rip + peers_rsp], rsp",
    "mov rax, rsi",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7",
    "movq xmm\\n, qword ptr [rax + 128 + 8 * \\n]",
    ".endr",
    "cmp qword ptr [rax + 32], 0",
    "je 1f",
    "mov rsp, [rax + 32]",
    "1: mov rcx, [rax + 8]; mov rdx, [rax + 16]; mov rbx, [rax + 24]",
    "mov rbp, [rax + 40]; mov rsi, [rax + 48]; mov rdi, [rax + 56]",
    "mov r8, [rax + 64]; mov r9, [rax + 72]; mov r10, [rax + 80]; mov r11, [rax + 88]",
    "mov r12, [rax + 96]; mov r13, [rax + 104]; mov r14, [rax + 112]; mov r15, [rax + 120]",
    "mov rax, [rax]",
    "call [rip + peers_code]",
    ".globl peers_after_call",
    "peers_after_call:",
    "ud2",
    "2: add rsp, 8; pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
    "ret",
    ".p2align 4",
    ".globl peers_witness",
    "peers_witness:",
    "endbr64",
    "mov [rip + peers_rax], rax",
    "mov rax, [rip + peers_seen]",
    "mov [rax + 8], rcx; mov [rax + 16], rdx; mov [rax + 24], rbx; mov [rax + 32], rsp",
    "mov [rax + 40], rbp; mov [rax + 48], rsi; mov [rax + 56], rdi",
    "mov [rax + 64], r8; mov [rax + 72], r9; mov [rax + 80], r10; mov [rax + 88], r11",
    "mov [rax + 96], r12; mov [rax + 104], r13; mov [rax + 112], r14; mov [rax + 120], r15",
    "mov rcx, [rip + peers_rax]",
    "mov [rax], rcx",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7",
    "movq qword ptr [rax + 128 + 8 * \\n], xmm\\n",
    ".endr",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
    "mov rcx, [rsp + 8 * \\n]",
    "mov [rax + 192 + 8 * \\n], rcx",
    ".endr",
    "mov rsp, [rip + peers_rsp]",
    "jmp 2b",
    ".popsection",
    ".pushsection .bss.peers_probe, \"aw\", @nobits",
    ".p2align 3",
    "peers_code: .zero 8",
    "peers_seen: .zero 8",
    "peers_rsp: .zero 8",
    "peers_rax: .zero 8",
    ".popsection",
);

unsafe extern "C" {
    fn peers_probe(code: usize, from: *const State, seen: *mut State);
    fn peers_witness();
    fn peers_after_call();
}

static PROBING: Mutex<()> = Mutex::new(());

/// Where the code has to go.
pub fn witness() -> usize {
    peers_witness as *const () as usize
}

/// The return address that a probe's call pushes.
pub fn after_call() -> u64 {
    peers_after_call as *const () as u64
}

/// Calls `code` with the registers of `from`; what the witness saw.
///
/// # Safety
///
/// `code` gets to the witness, on the stack that it was called on, or ends the
/// process. A stack pointer in `from` has room below and 128 bytes above it.
pub unsafe fn probe(code: usize, from: &State) -> State {
    let _one = PROBING.lock();
    let mut seen = *from;
    // SAFETY: By this function's contract the witness comes back here; it has
    // restored the stack, and the probe the registers that a callee keeps.
    unsafe { peers_probe(code, from, &mut seen) };
    seen
}
