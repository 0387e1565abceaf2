// SPDX-License-Identifier: MIT OR Apache-2.0

//! The body of the all-register form: it saves every register that an argument can
//! be in, calls a handler, and returns what that has set.
//!
//! A trampoline whose context register is `r10` jumps here:
//!
//! ```text
//! caller --call--> stub --jmp--> body --call--> handler(registers, r10)
//!        <----------------ret--  body <--ret--  handler
//! ```
//!
//! It is part of the program's text, with unwind tables as any function has them, so
//! panics and exceptions of the handler pass if that lets them.
#![expect(unsafe_code, reason = "this is the file for it")]

use crate::registers::{Call, Registers, layout};
use std::arch::global_asm;
use std::ffi::c_void;

// At the call of the handler the stack pointer is a multiple of 16: it was before the
// call that came here, and 8 + 8 + SIZE is one.
const _: () = assert!(layout::SIZE % 16 == 0 && layout::VECTORS % 16 == 0);
const _: () = assert!(layout::RETURNED_VECTORS % 16 == 0);

/// The symbol of the body: another version of this crate in the same program has
/// another. (Its dots are why it is quoted below.)
macro_rules! name {
    () => {
        concat!("jitfd_trampoline_registers_", env!("CARGO_PKG_VERSION"))
    };
}

macro_rules! end {
    () => {
        concat!("jitfd_trampoline_registers_end_", env!("CARGO_PKG_VERSION"))
    };
}

global_asm!(
    ".pushsection .text.jitfd_trampoline_registers, \"ax\", @progbits",
    ".p2align 4",
    concat!(".globl ", "\"", name!(), "\""),
    concat!(".hidden ", "\"", name!(), "\""),
    concat!(".type ", "\"", name!(), "\"", ", @function"),
    concat!("\"", name!(), "\"", ":"),
    ".cfi_startproc",
    "endbr64",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "sub rsp, {size}",
    "mov [rsp + {integers}], rdi",
    "mov [rsp + {integers} + 8], rsi",
    "mov [rsp + {integers} + 16], rdx",
    "mov [rsp + {integers} + 24], rcx",
    "mov [rsp + {integers} + 32], r8",
    "mov [rsp + {integers} + 40], r9",
    "mov [rsp + {rax}], rax",
    "mov [rsp + {r10}], r10",
    "mov [rsp + {r11}], r11",
    "lea rax, [rbp + 16]",
    "mov [rsp + {stack}], rax",
    "movaps [rsp + {vectors}], xmm0",
    "movaps [rsp + {vectors} + 16], xmm1",
    "movaps [rsp + {vectors} + 32], xmm2",
    "movaps [rsp + {vectors} + 48], xmm3",
    "movaps [rsp + {vectors} + 64], xmm4",
    "movaps [rsp + {vectors} + 80], xmm5",
    "movaps [rsp + {vectors} + 96], xmm6",
    "movaps [rsp + {vectors} + 112], xmm7",
    // What the handler does not set is returned as 0.
    "xorps xmm0, xmm0",
    "movaps [rsp + {returned}], xmm0",
    "movaps [rsp + {returned_vectors}], xmm0",
    "movaps [rsp + {returned_vectors} + 16], xmm0",
    "mov rdi, rsp",
    "mov rsi, r10",
    "call [r10]",
    "mov rax, [rsp + {returned}]",
    "mov rdx, [rsp + {returned} + 8]",
    "movaps xmm0, [rsp + {returned_vectors}]",
    "movaps xmm1, [rsp + {returned_vectors} + 16]",
    "leave",
    ".cfi_def_cfa rsp, 8",
    ".cfi_restore rbp",
    "ret",
    ".cfi_endproc",
    concat!("\"", end!(), "\"", ":"),
    concat!(".size ", "\"", name!(), "\"", ", . - ", "\"", name!(), "\""),
    concat!(".globl ", "\"", end!(), "\""),
    concat!(".hidden ", "\"", end!(), "\""),
    ".popsection",
    size = const layout::SIZE,
    integers = const layout::INTEGERS,
    rax = const layout::RAX,
    r10 = const layout::R10,
    r11 = const layout::R11,
    stack = const layout::STACK,
    returned = const layout::RETURNED,
    vectors = const layout::VECTORS,
    returned_vectors = const layout::RETURNED_VECTORS,
);

unsafe extern "C" {
    #[link_name = name!()]
    fn jitfd_trampoline_registers();
    #[cfg(test)]
    #[link_name = end!()]
    fn jitfd_trampoline_registers_end();
}

/// Where a trampoline of this form goes. Its context is the address of a
/// [`Marshalled`].
pub(crate) fn body() -> *const c_void {
    jitfd_trampoline_registers as *const c_void
}

/// The addresses of the body's bytes.
#[cfg(test)]
pub(crate) fn extent() -> std::ops::Range<usize> {
    let end = jitfd_trampoline_registers_end as *const c_void;
    body().addr()..end.addr()
}

/// What a body calls: with the registers and the address of a [`Marshalled`].
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Handler(*const c_void);

// SAFETY: the address of a function.
unsafe impl Send for Handler {}
// SAFETY: as above.
unsafe impl Sync for Handler {}

impl Handler {
    /// For a handler that ends the program if it panics.
    pub(crate) fn aborting(handler: unsafe extern "C" fn(*mut c_void, *const c_void)) -> Self {
        Self(handler as *const c_void)
    }

    /// For a handler whose panics go on in the caller.
    pub(crate) fn unwinding(
        handler: unsafe extern "C-unwind" fn(*mut c_void, *const c_void),
    ) -> Self {
        Self(handler as *const c_void)
    }
}

/// The context of a trampoline of this form: what the body calls, and what is called
/// by that in the end.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Marshalled<H> {
    pub(crate) handler: Handler,
    pub(crate) value: H,
}

/// The handlers of closures that take the registers as they are.
pub(crate) fn whole<F: Fn(&mut Registers)>(unwinds: bool) -> Handler {
    /// # Safety
    /// As the body calls it, with a context that is a `Marshalled<F>`.
    unsafe fn call<F: Fn(&mut Registers)>(registers: *mut c_void, context: *const c_void) {
        // SAFETY: as promised by the caller; nobody else has the registers.
        let (registers, closure) = unsafe {
            (
                &mut *registers.cast::<Call>(),
                &*context.cast::<Marshalled<F>>(),
            )
        };
        (closure.value)(&mut Registers::of(registers));
    }
    unsafe extern "C" fn aborting<F: Fn(&mut Registers)>(
        registers: *mut c_void,
        context: *const c_void,
    ) {
        // SAFETY: what the body passes.
        unsafe { call::<F>(registers, context) }
    }
    unsafe extern "C-unwind" fn unwinding<F: Fn(&mut Registers)>(
        registers: *mut c_void,
        context: *const c_void,
    ) {
        // SAFETY: as above.
        unsafe { call::<F>(registers, context) }
    }
    if unwinds {
        Handler::unwinding(unwinding::<F>)
    } else {
        Handler::aborting(aborting::<F>)
    }
}
