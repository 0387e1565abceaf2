// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]

use jitfd::{Error, Jit};
use std::sync::Arc;
use wasmtime::{CustomCodeMemory, Result};

/// The size of a page, which is what can be made executable.
const PAGE: usize = 4096;

/// Has an engine's code made executable by `jit`: of modules that are compiled,
/// deserialized or loaded from files. Give it to `Config::with_custom_code_memory`.
///
/// Where Wasmtime drops a module, its code becomes ordinary memory again first. An error
/// of `jit` is one of the module's; its cause is a [`jitfd::Error`].
///
/// # Errors
/// When a module is made: those of [`Jit::make_executable`].
#[must_use]
pub fn code_memory(jit: Jit) -> Arc<dyn CustomCodeMemory> {
    Arc::new(CodeMemory(jit))
}

struct CodeMemory(Jit);

/// An error as Wasmtime has them.
fn outcome(result: Result<(), Error>) -> Result<()> {
    Ok(result?)
}

impl CustomCodeMemory for CodeMemory {
    fn required_alignment(&self) -> usize {
        PAGE
    }

    fn publish_executable(&self, ptr: *const u8, len: usize) -> Result<()> {
        // SAFETY: these are pages of an image that Wasmtime has mapped for itself, has
        // filled, and does not use before this returns. It executes what it has compiled.
        outcome(unsafe { self.0.make_executable(ptr.cast_mut(), len) })
    }

    fn unpublish_executable(&self, ptr: *const u8, len: usize) -> Result<()> {
        // SAFETY: these are pages that were published above; by Wasmtime's promise nobody
        // executes them any more.
        outcome(unsafe { self.0.make_writable(ptr.cast_mut(), len) })
    }
}
