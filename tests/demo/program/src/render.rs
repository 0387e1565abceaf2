// SPDX-License-Identifier: MIT OR Apache-2.0

//! One run of the renderer: a picture's source in, the drawn picture out.

use crate::wasi::{self, Exit, World};
use std::fmt;
use wasmtime::{Engine, Error, Linker, Module, Result, Store};

/// The renderer's arguments: from descriptor 0 to descriptor 1, no fonts, and no
/// other files (else it would warn of that on descriptor 1).
const ARGS: [&str; 7] = [
    "resvg",
    "--skip-system-fonts",
    "--quiet",
    "--resources-dir",
    ".",
    "-",
    "-c",
];

/// How a PNG file starts.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The renderer did not draw the picture.
#[derive(Debug)]
pub struct RenderError {
    status: i32,
    log: String,
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the renderer drew no PNG and ended with status {}: {}",
            self.status,
            self.log.trim_end()
        )
    }
}

impl std::error::Error for RenderError {}

/// Draws `svg` with the renderer in `module`; returns the PNG file.
///
/// # Errors
/// A trap, a module that is not the renderer, or a [`RenderError`].
pub fn render(engine: &Engine, module: &Module, svg: &[u8]) -> Result<Vec<u8>> {
    let mut linker = Linker::new(engine);
    wasi::define(&mut linker)?;
    let mut store = Store::new(engine, world(svg));
    let instance = linker.instantiate(&mut store, module)?;
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
    let status = exit_status(start.call(&mut store, ()))?;
    let world = store.into_data();
    if status != 0 || !world.output.starts_with(PNG) {
        let log = String::from_utf8_lossy(&world.log).into_owned();
        return Err(Error::new(RenderError { status, log }));
    }
    Ok(world.output)
}

fn world(svg: &[u8]) -> World {
    World {
        args: ARGS.map(String::from).to_vec(),
        input: svg.to_vec(),
        consumed: 0,
        output: Vec::new(),
        log: Vec::new(),
    }
}

/// A return from `_start` and a `proc_exit` are both an end with a status.
fn exit_status(result: Result<()>) -> Result<i32> {
    match result {
        Ok(()) => Ok(0),
        Err(error) => error.downcast::<Exit>().map(|exit| exit.0),
    }
}
