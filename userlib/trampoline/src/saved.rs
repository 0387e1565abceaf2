// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a return trampoline saves: every general register, the flags, and the
//! floating point and vector state.

use jitfd::Register;
use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;

/// The general registers, the flags and the lower 128 bits of `xmm0` to `xmm15` as they
/// were when a return trampoline was entered, and as they will be when it is left. All
/// can be changed but `rsp`. The rest of the vector and x87 state is kept, not shown.
///
/// Reading is safe. Writing is not: registers belong to the caller, or to where the
/// trampoline jumps.
///
/// ```
/// # use jitfd::Register;
/// # use jitfd_trampoline::SavedRegisters;
/// /// Returns the sum of two arguments.
/// fn add(saved: &mut SavedRegisters) {
///     let sum = saved.get(Register::Rdi).wrapping_add(saved.get(Register::Rsi));
///     // SAFETY: the caller expects an integer in rax.
///     unsafe { saved.set(Register::Rax, sum) };
/// }
///
/// /// Counts in a vector register, and returns with the carry flag set.
/// fn count(saved: &mut SavedRegisters) {
///     let [low, high] = saved.vector(0);
///     println!("{:?} returns to {:?}", saved.trampoline, saved.return_address);
///     // SAFETY: the caller expects that.
///     unsafe {
///         saved.set_vector(0, [low + 1, high]);
///         saved.set_flags(saved.flags() | 1);
///     }
/// }
/// ```
///
/// The registers of two calls cannot be exchanged, even by a handler that gets hold
/// of both: where each call returns to is among them.
#[non_exhaustive]
pub struct SavedRegisters<'call> {
    /// The address of the trampoline that was entered.
    pub trampoline: *const c_void,
    /// Where the trampoline returns to, which is what `rsp` points to. Another value here
    /// changes nothing.
    pub return_address: *const c_void,
    saved: &'call mut Saved,
    /// Every call has a type of its own, as it has a lifetime.
    of: PhantomData<fn(&'call ()) -> &'call ()>,
}

/// # Invariants
/// It is where the body of `return_body.rs` has put it, and `state` is where that has
/// saved the floating point and vector registers.
#[repr(C)]
pub(crate) struct Saved {
    general: [u64; 16],
    trampoline: *const c_void,
    target: *const c_void,
    state: *mut State,
    flags: u64,
    /// What the stub has pushed: `rax`.
    pushed: u64,
    return_address: *const c_void,
}

/// The beginning of what `xsave64` and `fxsave64` write.
#[repr(C, align(64))]
struct State {
    legacy: [u64; 20],
    vectors: [[u64; 2]; 16],
    unused: [u64; 12],
    /// Which components are loaded; the others get their initial values.
    /// `fxsave64` neither writes nor reads it.
    present: u64,
}

/// Where the body puts them.
pub(crate) mod layout {
    use super::{Saved, State};
    use std::mem::offset_of;

    pub const GENERAL: usize = offset_of!(Saved, general);
    pub const TRAMPOLINE: usize = offset_of!(Saved, trampoline);
    pub const TARGET: usize = offset_of!(Saved, target);
    pub const STATE: usize = offset_of!(Saved, state);
    pub const FLAGS: usize = offset_of!(Saved, flags);
    pub const PUSHED: usize = offset_of!(Saved, pushed);
    pub const RETURN_ADDRESS: usize = offset_of!(Saved, return_address);
    /// Where `xsave64` has its header.
    pub const HEADER: usize = offset_of!(State, present);
}

const _: () = assert!(layout::HEADER == 512);

/// The component of `xmm0` to `xmm15`.
const VECTORS_PRESENT: u64 = 2;

impl<'call> SavedRegisters<'call> {
    /// What a handler gets. Its type must hold for a call with every `'call`.
    pub(crate) const fn of(saved: &'call mut Saved) -> Self {
        Self {
            trampoline: saved.trampoline,
            return_address: saved.return_address,
            saved,
            of: PhantomData,
        }
    }

    /// A general register. `rsp` is where the return address is; the first argument that
    /// is passed on the stack, if any is, is 8 bytes above.
    #[must_use]
    pub const fn get(&self, register: Register) -> u64 {
        self.saved.general[register as usize]
    }

    /// Changes a general register.
    ///
    /// # Panics
    /// If it is `rsp`: the way back is on the stack. In a handler of an aborting
    /// trampoline that ends the process.
    ///
    /// # Safety
    /// The trampoline's caller, or where it jumps, must expect the value.
    #[expect(unsafe_code, reason = "the registers are the caller's")]
    pub unsafe fn set(&mut self, register: Register, value: u64) {
        assert!(register != Register::Rsp, "rsp stays what it is");
        self.saved.general[register as usize] = value;
    }

    /// The flags (`rflags`).
    #[must_use]
    pub const fn flags(&self) -> u64 {
        self.saved.flags
    }

    /// Changes the flags.
    ///
    /// # Safety
    /// As [`set`](Self::set); a caller expects the direction flag to be 0.
    #[expect(unsafe_code, reason = "the registers are the caller's")]
    pub const unsafe fn set_flags(&mut self, flags: u64) {
        self.saved.flags = flags;
    }

    /// The lower 128 bits of a vector register, `xmm0` to `xmm15`, as two halves, the
    /// lower one first.
    ///
    /// # Panics
    /// If `number` is not below 16.
    #[must_use]
    pub fn vector(&self, number: usize) -> [u64; 2] {
        #[expect(unsafe_code, reason = "what the body has saved")]
        // SAFETY: by the type invariant.
        unsafe {
            (*self.saved.state).vectors[number]
        }
    }

    /// Changes the lower 128 bits of a vector register.
    ///
    /// # Panics
    /// If `number` is not below 16.
    ///
    /// # Safety
    /// As [`set`](Self::set).
    #[expect(unsafe_code, reason = "the registers are the caller's")]
    pub unsafe fn set_vector(&mut self, number: usize, halves: [u64; 2]) {
        // SAFETY: by the type invariant.
        let state = unsafe { &mut *self.saved.state };
        state.present |= VECTORS_PRESENT;
        state.vectors[number] = halves;
    }

    /// Has the trampoline go to `target` instead of returning: with these registers,
    /// and the stack as it was found. A function there returns to the trampoline's
    /// caller. Null undoes it: the trampoline returns.
    ///
    /// ```
    /// # use jitfd::Register;
    /// # use jitfd_trampoline::SavedRegisters;
    /// # use std::ffi::c_void;
    /// extern "C" fn negate(value: i64) -> i64 {
    ///     -value
    /// }
    ///
    /// /// For what is called as `negate`: it gets twice the argument.
    /// fn twice(saved: &mut SavedRegisters) {
    ///     let value = saved.get(Register::Rdi);
    ///     // SAFETY: the function takes its argument there, and returns what the
    ///     // caller expects.
    ///     unsafe {
    ///         saved.set(Register::Rdi, 2 * value);
    ///         saved.jump(negate as *const c_void);
    ///     }
    /// }
    /// ```
    ///
    /// # Safety
    /// What is there must do with these registers and this stack. It begins with
    /// `endbr64` where the program runs with indirect branch tracking.
    #[expect(unsafe_code, reason = "goes anywhere")]
    pub const unsafe fn jump(&mut self, target: *const c_void) {
        self.saved.target = target;
    }
}

impl fmt::Debug for SavedRegisters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("SavedRegisters");
        for register in Register::ALL {
            let name = format!("{register:?}").to_lowercase();
            shown.field(&name, &format_args!("{:#x}", self.get(register)));
        }
        shown.field("flags", &format_args!("{:#x}", self.saved.flags));
        shown.field("trampoline", &self.saved.trampoline);
        shown.field("return_address", &self.saved.return_address);
        shown.finish_non_exhaustive()
    }
}
