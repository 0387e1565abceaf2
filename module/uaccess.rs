// SPDX-License-Identifier: GPL-2.0

//! What files of the module have in common: their operations, arguments that are
//! copied from and to userspace, and results.
//!
//! Context: process, where user memory may be touched.

use kernel::{
    bindings,
    prelude::*,
    transmute::{AsBytes, FromBytes},
    uaccess::{UserPtr, UserSlice},
};

use crate::plan::abi;

/// File operations, which hold raw pointers but no state.
pub(crate) struct Fops(pub(crate) bindings::file_operations);

// SAFETY: File operations are never written.
unsafe impl Sync for Fops {}

/// What an ioctl returns for `result`.
pub(crate) fn ioctl_result(result: Result<u64>) -> c_long {
    match result {
        Ok(value) => value as c_long,
        Err(error) => error.to_errno() as c_long,
    }
}

/// Copies an argument in. Fails with `EFAULT`.
pub(crate) fn read_arg<T: FromBytes>(user: usize) -> Result<T> {
    UserSlice::new(UserPtr::from_addr(user), size_of::<T>())
        .reader()
        .read()
}

/// Copies an argument out. Fails with `EFAULT`.
pub(crate) fn write_arg<T: AsBytes>(user: usize, arg: &T) -> Result {
    UserSlice::new(UserPtr::from_addr(user), size_of::<T>())
        .writer()
        .write(arg)
}

macro_rules! plain_bytes {
    ($($arg:ty),*) => {
        $(
            // SAFETY: Integers and arrays of them, without padding.
            unsafe impl FromBytes for $arg {}
            // SAFETY: As above.
            unsafe impl AsBytes for $arg {}
        )*
    };
}

plain_bytes!(
    abi::CreateCode,
    abi::Create,
    abi::CloneFrom,
    abi::Publish,
    abi::Segment,
    abi::Reserve,
    abi::Stats
);
