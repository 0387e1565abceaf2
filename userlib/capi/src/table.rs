// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tables of trampolines: function pointers that carry a pointer.

use crate::guard::{self, Failure};
use crate::options::{self, Choice};
use crate::pointer;
use crate::versioned::{self, Versioned};
use jitfd_trampoline::{ContextRegister, Table, TableOptions, TableStats};
use std::ffi::{c_int, c_void};
use std::mem::transmute;
use std::ptr::null_mut;

/// Trampolines: functions made at run time, each of which loads a pointer of its own,
/// the context, into a register and goes on to a target of its own, with everything
/// else as the caller left it. May be used by several threads at once.
pub struct jitfd_table {
    table: Table,
}

/// A function of any type; cast it to its own.
pub type jitfd_function = Option<unsafe extern "C" fn()>;

/// The context is the first integer argument: callers pass none.
pub const JITFD_CARRIER_RDI: u32 = 0;
/// The context is the second integer argument: callers pass one at most.
pub const JITFD_CARRIER_RSI: u32 = 1;
/// The third.
pub const JITFD_CARRIER_RDX: u32 = 2;
/// The fourth.
pub const JITFD_CARRIER_RCX: u32 = 3;
/// The fifth.
pub const JITFD_CARRIER_R8: u32 = 4;
/// The sixth: callers pass five at most.
pub const JITFD_CARRIER_R9: u32 = 5;
/// The static chain, which no argument is passed in: for targets that expect it
/// there, as GCC's nested functions do.
pub const JITFD_CARRIER_R10: u32 = 6;

/// Debuggers are told of each copy, as jitfd_gdb does: gdb then knows the caller also of
/// a thread that it stops in the middle of a trampoline.
pub const JITFD_TABLE_DEBUGGERS: u32 = 1;

fn carrier(number: u32) -> Result<ContextRegister, Failure> {
    match number {
        JITFD_CARRIER_RDI => Ok(ContextRegister::Rdi),
        JITFD_CARRIER_RSI => Ok(ContextRegister::Rsi),
        JITFD_CARRIER_RDX => Ok(ContextRegister::Rdx),
        JITFD_CARRIER_RCX => Ok(ContextRegister::Rcx),
        JITFD_CARRIER_R8 => Ok(ContextRegister::R8),
        JITFD_CARRIER_R9 => Ok(ContextRegister::R9),
        JITFD_CARRIER_R10 => Ok(ContextRegister::R10),
        _ => Err(Failure::Refused(libc::EINVAL, "there is no such carrier")),
    }
}

/// How a table is made. All zero but for the size: by /dev/jit or not at all, 1024
/// trampolines to a copy.
#[repr(C)]
pub struct jitfd_table_options {
    /// sizeof(struct jitfd_table_options).
    pub size: usize,
    /// JITFD_TABLE_DEBUGGERS.
    pub flags: u32,
    /// One of JITFD_FALLBACK_, as in struct jitfd_options.
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
}

// SAFETY: `repr(C)`, six words; zero is a value of all.
unsafe impl Versioned for jitfd_table_stats {
    const FIRST: usize = 48;
}

impl From<TableStats> for jitfd_table_stats {
    fn from(stats: TableStats) -> Self {
        let wide = |count| u64::try_from(count).unwrap_or(u64::MAX);
        Self {
            size: size_of::<Self>(),
            taken: wide(stats.taken),
            copies: wide(stats.copies),
            copy_capacity: wide(stats.copy_capacity),
            code_bytes: wide(stats.code_bytes),
            data_bytes: wide(stats.data_bytes),
        }
    }
}

/// # Safety
/// `given` is null or points to such a struct of the size it says.
unsafe fn read(
    carrier: ContextRegister,
    given: *const jitfd_table_options,
) -> Result<TableOptions, Failure> {
    let made = TableOptions::new(carrier);
    if given.is_null() {
        return Ok(made.fallback(Choice::default()?.fallback));
    }
    // SAFETY: as promised by the caller.
    let given = unsafe { versioned::read(given) }?;
    if given.flags & !JITFD_TABLE_DEBUGGERS != 0 {
        return Err(Failure::Refused(libc::EINVAL, "a flag is not known"));
    }
    let made = made
        .fallback(options::fallback(given.fallback)?)
        .debuggers(given.flags & JITFD_TABLE_DEBUGGERS != 0);
    Ok(match given.copy_capacity {
        0 => made,
        capacity => made.copy_capacity(capacity),
    })
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

/// Makes a table whose trampolines carry their context in one of JITFD_CARRIER_. The
/// options may be null: as jitfd_allow_fallback says.
///
/// Returns 0, or -1 with errno as jitfd_create; EINVAL also if there is no such
/// carrier.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_table_create(
    carrier: u32,
    options: *const jitfd_table_options,
    table: *mut *mut jitfd_table,
) -> c_int {
    guard::status(|| {
        pointer::wanted(table)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let made = read(self::carrier(carrier)?, options)?.create()?;
            pointer::store(table, Box::into_raw(Box::new(jitfd_table { table: made })));
        }
        Ok(())
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
/// carrier: the target must be a function that takes it there. Mostly this is no
/// system call.
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
            let entry = table.bind_raw(address(target), context)?;
            Ok(entry.cast_mut())
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

/// What makes a table's code executable: one of JITFD_BACKEND_, or -1 with errno
/// EINVAL for a null pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_table_backend(table: *const jitfd_table) -> c_int {
    guard::number(|| {
        // SAFETY: the header says what this pointer must be.
        let table = unsafe { pointer::object(table)? };
        Ok(options::number(table.table.backend()))
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
            versioned::write(stats, &jitfd_table_stats::from(table.table.stats()))
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

    #[test]
    fn the_carriers_have_the_numbers_of_their_registers() {
        for (number, wanted) in (0..).zip(ContextRegister::ALL) {
            assert_eq!(carrier(number).unwrap(), wanted);
        }
        assert!(carrier(7).is_err());
    }
}
