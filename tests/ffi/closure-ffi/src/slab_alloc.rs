// SPDX-License-Identifier: GPL-2.0
//! Takes the place of the allocator of writable and executable memory that
//! closure-ffi's tests bring along: that of the product, which is watched.

use crate::common::place;
use closure_ffi::jit_alloc::{JitAlloc, JitAllocError, ProtectJitAccess};
use jitfd::{Fallback, Jit};
use jitfd_closure_ffi::JitFdAlloc;

/// Under the name that the tests know.
pub struct SlabAlloc(JitFdAlloc);

impl SlabAlloc {
    /// Regions of `size` bytes.
    pub fn new(size: usize) -> Self {
        let jit = Jit::open(Fallback::Never).expect("/dev/jit works");
        Self(JitFdAlloc::new(&jit, size))
    }
}

impl JitAlloc for SlabAlloc {
    fn alloc(&self, size: usize) -> Result<(*const u8, *mut u8), JitAllocError> {
        let (code, draft) = self.0.alloc(size)?;
        place::is_in_jitfd(code.addr()).expect("all code is in jitfd");
        Ok((code, draft))
    }

    unsafe fn release(&self, rx_ptr: *const u8) -> Result<(), JitAllocError> {
        // SAFETY: as promised by the caller.
        unsafe { self.0.release(rx_ptr) }
    }

    unsafe fn protect_jit_memory(&self, ptr: *const u8, size: usize, access: ProtectJitAccess) {
        // SAFETY: as promised by the caller.
        unsafe { self.0.protect_jit_memory(ptr, size, access) };
    }

    unsafe fn flush_instruction_cache(&self, rx_ptr: *const u8, size: usize) {
        // SAFETY: as promised by the caller.
        unsafe { self.0.flush_instruction_cache(rx_ptr, size) };
    }
}
