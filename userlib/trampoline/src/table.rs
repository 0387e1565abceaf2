// SPDX-License-Identifier: MIT OR Apache-2.0

//! Trampolines without new code: stubs published once, each with a slot of data
//! that says where it goes.

use crate::cache::{self, ROOM};
use crate::copy::Stub;
use crate::frame::Cover;
use crate::pool::Pool;
use crate::register::ContextRegister;
use crate::stub::{self, SLOT, Shape};
use jitfd::internal::{NO_ENTRY, SharedCode};
use jitfd::tools::Frame;
use jitfd::{Backend, Error, Fallback};
use jitfd_code::Chunk;
use std::ffi::c_void;
use std::sync::Arc;

/// How a table is created.
///
/// ```
/// use jitfd::Fallback;
/// use jitfd_trampoline::{ContextRegister, TableOptions};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let options = TableOptions::new(ContextRegister::Rdx).fallback(Fallback::Any);
/// let table = options.copy_capacity(1000).create()?;
/// assert_eq!(table.stats().copy_capacity, 1024);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOptions {
    context_register: ContextRegister,
    fallback: Fallback,
    copy_capacity: usize,
    debuggers: bool,
}

impl TableOptions {
    /// `/dev/jit` or an error, and 1024 trampolines to a copy: 32 KiB of code, as much as
    /// a first-level instruction cache usually has.
    #[must_use]
    pub const fn new(context_register: ContextRegister) -> Self {
        Self {
            context_register,
            fallback: Fallback::Never,
            copy_capacity: 1024,
            debuggers: false,
        }
    }

    /// Which backends are accepted.
    ///
    /// With [`Backend::ProtectFlips`] each copy has its own physical pages of code,
    /// 32 bytes a trampoline; with the others all share them. With
    /// [`Backend::DualMapping`] the stubs are in a memory file that is sealed
    /// before it is mapped: there is no writable view of them at any time.
    #[must_use]
    pub const fn fallback(mut self, fallback: Fallback) -> Self {
        self.fallback = fallback;
        self
    }

    /// How many trampolines a copy of the stubs has: a power of two between 256
    /// and 65,536; the next one is taken. A copy needs two mappings, of the
    /// 65,530 that a process may have (`vm.max_map_count`), and 48 bytes of
    /// address space a trampoline. The code has 32 bytes for each, once.
    ///
    /// Each copy is registered with the unwinder; with libgcc 12 and older, to take very
    /// many back costs the square of their number (32,000 copies: 13 seconds).
    #[must_use]
    pub const fn copy_capacity(mut self, trampolines: usize) -> Self {
        self.copy_capacity = trampolines;
        self
    }

    /// Has debuggers told of each copy, as [`GdbJit`](jitfd::tools::GdbJit) does: gdb
    /// then knows the caller also of a thread that it stops in the middle of a
    /// trampoline. Unwinders inside of the program always do.
    ///
    /// ```
    /// # use jitfd::Fallback;
    /// use jitfd_trampoline::{ContextRegister, TableOptions};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let options = TableOptions::new(ContextRegister::Rdi).debuggers(cfg!(debug_assertions));
    /// # let options = options.fallback(Fallback::Any);
    /// let table = options.create()?;
    /// # drop(table);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn debuggers(mut self, told: bool) -> Self {
        self.debuggers = told;
        self
    }

    /// Publishes the stubs and maps the first copy of them.
    ///
    /// # Errors
    /// As [`RegionOptions::create`](jitfd::RegionOptions::create);
    /// [`Error::System`] of kind [`NoMemory`](jitfd::Kind::NoMemory) if the data
    /// can't be mapped.
    pub fn create(self) -> Result<Table, Error> {
        let stubs = self.stubs()?;
        self.fallback.choose(|backend| stubs.create(backend))
    }

    pub(crate) fn stubs(self) -> Result<Stubs, Error> {
        let shape = Shape::new(self.copy_capacity);
        Ok(Stubs {
            code: stub::assemble(self.context_register, shape)?,
            shape,
            context_register: self.context_register,
            cover: Cover {
                name: "jitfd_trampoline",
                // They leave the stack as they find it.
                frame: Frame::leaf(),
                debuggers: self.debuggers,
            },
        })
    }
}

/// The stubs of a table.
#[derive(Debug)]
pub(crate) struct Stubs {
    pub(crate) code: Chunk,
    pub(crate) shape: Shape,
    pub(crate) context_register: ContextRegister,
    pub(crate) cover: Cover,
}

impl Stubs {
    /// A table of them, by this backend.
    pub(crate) fn create(&self, backend: Backend) -> Result<Table, Error> {
        let source = SharedCode::new(backend, &self.code)?;
        let pool = Pool::new(backend, source, self.shape, self.cover.clone())?;
        Ok(Table {
            pool: Arc::new(pool),
            context_register: self.context_register,
        })
    }
}

/// Any number of trampolines, each of which loads a pointer of its own, the
/// context, into a register and goes on to a target of its own.
///
/// ```
/// use jitfd_trampoline::{ContextRegister, Table};
/// # use jitfd::Fallback;
/// # use jitfd_trampoline::TableOptions;
/// use std::ffi::c_void;
///
/// /// Called as `extern "C" fn(u64) -> u64`.
/// extern "C" fn add(number: u64, context: *mut c_void) -> u64 {
///     number + context.addr() as u64
/// }
///
/// # fn main() -> Result<(), jitfd::Error> {
/// // The second integer argument is not used by the callers.
/// let table = Table::new(ContextRegister::Rsi);
/// # let table = TableOptions::new(ContextRegister::Rsi).fallback(Fallback::Any).create();
/// let table = table?;
/// let context = std::ptr::without_provenance_mut(40);
/// // SAFETY: `add` is such a function, and the context needs not live.
/// let entry = unsafe { table.bind(add as *const c_void, context)? };
/// // SAFETY: as above; `entry` outlives the calls.
/// let add_40 = unsafe { entry.function::<extern "C" fn(u64) -> u64>()? };
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
/// target, then forgets the context. So a thread that learns of an entry from the
/// one that bound it always finds both. A call through an entry that was given
/// back ends with `SIGTRAP` inside the entry's own 32 bytes, as long as that is
/// not bound again; through one that was never bound it is a call of address 0.
///
/// # What is writable
///
/// The code never is. The targets are: they are data of the program, like its other
/// function pointers. Whoever can write to its memory can point an entry elsewhere,
/// but no further than a function pointer could. A target that must not change
/// belongs into a [`Thunk`](crate::Thunk).
///
/// # Forks
///
/// A forked child has all entries at the same addresses. The data pages are
/// private memory: what the child binds or gives back is nothing to the parent,
/// and the other way round. The code is shared. The child can bind as well, and
/// map further copies, also if other threads of the parent were doing that at the
/// `fork()`: it waits for none of them. What those had kept free is lost to the child,
/// and if one of them was just taking or giving slots back, so is all that was free: the
/// child then begins with a copy of its own.
///
/// # Signal handlers
///
/// They may call through entries, but not bind nor give back.
#[derive(Debug)]
pub struct Table {
    pool: Arc<Pool>,
    context_register: ContextRegister,
}

/// What a table has.
///
/// ```
/// # use jitfd::Fallback;
/// # use jitfd_trampoline::{ContextRegister, TableOptions};
/// # extern "C" fn callback(_: *mut std::ffi::c_void) {}
/// # fn main() -> Result<(), jitfd::Error> {
/// # let table = TableOptions::new(ContextRegister::Rdi).fallback(Fallback::Any).create()?;
/// for _ in 0..100_000 {
///     // SAFETY: the callback may be called with any context.
///     let _entry = unsafe { table.bind(callback as _, std::ptr::null_mut())? };
/// }
/// let stats = table.stats();
/// assert_eq!((stats.copies, stats.data_bytes), (1, 16 * stats.copy_capacity));
/// println!("{:?}: code by {}", table.context register(), table.backend());
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
    /// A table whose trampolines carry their context in this register; `/dev/jit`
    /// or an error.
    ///
    /// # Errors
    /// As [`TableOptions::create`].
    pub fn new(context_register: ContextRegister) -> Result<Self, Error> {
        TableOptions::new(context_register).create()
    }

    #[cfg(test)]
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The register of the context. See the example of [`TableStats`].
    #[must_use]
    pub const fn context_register(&self) -> ContextRegister {
        self.context_register
    }

    /// What makes the stubs executable. See the example of [`TableStats`].
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.pool.backend()
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
    /// the entry is dropped.
    ///
    /// # Errors
    /// [`Error::System`] of kind [`NoMemory`](jitfd::Kind::NoMemory) if a further
    /// copy is needed and memory, address space or mappings are used up; another
    /// kind if the backend is not allowed any more. Nothing is changed then.
    ///
    /// # Safety
    /// What is called through the entry jumps to `target`, with `context` in the
    /// [context register](Self::context register) and everything else as the caller left it: `target`
    /// must be right to be called like that by whoever calls the entry, in any
    /// thread that does.
    #[expect(unsafe_code, reason = "the caller vouches for the target")]
    #[inline]
    pub unsafe fn bind(
        &self,
        target: *const c_void,
        context: *mut c_void,
    ) -> Result<Entry<'_>, Error> {
        // SAFETY: as promised by the caller.
        let stub = unsafe { self.take(target, context) }?;
        Ok(Entry { table: self, stub })
    }

    /// As [`bind`](Self::bind), for a pointer that is kept by other languages or
    /// for ever. It is free again after [`release`](Self::release), or when the
    /// table is dropped.
    ///
    /// ```
    /// # use jitfd::Fallback;
    /// # use jitfd_trampoline::{ContextRegister, TableOptions};
    /// # use std::ffi::c_void;
    /// # extern "C" fn callback(_: *mut c_void) {}
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let table = TableOptions::new(ContextRegister::Rdi).fallback(Fallback::Any).create()?;
    /// let context = std::ptr::null_mut();
    /// // SAFETY: the callback may be called with any context.
    /// let pointer = unsafe { table.bind_raw(callback as *const c_void, context)? };
    /// // ... given to a library, and taken away from it again:
    /// // SAFETY: it is from `bind_raw`, and nobody calls it any more.
    /// unsafe {
    ///     assert!(table.context(pointer).is_null());
    ///     table.release(pointer);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    ///
    /// # Safety
    /// As [`bind`](Self::bind); and the pointer is not called after it is released
    /// or the table dropped.
    #[expect(unsafe_code, reason = "the caller vouches for the target")]
    #[inline]
    pub unsafe fn bind_raw(
        &self,
        target: *const c_void,
        context: *mut c_void,
    ) -> Result<*const c_void, Error> {
        // SAFETY: as promised by the caller.
        unsafe { self.take(target, context) }.map(Stub::as_ptr)
    }

    /// Frees what [`bind_raw`](Self::bind_raw) or [`Entry::into_raw`] returned. See the
    /// example of [`Table::bind_raw`].
    ///
    /// Freeing it twice is an error of the program, as with memory. It changes nothing
    /// as long as the slot was not bound again and its copy is mapped: no slot gets two
    /// owners. Two threads that free it at the same time are not detected.
    ///
    /// # Safety
    /// `entry` is from this table, was not released before, and no thread calls it
    /// from now on. Calls that have reached the target do no harm.
    #[expect(unsafe_code, reason = "the caller vouches for the entry")]
    #[inline]
    pub unsafe fn release(&self, entry: *const c_void) {
        // SAFETY: as promised by the caller.
        unsafe { self.give(Stub::from_ptr(entry)) };
    }

    /// The context of an entry that is in use. See the example of
    /// [`Table::bind_raw`].
    ///
    /// # Safety
    /// `entry` is from this table, and was not released.
    #[expect(unsafe_code, reason = "the caller vouches for the entry")]
    #[must_use]
    pub unsafe fn context(&self, entry: *const c_void) -> *mut c_void {
        // SAFETY: as promised by the caller: its slot is taken, so it is mapped.
        unsafe { Stub::from_ptr(entry).slot(self.pool.shape()) }.context()
    }

    /// Gives the free slots back that the calling thread keeps: for one that has
    /// freed very many and will not bind again soon.
    ///
    /// ```
    /// # use jitfd::Fallback;
    /// # use jitfd_trampoline::{ContextRegister, TableOptions};
    /// # extern "C" fn callback(_: *mut std::ffi::c_void) {}
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let table = TableOptions::new(ContextRegister::Rdi).fallback(Fallback::Any).create()?;
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
    unsafe fn take(&self, target: *const c_void, context: *mut c_void) -> Result<Stub, Error> {
        let stub = cache::take(&self.pool)?;
        // SAFETY: the slot is taken from this pool, so its copy is mapped.
        unsafe { stub.slot(self.pool.shape()) }.bind(target, context);
        Ok(stub)
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

const _: () = assert!(ROOM == 64, "the documentation says so");

/// A trampoline of a [`Table`], free again when it is dropped: function pointers
/// to it do not keep it.
///
/// ```
/// # use jitfd::Fallback;
/// # use jitfd_trampoline::{ContextRegister, TableOptions};
/// use std::ffi::c_void;
///
/// extern "C" fn context(context: *mut c_void) -> usize {
///     context.addr()
/// }
///
/// # fn main() -> Result<(), jitfd::Error> {
/// # let table = TableOptions::new(ContextRegister::Rdi).fallback(Fallback::Any).create()?;
/// let seven = std::ptr::without_provenance_mut(7);
/// // SAFETY: `context` is called without arguments, and takes any context.
/// let entry = unsafe { table.bind(context as *const c_void, seven)? };
/// // SAFETY: as above; `entry` outlives the call.
/// let function = unsafe { entry.function::<extern "C" fn() -> usize>()? };
/// assert_eq!((function(), entry.context()), (7, seven));
/// assert_eq!(entry.as_ptr(), function as *const c_void);
/// assert_eq!(entry.table().context register(), ContextRegister::Rdi);
/// let kept = entry.into_raw(); // until the table is dropped
/// assert_eq!(kept, function as *const c_void);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Entry<'t> {
    table: &'t Table,
    stub: Stub,
}

impl<'t> Entry<'t> {
    /// The address to call.
    #[must_use]
    pub fn as_ptr(&self) -> *const c_void {
        self.stub.as_ptr()
    }

    /// The address to call as a function pointer.
    ///
    /// # Errors
    /// [`Error::Argument`] if `F` has not the size of a function pointer.
    ///
    /// # Safety
    /// `F` must be a function pointer type, and the target right to be called as
    /// such a function, with the context in the context register. The pointer must not be
    /// called after the entry is dropped.
    #[expect(unsafe_code, reason = "the caller vouches for the function's type")]
    pub unsafe fn function<F: Copy>(&self) -> Result<F, Error> {
        // SAFETY: as promised by the caller.
        unsafe { self.stub.function() }.ok_or(NO_ENTRY)
    }

    /// The context.
    #[must_use]
    pub fn context(&self) -> *mut c_void {
        #[expect(unsafe_code, reason = "reads the slot of this entry")]
        // SAFETY: the slot is taken as long as the entry lives.
        unsafe {
            self.table.context(self.as_ptr())
        }
    }

    /// The table.
    #[must_use]
    pub const fn table(&self) -> &'t Table {
        self.table
    }

    /// Gives the trampoline away: it stays until [`Table::release`].
    #[must_use]
    pub fn into_raw(self) -> *const c_void {
        std::mem::ManuallyDrop::new(self).as_ptr()
    }
}

impl Drop for Entry<'_> {
    #[inline]
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "gives the slot of this entry back")]
        // SAFETY: it was taken for this entry, whose pointers nobody calls any
        // more: `bind` and `function` demand that.
        unsafe {
            self.table.give(self.stub)
        };
    }
}
