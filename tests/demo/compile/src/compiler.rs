// SPDX-License-Identifier: MIT OR Apache-2.0

//! The two ways in which the renderer is compiled.

use std::error::Error;
use wasmtime::{Config, Engine, Module, OptLevel};

/// Any error: the demo only prints it. It crosses a thread's end.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The guest's processor may be an emulated one. A named target makes Wasmtime
/// use the instructions that every x86-64 processor has, and no others.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Compiles `wasm` into an image for the guest.
pub fn compile_baseline(wasm: &[u8]) -> Result<Vec<u8>, BoxError> {
    let mut config = Config::new();
    config.target(TARGET)?;
    // Neither is needed to run: trap codes have a table of their own.
    config.generate_address_map(false);
    config.native_unwind_info(false);
    Ok(Engine::new(&config)?.precompile_module(wasm)?)
}

/// Draws `svg` with `wasm`, in Wasmtime's usual way: compiled for this very
/// processor, in memory that Wasmtime makes executable itself. Not optimised:
/// that takes less time, and is other code than the guest's.
pub fn draw_here(wasm: &[u8], svg: &[u8]) -> Result<Vec<u8>, BoxError> {
    let engine = Engine::new(Config::new().cranelift_opt_level(OptLevel::None))?;
    let module = Module::new(&engine, wasm)?;
    Ok(demo_program::render(&engine, &module, svg)?)
}
