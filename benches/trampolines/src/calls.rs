// SPDX-License-Identifier: GPL-2.0

//! The calls that are timed, one loop for all ways.

use std::arch::global_asm;
use std::hint::black_box;
use std::mem::transmute;

use jitfd_peers::target;

use crate::marks;

/// How every trampoline is called. It replaces the second argument; the floors,
/// which do not, get the context that way.
type Function = extern "C" fn(u64, *const u64) -> u64;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee {
    /// The target, by its name.
    Direct,
    /// An address that is called as a [`Function`].
    At(usize),
}

impl Callee {
    /// Its address.
    pub fn address(self) -> usize {
        match self {
            Callee::Direct => target as *const () as usize,
            Callee::At(address) => address,
        }
    }
}

/// # Safety
///
/// The address is that of a function of this type, which lives.
unsafe fn function(address: usize) -> Function {
    // SAFETY: By this function's contract.
    unsafe { transmute(address) }
}

// The loop has a page of its own: the emulator finds what an indirect jump or a return
// goes to by the number of its page and a few bits of its place in there. Two that are
// alike in that are looked up at each call, which takes longer than the call; on one
// page with a closure's function, the loop was, by what the compiler put between them.
global_asm!(
    ".pushsection .text.trampolines_each, \"ax\"",
    ".globl trampolines_each",
    ".type trampolines_each, @function",
    ".p2align 12, 0xcc",
    "trampolines_each:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "mov rbx, rdi",
    "lea rbp, [rdi + 8 * rsi]",
    "mov r12, rdx",
    "xor r13d, r13d",
    "jmp 3f",
    "2:",
    "mov edi, 1",
    "mov rsi, r12",
    "call qword ptr [rbx]",
    "add r13, rax",
    "add rbx, 8",
    "3:",
    "cmp rbx, rbp",
    "jne 2b",
    "mov rax, r13",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".size trampolines_each, . - trampolines_each",
    ".p2align 12, 0xcc",
    ".popsection",
);

unsafe extern "C" {
    fn trampolines_each(addresses: *const usize, count: usize, context: *const u64) -> u64;
}

/// Calls all addresses, one after the other; the sum of what they return.
///
/// # Safety
///
/// All are functions of this type, which live.
pub unsafe fn each(addresses: &[usize], context: *const u64) -> u64 {
    // SAFETY: So many addresses, of functions by this function's contract; the stack is
    // aligned at their call.
    unsafe { trampolines_each(addresses.as_ptr(), addresses.len(), context) }
}

/// The same for the target itself.
#[inline(never)]
pub fn each_direct(count: usize, context: &u64) -> u64 {
    let mut sum = 0u64;
    for _ in 0..count {
        // SAFETY: The context is a number.
        sum = sum.wrapping_add(unsafe { target(1, black_box(context)) });
    }
    sum
}

/// One call between the marks of the counter.
///
/// # Safety
///
/// It is a function of this type, which lives.
#[inline(never)]
pub unsafe fn counted(callee: Callee, context: &u64) -> u64 {
    // SAFETY: By this function's contract, or unused.
    let function = unsafe { function(callee.address()) };
    let direct = callee == Callee::Direct;
    let context = black_box(context);
    if direct {
        marks::begin();
        // SAFETY: The context is a number.
        let result = unsafe { target(1, context) };
        marks::end();
        return result;
    }
    marks::begin();
    let result = function(1, context);
    marks::end();
    result
}

/// The same for `time()` at an address of its own; the seconds.
///
/// # Safety
///
/// It is that function.
#[inline(never)]
pub unsafe fn emulated(address: usize) -> i64 {
    // SAFETY: By this function's contract.
    let time: extern "C" fn(*mut i64) -> i64 = unsafe { transmute(address) };
    marks::begin();
    let result = time(std::ptr::null_mut());
    marks::end();
    result
}
