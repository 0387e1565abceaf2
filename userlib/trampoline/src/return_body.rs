// SPDX-License-Identifier: MIT OR Apache-2.0

//! The body of return trampolines: it saves all registers, finds out which of the
//! many trampolines was entered, calls its handler, and goes back or elsewhere with
//! what the handler made of the registers.
//!
//! A stub pushes `rax`, loads its own address there and jumps here:
//!
//! ```text
//!     endbr64
//!     push rax
//! 1:  lea rax, [start of the stub]
//!     jmp [target of the stub's slot]
//! ```
//!
//! The stack from then on, by descending addresses:
//!
//! ```text
//! | return address | rax | flags | Saved:          | ... | state, a multiple of 64 |
//! ```
//!
//! Each call is returned from and nothing else is: the way out is `ret` with the
//! address that the caller has pushed, or a jump. So a shadow stack stays in step.
//! The jump's target is read from below the stack pointer, where the ABI keeps signal
//! handlers from writing (the red zone).
#![expect(unsafe_code, reason = "this is the file for it")]

use crate::saved::layout;
use crate::stub::{SLOT, STUB, Shape};
use std::arch::global_asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::ffi::c_void;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// The one shape of copies that the body knows.
pub(crate) const CAPACITY: usize = 4096;
const SHAPE: Shape = Shape::new(CAPACITY);

/// Where the floating point and vector registers go: how many bytes they take, and
/// which components are saved by `xsave64`. No component means `fxsave64`.
///
/// # Invariants
/// Written before the first trampoline that leads here is made, and never changed:
/// bytes for all the components and the header, a multiple of 64.
#[repr(C)]
struct Plan {
    size: AtomicU64,
    components: AtomicU64,
}

static PLAN: Plan = Plan {
    size: AtomicU64::new(HEADER_END),
    components: AtomicU64::new(0),
};

/// x87, xmm, ymm, the mask registers, zmm: what a program computes with. Not the
/// protection keys, which are no one function's to restore, nor tiles, nor `r16` to
/// `r31`, which the ABI has callers save.
const COMPONENTS: u64 = 0b1110_0111;

/// Where the header of `xsave64` ends, and the third component begins.
const HEADER_END: u64 = 576;

/// Finds out what the CPU and the kernel have. To be called before anybody can get
/// to the body.
pub(crate) fn prepare() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        if is_x86_feature_detected!("xsave") {
            // SAFETY: the CPU and the kernel have xsave.
            let (size, components) = unsafe { extended() };
            // INVARIANT: nobody can be in the body yet, and this is done once.
            PLAN.size.store(size, Ordering::Relaxed);
            PLAN.components.store(components, Ordering::Relaxed);
        }
    });
}

/// The bytes that the components need, and those that are enabled.
///
/// # Safety
/// The CPU and the kernel have `xsave`.
#[target_feature(enable = "xsave")]
unsafe fn extended() -> (u64, u64) {
    // SAFETY: as promised by the caller; register 0 always exists.
    let components = unsafe { _xgetbv(0) } & COMPONENTS;
    let end_of = |component: u32| {
        #[allow(unused_unsafe, reason = "safe from some version of Rust on")]
        // SAFETY: every CPU with xsave has this leaf.
        let leaf = unsafe { __cpuid_count(0xd, component) };
        u64::from(leaf.ebx) + u64::from(leaf.eax)
    };
    let used = (2..64).filter(|component| components & (1 << component) != 0);
    let end = used.map(end_of).fold(HEADER_END, u64::max);
    (end.next_multiple_of(64), components)
}

/// The symbol of the body: another version of this crate in the same program has
/// another. (Its dots are why it is quoted below.)
macro_rules! name {
    () => {
        concat!("jitfd_trampoline_return_", env!("CARGO_PKG_VERSION"))
    };
}

macro_rules! end {
    () => {
        concat!("jitfd_trampoline_return_end_", env!("CARGO_PKG_VERSION"))
    };
}

// Before the call of the handler the stack pointer is a multiple of 64.
global_asm!(
    ".pushsection .text.jitfd_trampoline_return, \"ax\", @progbits",
    ".p2align 4",
    concat!(".globl ", "\"", name!(), "\""),
    concat!(".hidden ", "\"", name!(), "\""),
    concat!(".type ", "\"", name!(), "\"", ", @function"),
    concat!("\"", name!(), "\"", ":"),
    ".cfi_startproc",
    // The stub has pushed rax.
    ".cfi_def_cfa_offset 16",
    "endbr64",
    "pushfq",
    ".cfi_def_cfa_offset 24",
    // Not `sub`, which comes too late for the flags but is not what `cld` undoes.
    "lea rsp, [rsp - {flags}]",
    ".cfi_def_cfa_offset 24 + {flags}",
    "mov [rsp + {trampoline}], rax",
    "mov rax, [rsp + {pushed}]",
    "mov [rsp], rax",
    "mov [rsp + 8], rcx",
    "mov [rsp + 16], rdx",
    "mov [rsp + 24], rbx",
    "lea rax, [rsp + {return_address}]",
    "mov [rsp + 32], rax",
    "mov [rsp + 40], rbp",
    ".cfi_offset rbp, 40 - 24 - {flags}",
    "mov [rsp + 48], rsi",
    "mov [rsp + 56], rdi",
    "mov [rsp + 64], r8",
    "mov [rsp + 72], r9",
    "mov [rsp + 80], r10",
    "mov [rsp + 88], r11",
    "mov [rsp + 96], r12",
    "mov [rsp + 104], r13",
    "mov [rsp + 112], r14",
    "mov [rsp + 120], r15",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "cld",
    "sub rsp, [rip + {plan}]",
    "and rsp, -64",
    "mov [rbp + {state}], rsp",
    "mov rax, [rip + {plan} + 8]",
    "xor edx, edx",
    "mov [rbp + {target}], rdx",
    "test eax, eax",
    "jz 2f",
    // xrstor64 wants zeroes in the header where xsave64 writes nothing.
    "mov [rsp + {header}], rdx",
    "mov [rsp + {header} + 8], rdx",
    "mov [rsp + {header} + 16], rdx",
    "mov [rsp + {header} + 24], rdx",
    "mov [rsp + {header} + 32], rdx",
    "mov [rsp + {header} + 40], rdx",
    "mov [rsp + {header} + 48], rdx",
    "mov [rsp + {header} + 56], rdx",
    "xsave64 [rsp]",
    "jmp 3f",
    "2:",
    "fxsave64 [rsp]",
    "3:",
    // The copy from the address of the stub; the slot from its number there.
    "mov rax, [rbp + {trampoline}]",
    "mov ecx, {copy_mask}",
    "and rcx, rax",
    "sub rax, rcx",
    "shr rcx, {slot_shift}",
    "mov rsi, [rax + rcx + {code_len}]",
    "mov rdi, rbp",
    "call [rsi]",
    "mov rax, [rip + {plan} + 8]",
    "xor edx, edx",
    "test eax, eax",
    "jz 4f",
    "xrstor64 [rsp]",
    "jmp 5f",
    "4:",
    "fxrstor64 [rsp]",
    "5:",
    "mov rsp, rbp",
    ".cfi_def_cfa_register rsp",
    "mov rcx, [rsp + 8]",
    "mov rdx, [rsp + 16]",
    "mov rbx, [rsp + 24]",
    "mov rbp, [rsp + 40]",
    ".cfi_restore rbp",
    "mov rsi, [rsp + 48]",
    "mov rdi, [rsp + 56]",
    "mov r8, [rsp + 64]",
    "mov r9, [rsp + 72]",
    "mov r10, [rsp + 80]",
    "mov r11, [rsp + 88]",
    "mov r12, [rsp + 96]",
    "mov r13, [rsp + 104]",
    "mov r14, [rsp + 112]",
    "mov r15, [rsp + 120]",
    "mov rax, [rsp + {target}]",
    "test rax, rax",
    "mov rax, [rsp]",
    // From here on the flags are restored, so both ways do the same.
    "jnz 6f",
    "lea rsp, [rsp + {flags}]",
    ".cfi_def_cfa_offset 24",
    "popfq",
    ".cfi_def_cfa_offset 16",
    "lea rsp, [rsp + 8]",
    ".cfi_def_cfa_offset 8",
    "ret",
    "6:",
    ".cfi_def_cfa_offset 24 + {flags}",
    "lea rsp, [rsp + {flags}]",
    ".cfi_def_cfa_offset 24",
    "popfq",
    ".cfi_def_cfa_offset 16",
    "lea rsp, [rsp + 8]",
    ".cfi_def_cfa_offset 8",
    "jmp [rsp + {target} - {return_address}]",
    ".cfi_endproc",
    concat!("\"", end!(), "\"", ":"),
    concat!(".size ", "\"", name!(), "\"", ", . - ", "\"", name!(), "\""),
    concat!(".globl ", "\"", end!(), "\""),
    concat!(".hidden ", "\"", end!(), "\""),
    ".popsection",
    plan = sym PLAN,
    flags = const layout::FLAGS,
    trampoline = const layout::TRAMPOLINE,
    pushed = const layout::PUSHED,
    return_address = const layout::RETURN_ADDRESS,
    target = const layout::TARGET,
    state = const layout::STATE,
    header = const layout::HEADER,
    copy_mask = const SHAPE.align() - 1,
    slot_shift = const (STUB / SLOT).ilog2(),
    code_len = const SHAPE.code_len(),
);

// The general registers come first, the target is within the red zone, and flags
// and rax are pushed on top of them.
const _: () = assert!(layout::GENERAL == 0 && layout::RETURN_ADDRESS - layout::TARGET <= 128);
const _: () = assert!(layout::PUSHED == layout::FLAGS + 8);
const _: () = assert!(layout::RETURN_ADDRESS == layout::FLAGS + 16);

unsafe extern "C" {
    #[link_name = name!()]
    fn jitfd_trampoline_return();
    #[cfg(test)]
    #[link_name = end!()]
    fn jitfd_trampoline_return_end();
}

/// Where the stubs go. The context is the address of a
/// [`Marshalled`](crate::marshal::Marshalled).
pub(crate) fn body() -> *const c_void {
    jitfd_trampoline_return as *const c_void
}

/// The addresses of the body's bytes.
#[cfg(test)]
pub(crate) fn extent() -> std::ops::Range<usize> {
    let end = jitfd_trampoline_return_end as *const c_void;
    body().addr()..end.addr()
}
