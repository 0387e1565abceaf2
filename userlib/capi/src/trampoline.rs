// SPDX-License-Identifier: MIT OR Apache-2.0

//! Trampolines that are more than a carried pointer: settings, functions that see the
//! registers they are called with, and return trampolines.

use crate::guard::{self, Failure};
use crate::options::Choice;
use crate::pointer;
use crate::space::jitfd_space;
use crate::table::{address, function, jitfd_function};
use crate::text;
use jitfd_trampoline::{
    ClosureOptions, RegisterClosure, Registers, ReturnOptions, SaveAllTrampoline, SavedRegisters,
    Thunk,
};
use rust::Register;
use std::ffi::{c_char, c_int, c_void};
use std::mem::replace;
use std::ptr::{from_mut, with_exposed_provenance_mut};

/// A general register, by its number in instructions.
pub const JITFD_GPR_RAX: u32 = 0;
/// rcx.
pub const JITFD_GPR_RCX: u32 = 1;
/// rdx.
pub const JITFD_GPR_RDX: u32 = 2;
/// rbx.
pub const JITFD_GPR_RBX: u32 = 3;
/// rsp.
pub const JITFD_GPR_RSP: u32 = 4;
/// rbp.
pub const JITFD_GPR_RBP: u32 = 5;
/// rsi.
pub const JITFD_GPR_RSI: u32 = 6;
/// rdi. The rest is r8 to r15: 8 to 15.
pub const JITFD_GPR_RDI: u32 = 7;

const _: () = {
    assert!(JITFD_GPR_RAX as usize == Register::Rax.number());
    assert!(JITFD_GPR_RCX as usize == Register::Rcx.number());
    assert!(JITFD_GPR_RDX as usize == Register::Rdx.number());
    assert!(JITFD_GPR_RBX as usize == Register::Rbx.number());
    assert!(JITFD_GPR_RSP as usize == Register::Rsp.number());
    assert!(JITFD_GPR_RBP as usize == Register::Rbp.number());
    assert!(JITFD_GPR_RSI as usize == Register::Rsi.number());
    assert!(JITFD_GPR_RDI as usize == Register::Rdi.number());
    assert!(Register::R8.number() == 8 && Register::R15.number() == 15);
};

fn gpr(number: u32) -> Result<Register, Failure> {
    let known = usize::try_from(number)
        .ok()
        .and_then(|number| Register::ALL.get(number));
    let unknown = Failure::Refused(libc::EINVAL, "there is no such register");
    known.copied().ok_or(unknown)
}

/// How many vector registers a return trampoline shows.
const VECTORS: usize = 16;

fn vector(number: u32) -> Result<usize, Failure> {
    let known = usize::try_from(number)
        .ok()
        .filter(|&number| number < VECTORS);
    known.ok_or(Failure::Refused(libc::EINVAL, "there is no such register"))
}

/// A description of code that sets general registers, pushes values, and goes to
/// a target. All else, the flags included, is as its caller left it.
pub struct jitfd_setting {
    setting: Thunk,
}

impl jitfd_setting {
    /// Without a copy of what is in it: there may be many pushes.
    fn change(&mut self, change: impl FnOnce(Thunk) -> Thunk) {
        let nothing = Thunk::to(self.setting.target());
        self.setting = change(replace(&mut self.setting, nothing));
    }
}

/// A setting of nothing, that goes to target.
///
/// Returns null with errno EINVAL if target is null. Give it back with
/// jitfd_setting_free.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_setting_new(target: jitfd_function) -> *mut jitfd_setting {
    guard::object(|| {
        target.ok_or(Failure::NULL)?;
        let setting = Thunk::to(address(target).addr());
        Ok(jitfd_setting { setting })
    })
}

/// Gives a setting back. What was published stays. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_setting_free(setting: *mut jitfd_setting) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(setting) }));
}

/// Sets one of JITFD_GPR_, or 8 to 15; the last value of each counts. Not to be called
/// by several threads at once for one setting.
///
/// Returns 0, or -1 with errno EINVAL if there is no such register or the pointer is
/// null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_setting_set(
    setting: *mut jitfd_setting,
    number: u32,
    value: u64,
) -> c_int {
    guard::status(|| {
        // SAFETY: the header says what this pointer must be.
        let setting = unsafe { pointer::object_mut(setting)? };
        let register = gpr(number)?;
        setting.change(|setting| setting.set(register, value));
        Ok(())
    })
}

/// Pushes a value; the last one is at [rsp] when the target is entered. A target must
/// take them off before it returns. Not to be called by several threads at once for
/// one setting.
///
/// Returns 0, or -1 with errno EINVAL if the pointer is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_setting_push(setting: *mut jitfd_setting, value: u64) -> c_int {
    guard::status(|| {
        // SAFETY: the header says what this pointer must be.
        let setting = unsafe { pointer::object_mut(setting)? };
        setting.change(|setting| setting.push(value));
        Ok(())
    })
}

/// Publishes a setting as code, with a name that may be null, and stores its address.
/// It stays as long as the space, and nothing can change what it sets.
///
/// Returns 0, or -1 with errno as jitfd_space_publish; EINVAL also if the setting has
/// too many pushes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_setting_publish(
    setting: *const jitfd_setting,
    space: *mut jitfd_space,
    name: *const c_char,
    entry: *mut jitfd_function,
) -> c_int {
    guard::status(|| {
        pointer::wanted(entry)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let (setting, space) = (pointer::object(setting)?, pointer::object(space)?);
            let made = setting.setting.publish(&space.space, text::read(name)?)?;
            pointer::store(entry, function(with_exposed_provenance_mut(made.address)));
        }
        Ok(())
    })
}

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
pub type jitfd_register_handler =
    Option<unsafe extern "C-unwind" fn(registers: *mut jitfd_registers, data: *mut c_void)>;

/// A function of any type, made at run time, that calls a handler.
pub struct jitfd_closure {
    closure: RegisterClosure<'static>,
}

/// What C passes along. Its threads are its own business.
#[derive(Clone, Copy)]
struct Data(*mut c_void);

// SAFETY: it is only passed on, to a handler that any thread may call.
unsafe impl Send for Data {}
// SAFETY: as above.
unsafe impl Sync for Data {}

impl Data {
    const fn get(self) -> *mut c_void {
        self.0
    }
}

/// Makes a function that calls handler with the registers it was called with, and
/// data; by /dev/jit, or as jitfd_allow_fallback says.
///
/// Returns null with errno as jitfd_table_create; EINVAL if handler is null. Give it
/// back with jitfd_closure_free.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_closure_new(
    handler: jitfd_register_handler,
    data: *mut c_void,
) -> *mut jitfd_closure {
    let data = Data(data);
    guard::object(|| {
        let handler = handler.ok_or(Failure::NULL)?;
        let call = move |registers: &mut Registers| {
            let mut seen = jitfd_registers {
                integers: *registers.integers(),
                vectors: *registers.vectors(),
                stack: registers.stack(),
                vector_count: registers.vector_count().into(),
                returned: [0; 2],
                returned_vectors: [[0; 2]; 2],
            };
            // SAFETY: the header says what the handler must be.
            unsafe { handler(&raw mut seen, data.get()) };
            registers.set_integers(seen.returned);
            registers.set_vectors(seen.returned_vectors);
        };
        let options = ClosureOptions::new().fallback(Choice::default()?.fallback);
        let closure = options.unwinding().create_registers(call)?;
        Ok(jitfd_closure { closure })
    })
}

/// The function. Returns null with errno EINVAL if closure is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_closure_function(closure: *const jitfd_closure) -> jitfd_function {
    let entry = guard::address(|| {
        // SAFETY: the header says what this pointer must be.
        let closure = unsafe { pointer::object(closure)? };
        Ok(closure.closure.as_ptr().cast_mut())
    });
    function(entry)
}

/// Frees the function, which nobody calls from now on, nor is in. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_closure_free(closure: *mut jitfd_closure) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(closure) }));
}

/// The general registers, the flags, and the lower 128 bits of xmm0 to xmm15 as they
/// were when a return trampoline was called, and as they will be when it returns. The
/// other parts of the vector and x87 state are kept, but not shown. Only inside of its
/// handler.
pub struct jitfd_saved {
    #[expect(dead_code, reason = "there is a SavedRegisters instead")]
    never: (),
}

/// Reads and changes the registers of whoever has called a return trampoline. By any
/// thread that calls; may throw C++ exceptions.
pub type jitfd_return_handler =
    Option<unsafe extern "C-unwind" fn(saved: *mut jitfd_saved, data: *mut c_void)>;

/// A piece of code, made at run time, that saves all registers, calls a handler,
/// loads all registers and returns to its caller, or goes elsewhere.
pub struct jitfd_return {
    trampoline: SaveAllTrampoline<'static>,
}

/// Makes a return trampoline, by /dev/jit, or as jitfd_allow_fallback says.
///
/// Returns null with errno as jitfd_table_create; EINVAL if handler is null. Give it
/// back with jitfd_return_free.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_return_new(
    handler: jitfd_return_handler,
    data: *mut c_void,
) -> *mut jitfd_return {
    let data = Data(data);
    guard::object(|| {
        let handler = handler.ok_or(Failure::NULL)?;
        let call = move |saved: &mut SavedRegisters| {
            // SAFETY: the header says what the handler must be.
            unsafe { handler(from_mut(saved).cast(), data.get()) };
        };
        let options = ReturnOptions::new().fallback(Choice::default()?.fallback);
        let trampoline = options.unwinding().create(call)?;
        Ok(jitfd_return { trampoline })
    })
}

/// The address to call. Returns null with errno EINVAL if trampoline is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_return_function(trampoline: *const jitfd_return) -> jitfd_function {
    let entry = guard::address(|| {
        // SAFETY: the header says what this pointer must be.
        let trampoline = unsafe { pointer::object(trampoline)? };
        Ok(trampoline.trampoline.as_ptr().cast_mut())
    });
    function(entry)
}

/// Frees a return trampoline, which nobody calls from now on, nor is in. Null is
/// allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_return_free(trampoline: *mut jitfd_return) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(trampoline) }));
}

/// Stores the value of one of JITFD_GPR_, or 8 to 15. That of rsp is where the return
/// address is.
///
/// Returns 0, or -1 with errno EINVAL if there is no such register or a pointer is
/// null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_saved_get(
    saved: *const jitfd_saved,
    number: u32,
    value: *mut u64,
) -> c_int {
    guard::status(|| {
        pointer::wanted(value)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let saved = pointer::object(saved.cast::<SavedRegisters>())?;
            pointer::store(value, saved.get(gpr(number)?));
        }
        Ok(())
    })
}

/// Changes a register; the caller of the trampoline, or where it goes, must expect
/// that.
///
/// Returns 0, or -1 with errno EINVAL if there is no such register, it is rsp, or the
/// pointer is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_saved_set(
    saved: *mut jitfd_saved,
    number: u32,
    value: u64,
) -> c_int {
    guard::status(|| {
        let register = gpr(number)?;
        if register == Register::Rsp {
            return Err(Failure::Refused(libc::EINVAL, "rsp stays what it is"));
        }
        // SAFETY: the header says what this pointer must be.
        unsafe { pointer::object_mut(saved.cast::<SavedRegisters>())?.set(register, value) };
        Ok(())
    })
}

/// Stores one of xmm0 to xmm15, by its number: its lower 128 bits, as two halves, the
/// lower one first.
///
/// Returns 0, or -1 with errno EINVAL if there is no such register or a pointer is
/// null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_saved_vector(
    saved: *const jitfd_saved,
    number: u32,
    halves: *mut u64,
) -> c_int {
    guard::status(|| {
        pointer::wanted(halves)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let saved = pointer::object(saved.cast::<SavedRegisters>())?;
            pointer::store_all(halves, saved.vector(vector(number)?));
        }
        Ok(())
    })
}

/// Changes the lower 128 bits of one of xmm0 to xmm15 to two halves, the lower one
/// first; the caller of the trampoline, or where it goes, must expect that.
///
/// Returns 0, or -1 with errno EINVAL if there is no such register or a pointer is
/// null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_saved_set_vector(
    saved: *mut jitfd_saved,
    number: u32,
    halves: *const u64,
) -> c_int {
    guard::status(|| {
        let number = vector(number)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let halves = *pointer::object(halves.cast::<[u64; 2]>())?;
            pointer::object_mut(saved.cast::<SavedRegisters>())?.set_vector(number, halves);
        }
        Ok(())
    })
}

/// Stores the flags (rflags).
///
/// Returns 0, or -1 with errno EINVAL if a pointer is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_saved_flags(saved: *const jitfd_saved, flags: *mut u64) -> c_int {
    guard::status(|| {
        pointer::wanted(flags)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let saved = pointer::object(saved.cast::<SavedRegisters>())?;
            pointer::store(flags, saved.flags());
        }
        Ok(())
    })
}

/// Changes the flags. A caller expects the direction flag to be 0.
///
/// Returns 0, or -1 with errno EINVAL if the pointer is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_saved_set_flags(saved: *mut jitfd_saved, flags: u64) -> c_int {
    guard::status(|| {
        // SAFETY: the header says what this pointer must be; the caller vouches for
        // the flags.
        unsafe { pointer::object_mut(saved.cast::<SavedRegisters>())?.set_flags(flags) };
        Ok(())
    })
}

/// Where the trampoline returns to. Returns null with errno EINVAL if saved is
/// null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_saved_return_address(saved: *const jitfd_saved) -> *mut c_void {
    guard::address(|| {
        // SAFETY: the header says what this pointer must be.
        let saved = unsafe { pointer::object(saved.cast::<SavedRegisters>())? };
        Ok(saved.return_address().cast_mut())
    })
}

/// The trampoline that was called, as jitfd_return_function gives it. Returns null
/// with errno EINVAL if saved is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_saved_trampoline(saved: *const jitfd_saved) -> jitfd_function {
    let entry = guard::address(|| {
        // SAFETY: the header says what this pointer must be.
        let saved = unsafe { pointer::object(saved.cast::<SavedRegisters>())? };
        Ok(saved.trampoline().cast_mut())
    });
    function(entry)
}

/// Where the trampoline goes when the handler has returned: to a function, as if its
/// caller had called that; or back to the caller, as it does anyway, if target is null.
///
/// Returns 0, or -1 with errno EINVAL if the first pointer is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_saved_jump(
    saved: *mut jitfd_saved,
    target: jitfd_function,
) -> c_int {
    guard::status(|| {
        // SAFETY: the header says what this pointer must be.
        let saved = unsafe { pointer::object_mut(saved.cast::<SavedRegisters>())? };
        match target {
            None => saved.go_back(),
            // SAFETY: the caller vouches for the target.
            Some(_) => unsafe { saved.jump(address(target)) },
        }
        Ok(())
    })
}
