// SPDX-License-Identifier: MIT OR Apache-2.0

//! Trampolines without new code: stubs published once, each with a slot of data
//! that says where it goes.

use crate::cache::{self, ROOM};
use crate::copy::Stub;
use crate::frame::Cover;
use crate::kind::{Kind, Stubs};
use crate::pool::Pool;
use crate::register::ContextRegister;
use crate::save_stubs;
use crate::stub::{self, SLOT, Shape};
use jitfd::internal::SharedCode;
use jitfd::tools::Frame;
use jitfd::{Backend, CodePointer, Entry, Error, Jit, Register};
use std::ffi::c_void;
use std::sync::Arc;

/// How a table is created. A [`Register`] alone is enough:
///
/// ```
/// use jitfd::{Fallback, Jit, Register};
/// use jitfd_trampoline::{Table, TableOptions};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let jit = Jit::open(Fallback::Any)?;
/// let table = Table::create(&jit, Register::Rdx)?;
/// assert_eq!(table.stats().copy_capacity, 1024);
/// let options = TableOptions {
///     context_register: Register::Rdx,
///     copy_capacity: 4000,
///     ..Default::default()
/// };
/// let table = Table::create(&jit, options)?;
/// assert_eq!(table.stats().copy_capacity, 4096);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// The register in which the trampolines carry their context to the target: `rdi`,
    /// `rsi`, `rdx`, `rcx`, `r8` or `r9`, in which a function of the System V ABI takes
    /// its integer arguments, in this order; or `r10`, as it is unless set.
    ///
    /// With an argument register the target sees the context as one more argument, if
    /// what it is called with leaves that register free: called as `f(int, int)`, with
    /// `rdx` it is `f(int, int, void *context)`. `r10` is the *static chain* of the ABI:
    /// GCC's nested functions take their frame there, Go and libffi's
    /// `ffi_prep_go_closure` a closure.
    pub context_register: Register,
    /// The trampolines are to be [`SaveAllTrampoline`](crate::SaveAllTrampoline)s, and no
    /// others: they carry their context in no register, and a copy has 4096.
    pub save_all: bool,
    /// How many trampolines a copy of the stubs has: a power of two between 256
    /// and 65,536; the next one is taken. Unless set it is 1024: 32 KiB of code, as much
    /// as a first-level instruction cache usually has.
    ///
    /// A copy needs two mappings, of the 65,530 that a process may have
    /// (`vm.max_map_count`), and 48 bytes of address space a trampoline. The code has 32
    /// bytes for each, once.
    ///
    /// Each copy is registered with the unwinder; with libgcc 12 and older, to take very
    /// many back costs the square of their number (32,000 copies: 13 seconds).
    pub copy_capacity: usize,
    /// Debuggers are told of each copy, as [`GdbJit`](jitfd::tools::GdbJit) does: gdb
    /// then knows the caller also of a thread that it stops in the middle of a
    /// trampoline. Unwinders inside of the program always do.
    pub debuggers: bool,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            context_register: Register::R10,
            save_all: false,
            copy_capacity: 1024,
            debuggers: false,
        }
    }
}

/// Whose trampolines carry their context in this register.
impl From<Register> for TableOptions {
    fn from(context_register: Register) -> Self {
        Self {
            context_register,
            ..Self::default()
        }
    }
}

impl TableOptions {
    pub(crate) fn stubs(self) -> Result<Stubs, Error> {
        if self.save_all {
            return save_stubs::stubs(self.debuggers);
        }
        let context_register = ContextRegister::try_from(self.context_register)?;
        let shape = Shape::new(self.copy_capacity);
        Ok(Stubs {
            code: stub::assemble(context_register, shape)?,
            shape,
            kind: Kind::Carrying(context_register),
            cover: Cover {
                name: "jitfd_trampoline",
                // They leave the stack as they find it.
                frame: Frame::leaf(),
                debuggers: self.debuggers,
            },
        })
    }
}

impl Stubs {
    /// A table of them, by this backend.
    pub(crate) fn create(&self, backend: Backend) -> Result<Table, Error> {
        let source = SharedCode::new(backend, &self.code)?;
        let pool = Pool::new(source, self.shape, self.cover.clone())?;
        Ok(Table {
            pool: Arc::new(pool),
            kind: self.kind,
        })
    }
}

/// Any number of trampolines, each of which loads a pointer of its own, the
/// context, into a register and goes on to a target of its own.
///
/// ```
/// use jitfd::{Fallback, Jit, Register};
/// use jitfd_trampoline::Table;
/// use std::ffi::c_void;
///
/// /// Called as `extern "C" fn(u64) -> u64`.
/// extern "C" fn add(number: u64, context: *mut c_void) -> u64 {
///     number + context.addr() as u64
/// }
///
/// # fn main() -> Result<(), jitfd::Error> {
/// // The second integer argument is not used by the callers.
/// let table = Table::create(&Jit::open(Fallback::Any)?, Register::Rsi)?;
/// let context = std::ptr::without_provenance_mut(40);
/// // SAFETY: `add` is such a function, and the context needs not live.
/// let trampoline = unsafe { table.bind(add as *const c_void, context)? };
/// // SAFETY: as above.
/// let add_40 = unsafe { trampoline.entry::<extern "C" fn(u64) -> u64>() };
/// assert_eq!(add_40(2), 42);
/// # Ok(())
/// # }
/// ```
///
/// # How it works
///
/// Code is published once: a stub for each trampoline of a *copy*,
///
/// ```text
/// endbr64
/// mov  context register, [rip + the context of this stub]
/// jmp  [rip + the target of this stub]
/// ```
///
/// and is mapped as often as needed, each time next to data pages of its own. To
/// make a trampoline is to take a free stub and to store its context and target:
/// no system call, no new code, nothing to flush. The stack is as the caller left
/// it, so to the target the trampoline was never there; a call through it leaves
/// shadow stacks in step.
///
/// # What it costs
///
/// * 16 bytes of data a trampoline, in memory that is allocated page by page as
///   slots are first used; page tables for 48 bytes of addresses; a bit that says
///   whether it is free. The code is 32 bytes for each trampoline of *one* copy.
/// * Each thread keeps up to 64 free slots of the tables that it used last, so that
///   [`bind`](Self::bind) and giving back lock nothing most of the time; every 32nd
///   takes a mutex for a moment, and the first of a copy maps that.
/// * A copy of which everything is free is unmapped, but for one that is kept. What
///   a thread keeps counts as used, until it ends or [`trim`](Self::trim)s.
///
/// # Calls and stores
///
/// Binding stores the context, then the target; giving back stores a trap as the
/// target, then forgets the context. So a thread that learns of a trampoline from the
/// one that bound it always finds both. A call through a trampoline that was given
/// back ends with `SIGTRAP` inside its own 32 bytes, as long as it is
/// not bound again; through one that was never bound it is a call of address 0.
///
/// # What is writable
///
/// The code never is. The targets are: they are data of the program, like its other
/// function pointers. Whoever can write to its memory can point a trampoline elsewhere,
/// but no further than a function pointer could. A target that must not change
/// belongs into a [`Thunk`](crate::Thunk).
///
/// # Forks
///
/// A forked child has all trampolines at the same addresses. The data pages are
/// private memory: what the child binds or gives back is nothing to the parent,
/// and the other way round. The code is shared. The child can bind as well, and
/// map further copies, also if other threads of the parent were doing that at the
/// `fork()`: it waits for none of them. What those had kept free is lost to the child,
/// and if one of them was just taking or giving slots back, so is all that was free: the
/// child then begins with a copy of its own.
///
/// # Signal handlers
///
/// They may call through trampolines, but not bind nor give back.
#[derive(Debug)]
pub struct Table {
    pool: Arc<Pool>,
    kind: Kind,
}

/// What a table has.
///
/// ```
/// # use jitfd::{Fallback, Jit, Register};
/// # use jitfd_trampoline::Table;
/// # extern "C" fn callback(_: *mut std::ffi::c_void) {}
/// # fn main() -> Result<(), jitfd::Error> {
/// # let table = Table::create(&Jit::open(Fallback::Any)?, Register::Rdi)?;
/// for _ in 0..100_000 {
///     // SAFETY: the callback may be called with any context.
///     let _trampoline = unsafe { table.bind(callback as _, std::ptr::null_mut())? };
/// }
/// let stats = table.stats();
/// assert_eq!((stats.copies, stats.data_bytes), (1, 16 * stats.copy_capacity));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableStats {
    /// Trampolines that are in use, and those that threads keep for themselves: at
    /// most 64 each.
    pub taken: usize,
    /// The mapped copies of the stubs.
    pub copies: usize,
    /// Trampolines in one copy. The first is not used.
    pub copy_capacity: usize,
    /// The bytes of the code: once, or with [`Backend::ProtectFlips`] for each
    /// copy.
    pub code_bytes: usize,
    /// The bytes of data in all copies. Pages that no trampoline was ever bound in
    /// use no memory.
    pub data_bytes: usize,
}

impl Table {
    /// Publishes the stubs and maps the first copy of them.
    ///
    /// With [`Backend::ProtectFlips`] each copy has its own physical pages of code,
    /// 32 bytes a trampoline; with the others all share them. With
    /// [`Backend::DualMapping`] the stubs are in a memory file that is sealed
    /// before it is mapped: there is no writable view of them at any time.
    ///
    /// # Errors
    /// As [`Jit::region`]; [`Error::System`] of kind
    /// [`NoMemory`](jitfd::Kind::NoMemory) if the data can't be mapped;
    /// [`Error::Argument`] if the context register is none of the seven.
    pub fn create(jit: &Jit, options: impl Into<TableOptions>) -> Result<Self, Error> {
        options.into().stubs()?.create(jit.backend())
    }

    #[cfg(test)]
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// What the table has at the moment. See the example of [`TableStats`].
    #[must_use]
    pub fn stats(&self) -> TableStats {
        let (shape, count) = (self.pool.shape(), self.pool.count());
        TableStats {
            taken: count.taken,
            copies: count.copies,
            copy_capacity: shape.capacity(),
            code_bytes: shape.code_len(),
            data_bytes: count.copies * shape.capacity() * SLOT,
        }
    }

    /// Makes a trampoline to `target` that carries `context`. It is free again when
    /// the result is dropped.
    ///
    /// # Errors
    /// [`Error::Argument`] if the table is for [`TableOptions::save_all`];
    /// [`Error::System`] of kind [`NoMemory`](jitfd::Kind::NoMemory) if a further
    /// copy is needed and memory, address space or mappings are used up; another
    /// kind if the backend is not allowed any more. Nothing is changed then.
    ///
    /// # Safety
    /// What calls the trampoline comes to `target`, with `context` in the
    /// [context register](TableOptions::context_register) and everything else as the
    /// caller left it: `target` must be right to be called like that by whoever calls the
    /// trampoline, in any thread that does.
    #[expect(unsafe_code, reason = "the caller vouches for the target")]
    #[inline]
    pub unsafe fn bind(
        &self,
        target: *const c_void,
        context: *mut c_void,
    ) -> Result<Trampoline<'_>, Error> {
        if self.kind == Kind::SaveAll {
            return Err(ONLY_SAVE_ALL);
        }
        // SAFETY: as promised by the caller.
        let stub = unsafe { self.take(target, context) }?;
        Ok(Trampoline { table: self, stub })
    }

    /// Frees what [`Trampoline::into_raw`] returned. See the example of
    /// [`Trampoline::into_raw`].
    ///
    /// Freeing it twice is an error of the program, as with memory. It changes nothing
    /// as long as the slot was not bound again and its copy is mapped: no slot gets two
    /// owners. Two threads that free it at the same time are not detected.
    ///
    /// # Safety
    /// `trampoline` is from this table, was not released before, and no thread calls it
    /// from now on. Calls that have reached the target do no harm.
    #[expect(unsafe_code, reason = "the caller vouches for the trampoline")]
    #[inline]
    pub unsafe fn release(&self, trampoline: *const c_void) {
        // SAFETY: as promised by the caller.
        unsafe { self.give(Stub::from_ptr(trampoline)) };
    }

    /// The context of a trampoline that is in use. See the example of
    /// [`Trampoline::into_raw`].
    ///
    /// # Safety
    /// `trampoline` is from this table, and was not released.
    #[expect(unsafe_code, reason = "the caller vouches for the trampoline")]
    #[must_use]
    pub unsafe fn context(&self, trampoline: *const c_void) -> *mut c_void {
        // SAFETY: as promised by the caller: its slot is taken, so it is mapped.
        unsafe { Stub::from_ptr(trampoline).slot(self.pool.shape()) }.context()
    }

    /// Gives the free slots back that the calling thread keeps: for one that has
    /// freed very many and will not bind again soon.
    ///
    /// ```
    /// # use jitfd::{Fallback, Jit, Register};
    /// # use jitfd_trampoline::Table;
    /// # extern "C" fn callback(_: *mut std::ffi::c_void) {}
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let table = Table::create(&Jit::open(Fallback::Any)?, Register::Rdi)?;
    /// // SAFETY: the callback may be called with any context.
    /// drop(unsafe { table.bind(callback as _, std::ptr::null_mut())? });
    /// table.trim();
    /// assert_eq!(table.stats().taken, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn trim(&self) {
        cache::trim(&self.pool);
    }

    /// # Safety
    /// As [`bind`](Self::bind).
    #[expect(unsafe_code, reason = "the caller vouches for the target")]
    #[inline]
    pub(crate) unsafe fn take(
        &self,
        target: *const c_void,
        context: *mut c_void,
    ) -> Result<Stub, Error> {
        let stub = cache::take(&self.pool)?;
        // SAFETY: the slot is taken from this pool, so its copy is mapped.
        unsafe { stub.slot(self.pool.shape()) }.bind(target, context);
        Ok(stub)
    }

    /// Has a trampoline go elsewhere, with the context that it has.
    ///
    /// # Safety
    /// As [`bind`](Self::bind); the trampoline is from this table, was not released, and
    /// nobody calls it meanwhile.
    #[expect(unsafe_code, reason = "the caller vouches for the target")]
    pub(crate) unsafe fn retarget(
        &self,
        trampoline: *const c_void,
        target: *const c_void,
        context: *mut c_void,
    ) {
        // SAFETY: the slot is taken from this pool, so its copy is mapped.
        let slot = unsafe { Stub::from_ptr(trampoline).slot(self.pool.shape()) };
        slot.bind(target, context);
    }

    /// Does nothing with a slot that was given back and not taken since: it would
    /// come to have two owners.
    ///
    /// # Safety
    /// The slot was taken from here, and nobody uses it any more.
    #[expect(unsafe_code, reason = "the caller vouches for the stub")]
    #[inline]
    unsafe fn give(&self, stub: Stub) {
        // SAFETY: the slot is taken from this pool, so its copy is mapped.
        if unsafe { stub.clear(self.pool.shape()) } {
            cache::give(&self.pool, stub);
        }
    }
}

const ONLY_SAVE_ALL: Error = Error::Argument(
    "a table that was created with TableOptions::save_all carries no context: it is for \
     SaveAllTrampolines",
);

const _: () = assert!(ROOM == 64, "the documentation says so");

/// A trampoline of a [`Table`], free again when it is dropped.
///
/// ```
/// use jitfd::{Fallback, Jit, Register};
/// use jitfd_trampoline::Table;
/// use std::ffi::c_void;
///
/// extern "C" fn context(context: *mut c_void) -> usize {
///     context.addr()
/// }
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let table = Table::create(&Jit::open(Fallback::Any)?, Register::Rdi)?;
/// let seven = std::ptr::without_provenance_mut(7);
/// // SAFETY: `context` is called without arguments, and takes any context.
/// let trampoline = unsafe { table.bind(context as *const c_void, seven)? };
/// // SAFETY: as above.
/// let function = unsafe { trampoline.entry::<extern "C" fn() -> usize>() };
/// assert_eq!(function(), 7);
/// assert_eq!(trampoline.address(), *function as *const c_void as usize);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Trampoline<'t> {
    table: &'t Table,
    stub: Stub,
}

impl Trampoline<'_> {
    /// The address to call.
    #[must_use]
    pub fn address(&self) -> usize {
        self.stub.as_ptr().expose_provenance()
    }

    /// The trampoline as a function, which can't be called after it is dropped.
    ///
    /// # Safety
    /// The target is right to be called as such a function, with the context in the
    /// context register. Copies of the pointer are not called after the trampoline is
    /// dropped.
    #[expect(unsafe_code, reason = "the caller vouches for the function's type")]
    #[must_use]
    pub unsafe fn entry<F: CodePointer>(&self) -> Entry<'_, F> {
        // SAFETY: as promised by the caller.
        unsafe { Entry::at(self.stub.as_ptr().cast()) }
    }

    /// Gives the trampoline away, to be kept by other languages or for ever: it stays
    /// until [`Table::release`], or until the table is dropped. Returns the address to
    /// call.
    ///
    /// ```
    /// # use jitfd::{Fallback, Jit, Register};
    /// # use jitfd_trampoline::Table;
    /// # use std::ffi::c_void;
    /// # extern "C" fn callback(_: *mut c_void) {}
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let table = Table::create(&Jit::open(Fallback::Any)?, Register::Rdi)?;
    /// let context = std::ptr::null_mut();
    /// // SAFETY: the callback may be called with any context.
    /// let pointer = unsafe { table.bind(callback as *const c_void, context)?.into_raw() };
    /// // ... given to a library, and taken away from it again:
    /// // SAFETY: it is from `into_raw`, and nobody calls it any more.
    /// unsafe {
    ///     assert!(table.context(pointer).is_null());
    ///     table.release(pointer);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn into_raw(self) -> *const c_void {
        std::mem::ManuallyDrop::new(self).stub.as_ptr()
    }
}

impl Drop for Trampoline<'_> {
    #[inline]
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "gives the slot of this trampoline back")]
        // SAFETY: it was taken for this trampoline, whose pointers nobody calls any
        // more: `bind` and `entry` demand that.
        unsafe {
            self.table.give(self.stub)
        };
    }
}
