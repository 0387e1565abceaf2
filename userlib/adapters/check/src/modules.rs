// SPDX-License-Identifier: MIT OR Apache-2.0

//! Modules of Wasmtime.

use crate::{Outcome, Test, equal, executable_mappings, holds};
use jitfd::Jit;
use std::error::Error;
use std::fmt::Write;
use wasmtime::{Config, Engine, Instance, Module, Store, Trap};

pub const TESTS: &[Test] = &[
    ("wasmtime: refused without the adapter", refused_without),
    ("wasmtime: modules are compiled, run and dropped", modules),
    ("wasmtime: traps are found", traps),
    ("wasmtime: deserialize", deserialized),
    ("wasmtime: deserialize_file", from_files),
    ("wasmtime: several threads", threads),
];

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn engine(jit: &Jit) -> Result<Engine> {
    let mut config = Config::new();
    config.with_custom_code_memory(Some(jitfd_wasmtime::code_memory(jit.clone())));
    Ok(Engine::new(&config)?)
}

/// `functions` functions: number N calls the one before it and adds N.
fn text(functions: u32) -> String {
    let mut text =
        String::from("(module (func (export \"f0\") (param i32) (result i32) local.get 0)");
    for number in 1..functions {
        let _ = write!(
            text,
            "(func (export \"f{number}\") (param i32) (result i32)
               local.get 0 call {before} i32.const {number} i32.add)",
            before = number - 1
        );
    }
    text + "(func (export \"trap\") unreachable))"
}

const FUNCTIONS: u32 = 40;

/// Runs the last function of a module of [`text`].
fn runs(engine: &Engine, module: &Module, argument: i32) -> Outcome {
    let mut store = Store::new(engine, ());
    let instance = Instance::new(&mut store, module, &[])?;
    let last = format!("f{}", FUNCTIONS - 1);
    let last = instance.get_typed_func::<i32, i32>(&mut store, &last)?;
    let sum = (1..FUNCTIONS as i32).sum::<i32>();
    equal("the sum", last.call(&mut store, argument)?, argument + sum)
}

fn refused_without(_: &Jit) -> Outcome {
    let engine = Engine::new(&Config::new())?;
    let made = Module::new(&engine, text(2));
    holds(made.is_err(), || "a module was made by mprotect".into())
}

fn modules(jit: &Jit) -> Outcome {
    let engine = engine(jit)?;
    let (before, _) = executable_mappings()?;
    for round in 0..20 {
        let module = Module::new(&engine, text(FUNCTIONS))?;
        runs(&engine, &module, round)?;
        let (_, writable) = executable_mappings()?;
        equal("mappings that are writable and executable", writable, 0)?;
    }
    let kept: Vec<_> = (0..20)
        .map(|_| Module::new(&engine, text(FUNCTIONS)))
        .collect::<wasmtime::Result<_>>()?;
    for (argument, module) in kept.iter().enumerate() {
        runs(&engine, module, argument as i32)?;
    }
    drop(kept);
    equal("executable mappings", executable_mappings()?.0, before)
}

fn traps(jit: &Jit) -> Outcome {
    let engine = engine(jit)?;
    let module = Module::new(&engine, text(FUNCTIONS))?;
    let mut store = Store::new(&engine, ());
    let instance = Instance::new(&mut store, &module, &[])?;
    let trap = instance.get_typed_func::<(), ()>(&mut store, "trap")?;
    for _ in 0..10 {
        let error = trap.call(&mut store, ()).err().ok_or("there was no trap")?;
        let trap = error.downcast_ref::<Trap>().copied();
        equal("the trap", trap, Some(Trap::UnreachableCodeReached))?;
    }
    Ok(())
}

fn deserialized(jit: &Jit) -> Outcome {
    let engine = engine(jit)?;
    let bytes = engine.precompile_module(text(FUNCTIONS).as_bytes())?;
    for argument in 0..10 {
        // SAFETY: this engine has made the bytes.
        let module = unsafe { Module::deserialize(&engine, &bytes)? };
        runs(&engine, &module, argument)?;
    }
    Ok(())
}

fn from_files(jit: &Jit) -> Outcome {
    let engine = engine(jit)?;
    let bytes = engine.precompile_module(text(FUNCTIONS).as_bytes())?;
    let path = std::env::temp_dir().join(format!("adapters-check-{}", std::process::id()));
    std::fs::write(&path, &bytes)?;
    let outcome = (0..10).try_for_each(|argument| {
        // SAFETY: this engine has made the file, which nobody changes.
        let module = unsafe { Module::deserialize_file(&engine, &path)? };
        runs(&engine, &module, argument)?;
        drop(module);
        equal(
            "the file is as it was",
            std::fs::read(&path)? == bytes,
            true,
        )
    });
    std::fs::remove_file(&path)?;
    outcome
}

fn threads(jit: &Jit) -> Outcome {
    let engine = engine(jit)?;
    let ended: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let engine = &engine;
                scope.spawn(move || {
                    for round in 0..5 {
                        let module =
                            Module::new(engine, text(FUNCTIONS)).map_err(|e| e.to_string())?;
                        runs(engine, &module, 10 * number + round).map_err(|e| e.to_string())?;
                    }
                    Ok::<_, String>(())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    for thread in ended {
        thread.map_err(|_| "a thread panicked")??;
    }
    Ok(())
}
