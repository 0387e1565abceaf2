// SPDX-License-Identifier: MIT OR Apache-2.0

//! Return trampolines: each goes to a handler that reads and changes all registers,
//! and then back to the caller or elsewhere. They are the first alternative
//! ("entirely userspace") in the mail that this project was made from: 28 July
//! 2020, by an x86 maintainer to the kernel's list, in the thread "Implement
//! Trampoline File Descriptor".
#![expect(unsafe_code, reason = "binds trampolines to what they were made for")]

use crate::bound::{Bound, Unwinding};
use crate::kind::Kind;
use crate::marshal::{Handler, Marshalled};
use crate::place::Place;
use crate::return_body;
use crate::saved::{Saved, SavedRegisters};
use jitfd::{CodePointer, Entry, Error};
use std::ffi::c_void;
use std::fmt;

/// A piece of code that saves all registers and calls a handler, which reads and
/// changes them; then it returns to its caller, or jumps elsewhere.
///
/// It is a return trampoline as sketched in the mail that this project was made from
/// (28 July 2020, to the kernel's list, "Implement Trampoline File Descriptor"):
/// code that pushes the registers, loads its own address by `lea` and calls a handler.
/// The pages of them are published once and mapped as often as needed; each copy has
/// data pages of its own, and the address of a trampoline says where in them its
/// handler is.
///
/// ```
/// use jitfd::{Fallback, Jit, Register};
/// use jitfd_trampoline::{SaveAllTrampoline, SavedRegisters};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let add = |saved: &mut SavedRegisters| {
///     let sum = saved.get(Register::Rdi) + saved.get(Register::Rsi);
///     // SAFETY: the caller expects an integer there.
///     unsafe { saved.set(Register::Rax, sum) };
/// };
/// let add = SaveAllTrampoline::new(&Jit::open(Fallback::Any)?, add)?;
/// // SAFETY: what is above is such a function.
/// let function = unsafe { add.entry::<extern "C" fn(u64, u64) -> u64>() };
/// assert_eq!(function(40, 2), 42);
/// println!("code at {:#x}", add.address());
/// # Ok(())
/// # }
/// ```
///
/// General registers, flags, x87 and vector registers are all as they were for whoever
/// the trampoline goes to, but for what the handler changes. What the handler is not
/// shown is restored too: all but the lower 128 bits of `xmm0` to `xmm15`, mask
/// registers, x87, MXCSR. Not restored are protection keys, AMX tiles, and `r16` to
/// `r31` of CPUs with APX.
///
/// What the handler can't change is the stack: `rsp`, and where a return goes. (A CPU
/// with shadow stacks compares each return with its call, and would refuse another
/// address.) A jump goes anywhere, on the same stack; another stack is for the code
/// there to load, or for a [`Thunk`](crate::Thunk).
///
/// It takes about 3 KiB of the stack with AVX-512, 1 KiB without. It is entered as a
/// function is, by a call or a jump: the 128 bytes below the stack pointer (the red
/// zone) are not its caller's.
pub struct SaveAllTrampoline<'f> {
    bound: Bound<'f>,
}

// SAFETY: what was bound is `Send`.
unsafe impl Send for SaveAllTrampoline<'_> {}
// SAFETY: what was bound is `Sync`; nothing here changes.
unsafe impl Sync for SaveAllTrampoline<'_> {}

impl<'f> SaveAllTrampoline<'f> {
    /// By the tables that the process has for a [`Jit`](jitfd::Jit), or in an
    /// `Arc<`[`Table`](crate::Table)`>` that was created with
    /// [`save_all`](crate::TableOptions::save_all). A panic of the handler ends the
    /// program.
    ///
    /// # Errors
    /// As [`Table::create`](crate::Table::create) and
    /// [`Table::bind`](crate::Table::bind); [`Error::Argument`] if it is to be in a table
    /// that carries a context.
    pub fn new<F>(place: &impl Place, handler: F) -> Result<Self, Error>
    where
        F: Fn(&mut SavedRegisters) + Send + Sync + 'f,
    {
        let held = place.held(Kind::SaveAll)?;
        if held.table().kind() != Kind::SaveAll {
            return Err(OTHER_TABLE);
        }
        let value = Marshalled {
            handler: whole::<F>(false),
            value: handler,
        };
        let unwinding = Unwinding::Handler(whole::<F>(true));
        // SAFETY: the stubs push rax and load their address, as the body expects; it
        // finds such a value by that.
        let bound = unsafe { Bound::new(held, return_body::body(), unwinding, value) }?;
        Ok(Self { bound })
    }

    /// Has panics of the handler go on in the caller, which calls it as
    /// `extern "C-unwind"` from now on.
    ///
    /// ```
    /// use jitfd::{Fallback, Jit};
    /// use jitfd_trampoline::SaveAllTrampoline;
    /// use std::panic::{catch_unwind, resume_unwind};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let jit = Jit::open(Fallback::Any)?;
    /// let fails = SaveAllTrampoline::new(&jit, |_| resume_unwind(Box::new(42)))?.unwinding();
    /// // SAFETY: it takes anything, and returns nothing.
    /// let function = unsafe { *fails.entry::<extern "C-unwind" fn()>() };
    /// assert!(catch_unwind(|| function()).is_err());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn unwinding(self) -> Self {
        // SAFETY: who got a pointer before does not call it any more, as `entry` says.
        let bound = unsafe { self.bound.unwinding() };
        Self { bound }
    }

    /// The address to call or to jump to.
    #[must_use]
    pub fn address(&self) -> usize {
        self.bound.address()
    }

    /// The trampoline as a function, which can't be called after it is dropped.
    ///
    /// # Safety
    /// The handler makes of the registers what a function of the type `F` does. Copies of
    /// the pointer are not called after this was dropped or given to
    /// [`unwinding`](Self::unwinding).
    #[must_use]
    pub unsafe fn entry<F: CodePointer>(&self) -> Entry<'_, F> {
        // SAFETY: as promised by the caller.
        unsafe { self.bound.entry() }
    }
}

const OTHER_TABLE: Error = Error::Argument(
    "a SaveAllTrampoline needs a table that was created with TableOptions::save_all",
);

impl fmt::Debug for SaveAllTrampoline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SaveAllTrampoline({:#x})", self.address())
    }
}

/// The handler that the body calls.
fn whole<F: Fn(&mut SavedRegisters)>(unwinds: bool) -> Handler {
    /// # Safety
    /// As the body calls it, with a context that is a `Marshalled<F>`.
    unsafe fn call<F: Fn(&mut SavedRegisters)>(saved: *mut c_void, context: *const c_void) {
        // SAFETY: as promised by the caller; nobody else has the registers.
        let (saved, closure) = unsafe {
            (
                &mut *saved.cast::<Saved>(),
                &*context.cast::<Marshalled<F>>(),
            )
        };
        (closure.value)(&mut SavedRegisters::of(saved));
    }
    unsafe extern "C" fn aborting<F: Fn(&mut SavedRegisters)>(
        saved: *mut c_void,
        context: *const c_void,
    ) {
        // SAFETY: what the body passes.
        unsafe { call::<F>(saved, context) }
    }
    unsafe extern "C-unwind" fn unwinding<F: Fn(&mut SavedRegisters)>(
        saved: *mut c_void,
        context: *const c_void,
    ) {
        // SAFETY: as above.
        unsafe { call::<F>(saved, context) }
    }
    if unwinds {
        Handler::unwinding(unwinding::<F>)
    } else {
        Handler::aborting(aborting::<F>)
    }
}
