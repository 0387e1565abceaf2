// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tables of trampolines: function pointers that carry a pointer.

use crate::backend;
use crate::guard::{self, Failure};
use crate::pointer;
use crate::registers;
use crate::versioned::{self, Versioned};
use jitfd_trampoline::{Table, TableOptions, TableStats, Trampoline};
use rust::{Backend, Jit, Register};
use std::ffi::{c_int, c_void};
use std::mem::transmute;
use std::ptr::null_mut;

/// Trampolines: functions made at run time, each of which loads a pointer of its own,
/// the context, into a register and goes on to a target of its own, with everything
/// else as the caller left it. May be used by several threads at once.
pub struct jitfd_table {
    table: Table,
    backend: Backend,
}

/// A function of any type; cast it to its own.
pub type jitfd_function = Option<unsafe extern "C" fn()>;

/// Debuggers are told of each copy, as jitfd_gdb_register does: gdb then knows the caller also of
/// a thread that it stops in the middle of a trampoline.
pub const JITFD_TABLE_DEBUGGERS: u32 = 1;

/// How a table is made. All zero but for the size: by what the process allows, 1024
/// trampolines to a copy.
#[repr(C)]
pub struct jitfd_table_options {
    /// sizeof(struct jitfd_table_options).
    pub size: usize,
    /// JITFD_TABLE_DEBUGGERS.
    pub flags: u32,
    /// One of JITFD_FALLBACK_; 0 is as the process allows.
    pub fallback: u32,
    /// How many trampolines a copy of the code has: a power of two between 256 and
    /// 65536, the next one is taken. 0 for 1024. A copy needs two mappings.
    pub copy_capacity: usize,
}

// SAFETY: `repr(C)`, a word, two half words, a word; zero is a value of all.
unsafe impl Versioned for jitfd_table_options {
    const FIRST: usize = 24;
}

/// What a table has.
#[repr(C)]
pub struct jitfd_table_stats {
    /// In: sizeof(struct jitfd_table_stats).
    pub size: usize,
    /// Trampolines in use, and those that threads keep for their next ones.
    pub taken: u64,
    /// The mapped copies of the code.
    pub copies: u64,
    /// Trampolines in one copy.
    pub copy_capacity: u64,
    /// Bytes of code: once, or with mprotect flips for each copy.
    pub code_bytes: u64,
    /// Bytes of data in all copies, allocated page by page when first used.
    pub data_bytes: u64,
    /// What makes its code executable: one of JITFD_BACKEND_.
    pub backend: u64,
}

// SAFETY: `repr(C)`, seven words; zero is a value of all.
unsafe impl Versioned for jitfd_table_stats {
    const FIRST: usize = 56;
}

impl jitfd_table_stats {
    fn new(stats: TableStats, backend: Backend) -> Self {
        let wide = |count| u64::try_from(count).unwrap_or(u64::MAX);
        Self {
            size: size_of::<Self>(),
            taken: wide(stats.taken),
            copies: wide(stats.copies),
            copy_capacity: wide(stats.copy_capacity),
            code_bytes: wide(stats.code_bytes),
            data_bytes: wide(stats.data_bytes),
            backend: backend::number(backend).unsigned_abs().into(),
        }
    }
}

/// # Safety
/// `given` is null or points to such a struct of the size it says.
unsafe fn read(
    context_register: Register,
    given: *const jitfd_table_options,
) -> Result<(&'static Jit, TableOptions), Failure> {
    let mut made = TableOptions::from(context_register);
    // SAFETY: as promised by the caller.
    let given = unsafe { versioned::read(given) }?;
    if given.flags & !JITFD_TABLE_DEBUGGERS != 0 {
        return Err(Failure::Refused(libc::EINVAL, "a flag is not known"));
    }
    made.debuggers = given.flags & JITFD_TABLE_DEBUGGERS != 0;
    if given.copy_capacity != 0 {
        made.copy_capacity = given.copy_capacity;
    }
    Ok((backend::jit(given.fallback)?, made))
}

/// The address of a function; null of none.
pub(crate) fn address(function: jitfd_function) -> *mut c_void {
    function.map_or(null_mut(), |function| function as *mut c_void)
}

/// The function at an address; none at null.
pub(crate) fn function(address: *mut c_void) -> jitfd_function {
    // SAFETY: any pointer is a value of such a type, and null is `None`; who calls it
    // answers for what is there.
    unsafe { transmute::<*mut c_void, jitfd_function>(address) }
}

/// Makes a table whose trampolines carry their context in a register:
/// JITFD_REG_RDI, RSI, RDX, RCX, R8 or R9, those of the first to the sixth integer
/// argument, of which callers pass as many as come before it; or JITFD_REG_R10, the
/// static chain, for targets that expect it there, as GCC's nested functions do. options
/// may be null. Give the table back with jitfd_table_destroy.
///
/// Returns null with errno as jitfd_region_create; EINVAL also if no context is carried
/// there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_table_create(
    context_register: u32,
    options: *const jitfd_table_options,
) -> *mut jitfd_table {
    guard::object(|| {
        let register = registers::context(context_register)?;
        // SAFETY: the header says what this pointer must be.
        let (jit, options) = unsafe { read(register, options) }?;
        Ok(jitfd_table {
            table: Table::create(jit, options)?,
            backend: jit.backend(),
        })
    })
}

/// Unmaps a table with all its trampolines, none of which may be called any more.
/// Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_table_destroy(table: *mut jitfd_table) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(table) }));
}

/// Makes a trampoline. A call of it is a call of the target, with the context in the
/// table's register: the target must be a function that takes it there. Mostly this is
/// no system call. Give it back with jitfd_table_release.
///
/// Returns the trampoline, which is called as the target is but without the context;
/// or null with errno EINVAL for a null table or target, ENOMEM if there is no memory
/// or address space for a further copy, EACCES or EPERM if code may not be made any
/// more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_table_bind(
    table: *mut jitfd_table,
    target: jitfd_function,
    context: *mut c_void,
) -> jitfd_function {
    let entry = guard::address(|| {
        target.ok_or(Failure::NULL)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let table = &pointer::object(table)?.table;
            let made = table.bind(address(target), context)?;
            Ok(Trampoline::into_raw(made).cast_mut())
        }
    });
    function(entry)
}

/// Frees a trampoline, which nobody calls from now on. Calls that have reached the
/// target are not concerned. A call that is made nevertheless ends with SIGTRAP as
/// long as the trampoline was not made anew. Null is allowed for the entry.
///
/// Freeing one twice is an error of the program, as with free(). It changes nothing
/// as long as no trampoline was made anew in its place and its copy of the code is
/// mapped; two threads that free one at the same time are not found out. A pointer
/// that is none of this table's trampolines is not found out at all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_table_release(table: *mut jitfd_table, entry: jitfd_function) {
    guard::quietly(|| {
        if entry.is_none() {
            return;
        }
        // SAFETY: the header says what these pointers must be.
        unsafe {
            if let Ok(table) = pointer::object(table) {
                table.table.release(address(entry));
            }
        }
    });
}

/// Stores the context of a trampoline of this table that is in use.
///
/// Returns 0, or -1 with errno EINVAL for a null pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_table_context(
    table: *const jitfd_table,
    entry: jitfd_function,
    context: *mut *mut c_void,
) -> c_int {
    guard::status(|| {
        pointer::wanted(context)?;
        entry.ok_or(Failure::NULL)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let table = &pointer::object(table)?.table;
            pointer::store(context, table.context(address(entry)));
        }
        Ok(())
    })
}

/// Stores what a table has at the moment.
///
/// Returns 0, or -1 with errno EINVAL for a null pointer or a bad size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_table_get_stats(
    table: *const jitfd_table,
    stats: *mut jitfd_table_stats,
) -> c_int {
    guard::status(|| {
        pointer::wanted(stats)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let table = pointer::object(table)?;
            let made = jitfd_table_stats::new(table.table.stats(), table.backend);
            versioned::write(stats, &made)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_has_the_size_it_had() {
        assert_eq!(size_of::<jitfd_table_options>(), jitfd_table_options::FIRST);
        assert_eq!(size_of::<jitfd_table_stats>(), jitfd_table_stats::FIRST);
    }
}
