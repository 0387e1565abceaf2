// SPDX-License-Identifier: GPL-2.0

//! libffi's closures, as `ffi_closure_alloc` gives them on Linux: static
//! trampolines, which are code of the library's own file, mapped again next to a
//! page of data. And these trampolines alone, without the marshalling behind them.

use std::arch::global_asm;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr::{NonNull, null_mut};

use libffi_sys as raw;

use crate::target;

/// A closure over one number: [`target`] with its context.
///
/// # Invariants
///
/// `closure` was given by `ffi_closure_alloc` and prepared with `cif` and a context
/// that lives as long; `code` is its entry.
pub struct Ffi<'a> {
    closure: NonNull<raw::ffi_closure>,
    code: usize,
    _cif: &'a Signature,
    _context: &'a u64,
}

/// The type of the closures: a number to a number.
pub struct Signature {
    cif: raw::ffi_cif,
}

impl Signature {
    /// Prepares it. It is read by every call.
    pub fn new() -> Option<&'static Signature> {
        let types = Box::leak(Box::new([&raw mut raw::ffi_type_uint64]));
        let mut cif = MaybeUninit::<raw::ffi_cif>::zeroed();
        // SAFETY: The types are static and leaked; `cif` has room.
        let status = unsafe {
            raw::ffi_prep_cif(
                cif.as_mut_ptr(),
                raw::ffi_abi_FFI_DEFAULT_ABI,
                1,
                &raw mut raw::ffi_type_uint64,
                types.as_mut_ptr(),
            )
        };
        // SAFETY: Prepared; and all zeroes would be valid too.
        let cif = unsafe { cif.assume_init() };
        (status == raw::ffi_status_FFI_OK).then(|| &*Box::leak(Box::new(Signature { cif })))
    }

    fn cif(&self) -> *mut raw::ffi_cif {
        (&raw const self.cif).cast_mut()
    }
}

/// What libffi calls: the arguments by pointers.
unsafe extern "C" fn handler(
    _: *mut raw::ffi_cif,
    result: *mut c_void,
    arguments: *mut *mut c_void,
    context: *mut c_void,
) {
    // SAFETY: The signature has one number, and gives one; `context` is what the
    // closure was prepared with.
    unsafe {
        let argument = arguments.read().cast::<u64>().read();
        result
            .cast::<u64>()
            .write(target(argument, context.cast_const().cast()));
    }
}

impl<'a> Ffi<'a> {
    /// Allocates and prepares one.
    pub fn new(signature: &'a Signature, context: &'a u64) -> Option<Self> {
        let mut code = null_mut();
        // SAFETY: `code` has room for the entry.
        let closure = unsafe { raw::ffi_closure_alloc(size_of::<raw::ffi_closure>(), &mut code) };
        let closure = NonNull::new(closure.cast::<raw::ffi_closure>())?;
        // SAFETY: Both come from the allocation; the signature and the context
        // outlive the closure by this type's lifetime.
        let status = unsafe {
            raw::ffi_prep_closure_loc(
                closure.as_ptr(),
                signature.cif(),
                Some(handler),
                (&raw const *context).cast_mut().cast(),
                code,
            )
        };
        let made = Ffi {
            closure,
            code: code.addr(),
            _cif: signature,
            _context: context,
        };
        (status == raw::ffi_status_FFI_OK).then_some(made)
    }

    /// Its address.
    pub fn code(&self) -> usize {
        self.code
    }
}

impl Drop for Ffi<'_> {
    fn drop(&mut self) {
        // SAFETY: It comes from the allocation, by the type's invariant.
        unsafe { raw::ffi_closure_free(self.closure.as_ptr().cast()) };
    }
}

// libffi's own interface between its closures and its trampolines.
unsafe extern "C" {
    fn ffi_tramp_alloc(flags: c_int) -> *mut c_void;
    fn ffi_tramp_set_parms(trampoline: *mut c_void, target: *mut c_void, data: *mut c_void);
    fn ffi_tramp_get_addr(trampoline: *mut c_void) -> *mut c_void;
    fn ffi_tramp_free(trampoline: *mut c_void);
    fn ffi_tramp_is_supported() -> c_int;

    fn peers_bare_target();
}

// A static trampoline pushes r10, the context and 0 to 8 bytes of nothing; its
// target has to put the stack right again. This is the least that a target can
// do: it makes the context the second argument.
global_asm!(
    ".pushsection .text.peers_bare_target, \"ax\"",
    ".globl peers_bare_target",
    ".type peers_bare_target, @function",
    ".p2align 4",
    "peers_bare_target:",
    "endbr64",
    "mov rsi, [rsp + 8]",
    "mov r10, [rsp]",
    "add rsp, 16",
    "jmp {target}",
    ".size peers_bare_target, . - peers_bare_target",
    ".popsection",
    target = sym target,
);

/// A static trampoline alone, over one number: [`target`] with its context.
///
/// # Invariants
///
/// It was given by `ffi_tramp_alloc`.
pub struct Bare<'a> {
    trampoline: NonNull<c_void>,
    code: usize,
    _context: &'a u64,
}

impl<'a> Bare<'a> {
    /// Whether libffi was built with static trampolines, and can map them.
    pub fn supported() -> bool {
        // SAFETY: Always allowed.
        unsafe { ffi_tramp_is_supported() != 0 }
    }

    /// Allocates one and sets its parameters.
    pub fn new(context: &'a u64) -> Option<Self> {
        // SAFETY: No flag is known.
        let trampoline = NonNull::new(unsafe { ffi_tramp_alloc(0) })?;
        // SAFETY: It was just allocated; the target takes what the trampoline
        // leaves on the stack; the context outlives it by this type's lifetime.
        let code = unsafe {
            ffi_tramp_set_parms(
                trampoline.as_ptr(),
                peers_bare_target as *mut c_void,
                (&raw const *context).cast_mut().cast(),
            );
            ffi_tramp_get_addr(trampoline.as_ptr())
        };
        Some(Bare {
            trampoline,
            code: code.addr(),
            _context: context,
        })
    }

    /// Its address.
    pub fn code(&self) -> usize {
        self.code
    }
}

impl Drop for Bare<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant.
        unsafe { ffi_tramp_free(self.trampoline.as_ptr()) };
    }
}

/// The line of `/proc/self/maps` that holds `code`.
pub fn mapping_of(code: usize) -> io::Result<Option<String>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let holds = |line: &&str| {
        let range = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'));
        range.is_some_and(|(start, end)| {
            let at = |text| usize::from_str_radix(text, 16).unwrap_or(0);
            (at(start)..at(end)).contains(&code)
        })
    };
    Ok(maps.lines().find(holds).map(str::to_owned))
}
