// SPDX-License-Identifier: MIT OR Apache-2.0

//! Return trampolines: each goes to a handler that reads and changes all registers,
//! and then back to the caller or elsewhere. They are the first alternative
//! ("entirely userspace") in the mail that this project was made from: 28 July
//! 2020, by an x86 maintainer to the kernel's list, in the thread "Implement
//! Trampoline File Descriptor".
#![expect(unsafe_code, reason = "binds trampolines to what they were made for")]

use crate::assemble::{Assembly, quadword_at};
use crate::bound::{Bound, Held};
use crate::common::Kind;
use crate::frame::Cover;
use crate::marshal::{Handler, Marshalled};
use crate::register::ContextRegister;
use crate::return_body::{self, CAPACITY};
use crate::saved::{Saved, SavedRegisters};
use crate::stub::{SLOT, STUB, Shape, TRAP};
use crate::table::{Stubs, Table, TableStats};
use iced_x86::{Code, Instruction, Register as Encoded};
use jitfd::internal::NO_ENTRY;
use jitfd::tools::Frame;
use jitfd::{Backend, Error, Fallback, Register};
use jitfd_code::Chunk;
use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;

/// Where in a stub the stack has `rax` on top of the return address.
const PUSHED: u8 = 5;
const STRIDE: u8 = 32;
const _: () = assert!(STRIDE as usize == STUB);

/// The code of a copy.
fn assemble(shape: Shape) -> Result<Chunk, Error> {
    let mut code = Assembly::new()?;
    for number in 0..shape.capacity() {
        let stub = number * STUB;
        code.pad_to(stub)?;
        code.entry()?;
        code.push(Instruction::with1(Code::Push_r64, Encoded::RAX))?;
        let itself = quadword_at(stub);
        code.push(Instruction::with2(Code::Lea_r64_m, Encoded::RAX, itself))?;
        let target_there = quadword_at(shape.slot(stub) + SLOT / 2);
        code.push(Instruction::with1(Code::Jmp_rm64, target_there))?;
        code.pad_to(stub + TRAP)?;
        code.entry()?;
    }
    code.pad_to(shape.code_len())?;
    code.finish()
}

/// The frame of the stubs, wherever one is interrupted: the return address is on top
/// of the stack, or below `rax` from the second instruction's end on.
fn frame() -> Frame {
    Frame::leaf().cfa_repeated(0, Register::Rsp, 8, STRIDE, PUSHED, 8)
}

/// The common tables of return trampolines.
pub(crate) fn kind() -> Kind {
    Kind::special(|_| stubs(false))
}

/// The stubs of such a table. Their body can be entered from now on.
fn stubs(debuggers: bool) -> Result<Stubs, Error> {
    return_body::prepare();
    let shape = Shape::new(CAPACITY);
    Ok(Stubs {
        code: assemble(shape)?,
        shape,
        // Of no meaning for these; it is the only one that no argument is passed in.
        context_register: ContextRegister::R10,
        cover: Cover {
            name: "jitfd_return_trampoline",
            frame: frame(),
            debuggers,
        },
    })
}

fn table(fallback: Fallback, debuggers: bool) -> Result<Arc<Table>, Error> {
    let stubs = stubs(debuggers)?;
    fallback
        .choose(|backend| stubs.create(backend))
        .map(Arc::new)
}

/// Pages of return trampolines, mapped again whenever more are needed.
///
/// [`SaveAllTrampoline`]s are in one that the process has in common unless they are
/// told to be in another.
///
/// ```
/// use jitfd::Fallback;
/// use jitfd_trampoline::{ReturnOptions, ReturnPage};
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let page = Arc::new(ReturnPage::create(Fallback::Any)?);
/// let options = ReturnOptions::new().in_page(&page);
/// let many: Result<Vec<_>, _> = (0..10_000).map(|_| options.create(|_| {})).collect();
/// assert!(page.stats().copies >= 3);
/// println!("code by {}", page.backend());
/// # drop(many?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ReturnPage {
    table: Arc<Table>,
}

impl ReturnPage {
    /// Publishes the page and maps it once.
    ///
    /// # Errors
    /// As [`TableOptions::create`](crate::TableOptions::create).
    pub fn create(fallback: Fallback) -> Result<Self, Error> {
        table(fallback, false).map(|table| Self { table })
    }

    /// The same, and debuggers are told of each copy, as with
    /// [`TableOptions::debuggers`](crate::TableOptions::debuggers).
    ///
    /// ```
    /// use jitfd::Fallback;
    /// use jitfd_trampoline::ReturnPage;
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let page = ReturnPage::create_debuggable(Fallback::Any)?;
    /// # drop(page);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_debuggable(fallback: Fallback) -> Result<Self, Error> {
        table(fallback, true).map(|table| Self { table })
    }

    /// What makes the page executable.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.table.backend()
    }

    /// What it has at the moment.
    #[must_use]
    pub fn stats(&self) -> TableStats {
        self.table.stats()
    }
}

/// A handler that C can write: it gets the registers, and the context it was made
/// with. See the example of [`ReturnOptions::create_raw`].
pub type ReturnHandler = unsafe extern "C-unwind" fn(*mut SavedRegisters, *mut c_void);

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
/// use jitfd::Register;
/// use jitfd_trampoline::{SaveAllTrampoline, SavedRegisters};
/// # use jitfd::Fallback;
/// # use jitfd_trampoline::ReturnOptions;
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let add = |saved: &mut SavedRegisters| {
///     let sum = saved.get(Register::Rdi) + saved.get(Register::Rsi);
///     // SAFETY: the caller expects an integer there.
///     unsafe { saved.set(Register::Rax, sum) };
/// };
/// # let options = ReturnOptions::new().fallback(Fallback::Any);
/// # /*
/// let add = SaveAllTrampoline::new(add)?;
/// # */
/// # let add = options.create(add)?;
/// // SAFETY: what is above is such a function.
/// let function = unsafe { add.function::<unsafe extern "C" fn(u64, u64) -> u64>()? };
/// // SAFETY: `add` is there.
/// assert_eq!(unsafe { function(40, 2) }, 42);
/// assert_eq!(function as *const std::ffi::c_void, add.as_ptr());
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
    /// By `/dev/jit`, or an error, in the page of the process.
    ///
    /// # Errors
    /// As [`Table::new`] and [`Table::bind`].
    pub fn new<F>(handler: F) -> Result<Self, Error>
    where
        F: Fn(&mut SavedRegisters) + Send + Sync + 'f,
    {
        ReturnOptions::new().create(handler)
    }

    /// The address to call or to jump to.
    #[must_use]
    pub fn as_ptr(&self) -> *const c_void {
        self.bound.entry()
    }

    /// The address as a function pointer.
    ///
    /// # Errors
    /// [`Error::Argument`] if `F` has not the size of a function pointer.
    ///
    /// # Safety
    /// `F` must be a function pointer type, and the handler must make of the registers what
    /// such a function does.
    /// The pointer must not be called after this is dropped.
    pub unsafe fn function<F: Copy>(&self) -> Result<F, Error> {
        // SAFETY: as promised by the caller.
        unsafe { self.bound.function() }.ok_or(NO_ENTRY)
    }
}

impl fmt::Debug for SaveAllTrampoline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SaveAllTrampoline")
            .field(&self.as_ptr())
            .finish()
    }
}

/// How return trampolines are made.
///
/// ```
/// use jitfd::Fallback;
/// use jitfd_trampoline::{ReturnOptions, ReturnPage};
/// use std::panic::catch_unwind;
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let page = ReturnPage::create(Fallback::Any)?;
/// let options = ReturnOptions::new().fallback(Fallback::Any);
/// let (common, own) = (options.create(|_| {})?, options.in_page(&page).create(|_| {})?);
/// assert!(page.stats().taken >= 1);
/// let fails = options.unwinding().create(|_| std::panic::resume_unwind(Box::new(42)))?;
/// // SAFETY: it takes anything, and returns nothing.
/// let fails = unsafe { fails.function::<extern "C-unwind" fn()>()? };
/// assert!(catch_unwind(|| fails()).is_err());
/// # drop((common, own));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ReturnOptions<'p> {
    fallback: Fallback,
    page: Option<&'p ReturnPage>,
    unwinding: bool,
}

impl<'p> ReturnOptions<'p> {
    /// By `/dev/jit` or an error, in the page of the process; a panic of the handler
    /// ends the program.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            fallback: Fallback::Never,
            page: None,
            unwinding: false,
        }
    }

    /// Which backends are accepted, for the page of the process.
    #[must_use]
    pub const fn fallback(mut self, fallback: Fallback) -> Self {
        self.fallback = fallback;
        self
    }

    /// Has them made in this page.
    #[must_use]
    pub const fn in_page(mut self, page: &'p ReturnPage) -> Self {
        self.page = Some(page);
        self
    }

    /// Has panics of the handler go on in the caller: the trampoline must be called as
    /// `extern "C-unwind"` then.
    #[must_use]
    pub const fn unwinding(mut self) -> Self {
        self.unwinding = true;
        self
    }

    /// As [`SaveAllTrampoline::new`].
    ///
    /// # Errors
    /// As [`SaveAllTrampoline::new`]; [`Error::NoBackend`] if more than one backend was
    /// accepted and none is allowed.
    pub fn create<'f, F>(&self, handler: F) -> Result<SaveAllTrampoline<'f>, Error>
    where
        F: Fn(&mut SavedRegisters) + Send + Sync + 'f,
    {
        let held = match self.page {
            Some(page) => Held::Own(Arc::clone(&page.table)),
            None => Held::Common(kind().table(self.fallback)?),
        };
        let value = Marshalled {
            handler: whole::<F>(self.unwinding),
            value: handler,
        };
        // SAFETY: the stubs push rax and load their address, as the body expects; it
        // finds such a value by that.
        let bound = unsafe { Bound::new(held, return_body::body(), value) }?;
        Ok(SaveAllTrampoline { bound })
    }

    /// A trampoline whose handler is a function, written in C for example:
    /// `void handler(struct jitfd_saved *saved, void *context)`.
    ///
    /// ```
    /// # use jitfd::Fallback;
    /// use jitfd::Register;
    /// use jitfd_trampoline::{ReturnHandler, ReturnOptions, SavedRegisters};
    /// use std::ffi::c_void;
    ///
    /// unsafe extern "C-unwind" fn handler(saved: *mut SavedRegisters, context: *mut c_void) {
    ///     // SAFETY: the trampoline passes its registers; its caller expects an integer.
    ///     unsafe { (*saved).set(Register::Rax, context.addr() as u64) };
    /// }
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let options = ReturnOptions::new();
    /// # let options = options.fallback(Fallback::Any);
    /// let handler: ReturnHandler = handler;
    /// let context = std::ptr::without_provenance_mut(42);
    /// // SAFETY: the handler takes any context.
    /// let answer = unsafe { options.create_raw(handler, context)? };
    /// // SAFETY: the handler sets the result of such a function.
    /// let function = unsafe { answer.function::<unsafe extern "C" fn() -> u64>()? };
    /// // SAFETY: `answer` is there.
    /// assert_eq!(unsafe { function() }, 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`create`](Self::create).
    ///
    /// # Safety
    /// The handler may be called with such a context by every thread that enters the
    /// trampoline, as long as that lives.
    pub unsafe fn create_raw(
        &self,
        handler: ReturnHandler,
        context: *mut c_void,
    ) -> Result<SaveAllTrampoline<'static>, Error> {
        let raw = Raw { handler, context };
        self.create(move |saved| raw.call(saved))
    }
}

/// A handler in C.
struct Raw {
    handler: ReturnHandler,
    context: *mut c_void,
}

// SAFETY: who has made it answers for all threads.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

impl Raw {
    fn call(&self, saved: &mut SavedRegisters) {
        // SAFETY: as promised by who has made it.
        unsafe { (self.handler)(saved, self.context) }
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
