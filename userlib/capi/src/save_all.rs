// SPDX-License-Identifier: MIT OR Apache-2.0

//! Trampolines that save all registers, let a handler change them, and load them again.

use crate::backend::{JITFD_FALLBACK_DEFAULT, jit};
use crate::closure::Data;
use crate::guard::{self, Failure};
use crate::pointer;
use crate::table::{self, address, jitfd_function};
use jitfd_trampoline::{SaveAllTrampoline, SavedRegisters};
use rust::Register;
use std::array;
use std::ffi::c_void;
use std::ptr::with_exposed_provenance_mut;

/// The registers as they were when a save-all trampoline was called, and as they will be
/// when it returns. The other parts of the vector and x87 state are kept, but not shown.
/// It may grow at its end.
#[repr(C)]
pub struct jitfd_saved_registers {
    /// The general registers, by their number: general[JITFD_REG_RAX]. That of rsp is
    /// where the return address is; a change of it is not taken.
    pub general: [u64; 16],
    /// The lower 128 bits of xmm0 to xmm15, two halves each, the lower one first.
    pub vectors: [[u64; 2]; 16],
    /// rflags. A caller expects the direction flag to be 0.
    pub flags: u64,
    /// In: where the trampoline returns to.
    pub return_address: *mut c_void,
    /// In: the trampoline that was called.
    pub trampoline: jitfd_function,
    /// Out: where it goes when the handler has returned: to a function, as if its caller
    /// had called that; or back to the caller if it stays null.
    pub jump: jitfd_function,
}

/// Reads and changes the registers of whoever has called a save-all trampoline. The
/// caller, or where it jumps, must expect what is changed. By any thread that calls; may
/// throw C++ exceptions, and no change counts then.
pub type jitfd_save_all_handler =
    Option<unsafe extern "C-unwind" fn(saved: *mut jitfd_saved_registers, data: *mut c_void)>;

/// What has made a piece of code, at run time, that saves all registers, calls a handler,
/// loads all registers and returns to its caller, or goes elsewhere.
pub struct jitfd_save_all {
    _trampoline: SaveAllTrampoline<'static>,
}

fn read(saved: &SavedRegisters<'_>) -> jitfd_saved_registers {
    let mut general = [0; 16];
    for (value, register) in general.iter_mut().zip(Register::ALL) {
        *value = saved.get(register);
    }
    jitfd_saved_registers {
        general,
        vectors: array::from_fn(|number| saved.vector(number)),
        flags: saved.flags(),
        return_address: saved.return_address.cast_mut(),
        trampoline: table::function(saved.trampoline.cast_mut()),
        jump: None,
    }
}

/// Takes what the handler has changed.
///
/// # Safety
/// The trampoline's caller, or where it jumps, must expect that.
unsafe fn write(saved: &mut SavedRegisters<'_>, seen: &jitfd_saved_registers) {
    // SAFETY: as promised by the caller.
    unsafe {
        for (&value, register) in seen.general.iter().zip(Register::ALL) {
            if register != Register::Rsp {
                saved.set(register, value);
            }
        }
        for (number, &halves) in seen.vectors.iter().enumerate() {
            // Those that nobody has used need not be loaded.
            if saved.vector(number) != halves {
                saved.set_vector(number, halves);
            }
        }
        saved.set_flags(seen.flags);
        if seen.jump.is_some() {
            saved.jump(address(seen.jump));
        }
    }
}

/// Makes a save-all trampoline, by what the process allows. Stores the address to call,
/// which is valid until the trampoline is given back: jitfd_save_all_destroy.
///
/// Returns null with errno as jitfd_table_create; EINVAL if handler or function is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_save_all_create(
    handler: jitfd_save_all_handler,
    data: *mut c_void,
    function: *mut jitfd_function,
) -> *mut jitfd_save_all {
    let data = Data(data);
    guard::object(|| {
        let handler = handler.ok_or(Failure::NULL)?;
        pointer::wanted(function)?;
        let call = move |saved: &mut SavedRegisters| {
            let mut seen = read(saved);
            // SAFETY: the header says what the handler must be, and may change.
            unsafe {
                handler(&raw mut seen, data.get());
                write(saved, &seen);
            }
        };
        let trampoline = SaveAllTrampoline::new(jit(JITFD_FALLBACK_DEFAULT)?, call)?;
        let trampoline = trampoline.unwinding();
        let entry = table::function(with_exposed_provenance_mut(trampoline.address()));
        // SAFETY: the header says what this pointer must be.
        unsafe { pointer::store(function, entry) };
        Ok(jitfd_save_all {
            _trampoline: trampoline,
        })
    })
}

/// Gives a save-all trampoline back, which nobody calls from now on, nor is in. Null is
/// allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_save_all_destroy(trampoline: *mut jitfd_save_all) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(trampoline) }));
}
