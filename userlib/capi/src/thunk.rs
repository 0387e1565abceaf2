// SPDX-License-Identifier: MIT OR Apache-2.0

//! Thunks: code that sets registers, pushes values and goes on.

use crate::guard::{self, Failure};
use crate::pointer;
use crate::registers;
use crate::space::jitfd_space;
use crate::table::{address, function, jitfd_function};
use crate::text;
use crate::versioned::{self, Versioned};
use jitfd_trampoline::Thunk;
use std::ffi::{c_char, c_int};
use std::ptr::with_exposed_provenance_mut;

/// A register, and what it is set to. This struct does not grow.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jitfd_register_value {
    /// The value.
    pub value: u64,
    /// One of JITFD_REG_.
    pub reg: u32,
    /// 0.
    pub reserved: u32,
}

/// Code that sets general registers, pushes values, and goes to a target. All else, the
/// flags included, is as its caller left it.
#[repr(C)]
pub struct jitfd_thunk {
    /// sizeof(struct jitfd_thunk).
    pub size: usize,
    /// Where it goes.
    pub target: jitfd_function,
    /// The registers that it sets; the last value of each counts.
    pub registers: *const jitfd_register_value,
    /// How many there are.
    pub register_count: usize,
    /// What it pushes; the last one is at [rsp] when the target is entered. A target must
    /// take them off before it returns.
    pub pushes: *const u64,
    /// How many there are.
    pub push_count: usize,
}

// SAFETY: `repr(C)`, six words; zero is a value of all.
unsafe impl Versioned for jitfd_thunk {
    const FIRST: usize = 48;
}

/// # Safety
/// `thunk` is null or points to such a struct of the size it says, whose arrays have as
/// many items as it says.
unsafe fn read(thunk: *const jitfd_thunk) -> Result<Thunk, Failure> {
    pointer::wanted(thunk.cast_mut())?;
    // SAFETY: as promised by the caller.
    let (thunk, values, pushes) = unsafe {
        let thunk = versioned::read(thunk)?;
        let values = pointer::array(thunk.registers, thunk.register_count)?;
        let pushes = pointer::array(thunk.pushes, thunk.push_count)?;
        (thunk, values, pushes)
    };
    thunk.target.ok_or(Failure::NULL)?;
    let mut made = Thunk::to(address(thunk.target).addr());
    for one in values {
        if one.reserved != 0 {
            return Err(Failure::Refused(libc::EINVAL, "a reserved field is not 0"));
        }
        made = made.set(registers::general(one.reg)?, one.value);
    }
    Ok(pushes.iter().copied().fold(made, Thunk::push))
}

/// Publishes a thunk in a code space, under a name in UTF-8, or null, and stores its
/// address. It stays as long as the space, and nothing can change what it sets.
///
/// Returns 0, or -1 with errno as jitfd_space_publish; EINVAL also if there is no such
/// register, or there are too many pushes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_space_publish_thunk(
    space: *mut jitfd_space,
    name: *const c_char,
    thunk: *const jitfd_thunk,
    entry: *mut jitfd_function,
) -> c_int {
    guard::status(|| {
        pointer::wanted(entry)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let (thunk, space) = (read(thunk)?, pointer::object(space)?);
            let made = thunk.publish(&space.space, text::read(name)?)?;
            pointer::store(entry, function(with_exposed_provenance_mut(made.address)));
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_has_the_size_it_had() {
        assert_eq!(size_of::<jitfd_thunk>(), jitfd_thunk::FIRST);
        assert_eq!(size_of::<jitfd_register_value>(), 16);
    }
}
