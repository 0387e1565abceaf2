// SPDX-License-Identifier: MIT OR Apache-2.0

//! Functions of any type, made at run time, which see the registers that they are
//! called with.

use crate::backend::{JITFD_FALLBACK_DEFAULT, jit};
use crate::guard::{self, Failure};
use crate::pointer;
use crate::table::{self, jitfd_function};
use jitfd_trampoline::{Closure, Registers};
use std::ffi::c_void;

/// What a function was called with, whatever its type, and what it is to return. It
/// may grow at its end.
#[repr(C)]
pub struct jitfd_registers {
    /// rdi, rsi, rdx, rcx, r8, r9: the first integers and pointers.
    pub integers: [u64; 6],
    /// xmm0 to xmm7, two halves each, the lower one first: the first floating point
    /// numbers.
    pub vectors: [[u64; 2]; 8],
    /// The other arguments, of 8 bytes or a multiple of that each.
    pub stack: *const u64,
    /// Of a variadic function: how many of the vectors are used at most.
    pub vector_count: u64,
    /// Out: rax and rdx, for an integer, a pointer or two of them. At first 0.
    pub returned: [u64; 2],
    /// Out: xmm0 and xmm1. At first 0.
    pub returned_vectors: [[u64; 2]; 2],
}

/// Sees the registers of a call, and sets what it returns. By any thread that calls;
/// may throw C++ exceptions.
pub type jitfd_closure_handler =
    Option<unsafe extern "C-unwind" fn(registers: *mut jitfd_registers, data: *mut c_void)>;

/// What has made a function of any type, at run time, that calls a handler.
pub struct jitfd_closure {
    _closure: Closure<'static, unsafe extern "C-unwind" fn()>,
}

/// What C passes along. Its threads are its own business.
#[derive(Clone, Copy)]
pub(crate) struct Data(pub(crate) *mut c_void);

// SAFETY: it is only passed on, to a handler that any thread may call.
unsafe impl Send for Data {}
// SAFETY: as above.
unsafe impl Sync for Data {}

impl Data {
    pub(crate) const fn get(self) -> *mut c_void {
        self.0
    }
}

/// Makes a function that calls handler with the registers it was called with, and
/// data; by what the process allows. Stores the function, which is valid until the
/// closure is given back: jitfd_closure_destroy.
///
/// Returns null with errno as jitfd_table_create; EINVAL if handler or function is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_closure_create(
    handler: jitfd_closure_handler,
    data: *mut c_void,
    function: *mut jitfd_function,
) -> *mut jitfd_closure {
    let data = Data(data);
    guard::object(|| {
        let handler = handler.ok_or(Failure::NULL)?;
        pointer::wanted(function)?;
        let call = move |registers: &mut Registers| {
            let mut seen = jitfd_registers {
                integers: *registers.integers,
                vectors: *registers.vectors,
                stack: registers.stack,
                vector_count: registers.vector_count.into(),
                returned: [0; 2],
                returned_vectors: [[0; 2]; 2],
            };
            // SAFETY: the header says what the handler must be.
            unsafe { handler(&raw mut seen, data.get()) };
            *registers.returned = seen.returned;
            *registers.returned_vectors = seen.returned_vectors;
        };
        let jit = jit(JITFD_FALLBACK_DEFAULT)?;
        // SAFETY: the handler reads and returns what its callers pass and expect, as the
        // header says.
        let closure = unsafe { Closure::<unsafe extern "C" fn()>::with_registers(jit, call) }?;
        let closure = closure.unwinding();
        // SAFETY: the header says what this pointer must be, and what callers ensure.
        unsafe {
            let entry = *closure.entry() as *mut c_void;
            pointer::store(function, table::function(entry));
        }
        Ok(jitfd_closure { _closure: closure })
    })
}

/// Gives a closure back, whose function nobody calls from now on, nor is in. Null is
/// allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_closure_destroy(closure: *mut jitfd_closure) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(closure) }));
}
