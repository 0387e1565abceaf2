// SPDX-License-Identifier: GPL-2.0
//! Numbers that the processes of a test share.

use std::marker::PhantomData;

use super::memory::Mapping;
use super::outcome::Checked;
use super::sys::PAGE;

/// What can lie in memory that processes share.
///
/// # Safety
///
/// All zeros are a value of it, all of it is atomic, and it fits a page.
pub unsafe trait Atomics {}

/// One of them in shared memory, all zeros at first. Made before the fork.
pub struct Shared<T>(Mapping, PhantomData<T>);

impl<T: Atomics> Shared<T> {
    /// A new one.
    pub fn new() -> Checked<Self> {
        const { assert!(size_of::<T>() <= PAGE) };
        Ok(Shared(Mapping::shared(1)?, PhantomData))
    }

    /// What lies there.
    pub fn board(&self) -> &T {
        let board = std::ptr::with_exposed_provenance::<T>(self.0.addr());
        // SAFETY: the mapping is as large as a page, zeroed, and lives as long as
        // `self`; by the contract of `Atomics` zeros are a value, and all of it
        // may change at any time.
        unsafe { &*board }
    }
}
