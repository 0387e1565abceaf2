// SPDX-License-Identifier: MIT OR Apache-2.0

//! Wasmtime modules whose machine code lies in memory of jitfd. Wasmtime takes
//! the whole ELF image as it is: nothing in it has to be written to.

use crate::hardening;
use crate::report::BoxError;
use demo_program::files::DATA_SUFFIX;
use jitfd::{Fallback, Jit, Mapping, Rules, validate_owned};
use std::fs;
use std::path::Path;
use std::ptr::{NonNull, slice_from_raw_parts_mut};
use std::sync::Arc;
use std::time::Instant;
use wasmtime::{Config, CustomCodeMemory, Engine, Module};

/// An engine that leaves the protection of code to jitfd.
pub fn engine() -> Result<Engine, BoxError> {
    let mut config = Config::new();
    config.with_custom_code_memory(Some(Arc::new(AlreadyExecutable)));
    Ok(Engine::new(&config)?)
}

/// Publishes the image `name` in `folder` and makes it a module.
pub fn load(engine: &Engine, folder: &Path, name: &str) -> Result<Module, BoxError> {
    let image = read(folder, name)?;
    let data = read(folder, &format!("{name}{DATA_SUFFIX}"))?;
    let code = publish(name, image, std::str::from_utf8(&data)?)?;
    // SAFETY: the image was made by this version of Wasmtime from a module
    // pinned by checksum. The mapping is never written, by jitfd's promise, and
    // never unmapped, because it is leaked.
    Ok(unsafe { Module::deserialize_raw(engine, leak(code)?)? })
}

fn publish(name: &str, image: Vec<u8>, data: &str) -> Result<Mapping, BoxError> {
    let checking = Instant::now();
    let bytes = image.len();
    let options = data.lines().try_fold(Rules::new(), with_range)?;
    let code = validate_owned(image, &options).map_err(|error| format!("{name}: {error}"))?;
    let checked = checking.elapsed();
    let jit = Jit::open(Fallback::Never)?;
    let placing = Instant::now();
    let placed = jit.code(&code)?;
    println!(
        "{name}: {bytes} bytes, instructions checked in {:.1} s, publication took {:.1} ms",
        checked.as_secs_f64(),
        1000.0 * placing.elapsed().as_secs_f64()
    );
    hardening::stays_unwritable(std::ptr::with_exposed_provenance(placed.address()))?;
    Ok(placed)
}

/// Adds a line of the list of data: where a range starts and where it ends.
fn with_range(options: Rules, line: &str) -> Result<Rules, BoxError> {
    let (start, end) = line
        .split_once(' ')
        .ok_or("a line of the list of data has one word")?;
    Ok(options.data(start.parse()?..end.parse()?))
}

fn leak(code: Mapping) -> Result<NonNull<[u8]>, BoxError> {
    let (address, len) = code.into_raw();
    let image = slice_from_raw_parts_mut(address.cast_mut(), len);
    NonNull::new(image).ok_or_else(|| "code at address 0".into())
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>, BoxError> {
    let path = folder.join(name);
    fs::read(&path).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Code is executable before Wasmtime sees it, and stays so.
struct AlreadyExecutable;

impl CustomCodeMemory for AlreadyExecutable {
    fn required_alignment(&self) -> usize {
        4096
    }

    fn publish_executable(&self, _: *const u8, _: usize) -> wasmtime::Result<()> {
        Ok(())
    }

    fn unpublish_executable(&self, _: *const u8, _: usize) -> wasmtime::Result<()> {
        Ok(())
    }
}
