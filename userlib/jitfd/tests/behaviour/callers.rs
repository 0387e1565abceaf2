// SPDX-License-Identifier: MIT OR Apache-2.0

//! The callers of a handler, found through what called it.

use super::closure::jit;
use jitfd::Backend;
use jitfd_trampoline::{Closure, SaveAllTrampoline};
use std::cell::RefCell;
use std::ffi::c_void;

thread_local! {
    static TRACE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// The functions of the callers.
fn trace() {
    let mut functions = Vec::new();
    backtrace::trace(|frame| {
        functions.push(frame.symbol_address() as usize);
        true
    });
    TRACE.set(functions);
}

/// Calls a function by its address, and is found as its caller. Not a tail call: it
/// uses the result.
#[inline(never)]
extern "C-unwind" fn calls(function: *const c_void) -> u64 {
    type Seven = unsafe extern "C-unwind" fn(u64, u64, u64, u64, u64, u64, u64) -> u64;
    // SAFETY: the tests pass functions that take any of these.
    let function = unsafe { std::mem::transmute::<*const c_void, Seven>(function) };
    // SAFETY: as above.
    std::hint::black_box(unsafe { function(1, 2, 3, 4, 5, 6, 7) }) + 1
}

unsafe extern "C-unwind" {
    // Of the library.
    #[link_name = concat!("jitfd_trampoline_registers_", env!("CARGO_PKG_VERSION"))]
    fn jitfd_trampoline_registers();
    #[link_name = concat!("jitfd_trampoline_return_", env!("CARGO_PKG_VERSION"))]
    fn jitfd_trampoline_return();
}

/// Whether the callers are, in this order but not only, `functions`, then `calls`, then
/// the test's own.
fn found(function: *const c_void, functions: &[*const c_void]) -> bool {
    calls(function);
    let trace = TRACE.take();
    let wanted = functions.iter().copied().chain([calls as *const c_void]);
    let mut rest = trace.iter();
    let all = wanted
        .into_iter()
        .all(|wanted| rest.any(|&seen| seen == wanted.addr()));
    all && rest.count() >= 3
}

pub fn handlers_find_their_callers(backend: Backend) {
    type Any = unsafe extern "C" fn();
    let jit = &jit(backend);
    // SAFETY: the closures are there when they are called.
    unsafe {
        let few = Closure::new(jit, |_: u64| trace()).unwrap();
        assert!(found(*few.entry() as *const c_void, &[]));
        let many = |_: u64, _: u64, _: u64, _: u64, _: u64, _: u64| trace();
        let many = Closure::new(jit, many).unwrap();
        let registers = jitfd_trampoline_registers as *const c_void;
        assert!(found(*many.entry() as *const c_void, &[registers]));
        let whole = Closure::<Any>::with_registers(jit, |_| trace()).unwrap();
        assert!(found(*whole.entry() as *const c_void, &[registers]));
        let save_all = SaveAllTrampoline::new(jit, |_| trace()).unwrap();
        let body = jitfd_trampoline_return as *const c_void;
        assert!(found(*save_all.entry::<Any>() as *const c_void, &[body]));
    }
}
