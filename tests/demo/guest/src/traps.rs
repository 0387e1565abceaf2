// SPDX-License-Identifier: MIT OR Apache-2.0

//! Traps in code of jitfd: a signal that Wasmtime finds in its tables by the
//! address of the instruction.

use crate::image;
use crate::report::BoxError;
use demo_program::files;
use std::path::Path;
use wasmtime::{Instance, Result, Store, Trap};

/// Runs functions that trap; returns how many did something else.
pub fn check(folder: &Path) -> Result<u64, BoxError> {
    let engine = image::engine()?;
    let module = image::load(&engine, folder, files::TRAPS)?;
    let mut store = Store::new(&engine, ());
    let instance = Instance::new(&mut store, &module, &[])?;
    let unreachable = instance.get_typed_func::<(), ()>(&mut store, "unreachable")?;
    let divide = instance.get_typed_func::<(i32, i32), i32>(&mut store, "divide")?;
    let load = instance.get_typed_func::<i32, i32>(&mut store, "load")?;
    let outside = unreachable.call(&mut store, ());
    let by_zero = divide.call(&mut store, (84, 0));
    let beyond = load.call(&mut store, i32::MAX);
    let wrong = [
        traps(&outside, Trap::UnreachableCodeReached),
        traps(&by_zero, Trap::IntegerDivisionByZero),
        traps(&beyond, Trap::MemoryOutOfBounds),
        // And the code goes on working afterwards.
        divide.call(&mut store, (84, 2))? == 42,
        load.call(&mut store, 0)? == 0,
    ];
    let wrong = wrong.iter().filter(|&&right| !right).count();
    println!(
        "traps of three kinds in code of jitfd: {}",
        if wrong == 0 { "right" } else { "WRONG" }
    );
    Ok(wrong.try_into()?)
}

fn traps<T>(result: &Result<T>, expected: Trap) -> bool {
    let error = result.as_ref().err();
    error.and_then(|error| error.downcast_ref::<Trap>()) == Some(&expected)
}
