// SPDX-License-Identifier: MIT OR Apache-2.0

//! Makes what the guest needs: the renderer's machine code for a baseline
//! x86-64 processor, the list of its bytes that are data, and the picture that
//! the same renderer draws here, by code that Wasmtime compiled for this
//! processor and placed in its own usual way.

#![forbid(unsafe_code)]

mod code;
mod compiler;
mod image;
mod table;
mod traps;

use compiler::BoxError;
use demo_program::files;
use std::path::Path;
use std::time::Instant;
use std::{env, fs, process, thread};

const USAGE: &str = "usage: demo-compile RENDERER.wasm PICTURE.svg FOLDER";

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let [wasm, svg, folder] = args.as_slice() else {
        eprintln!("{USAGE}");
        process::exit(2);
    };
    if let Err(error) = make(Path::new(wasm), Path::new(svg), Path::new(folder)) {
        eprintln!("error: {error}");
        process::exit(1);
    }
}

fn make(wasm: &Path, svg: &Path, folder: &Path) -> Result<(), BoxError> {
    let wasm = read(wasm)?;
    let svg = read(svg)?;
    fs::create_dir_all(folder)?;
    // The two compilations share nothing, and most machines have two cores.
    thread::scope(|scope| {
        let picture = scope.spawn(|| draw(&wasm, &svg, folder));
        let images = compile(&wasm, folder);
        picture
            .join()
            .map_err(|_| "the thread that draws the picture panicked")??;
        images
    })?;
    write(folder, files::SVG, &svg)
}

fn draw(wasm: &[u8], svg: &[u8], folder: &Path) -> Result<(), BoxError> {
    let start = Instant::now();
    let picture = compiler::draw_here(wasm, svg)?;
    write(folder, files::EXPECTED, &picture)?;
    println!(
        "the renderer drew {} bytes of picture on this host, {:.1} s with its compilation",
        picture.len(),
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

fn compile(wasm: &[u8], folder: &Path) -> Result<(), BoxError> {
    let start = Instant::now();
    write_image(
        folder,
        files::TRAPS,
        &compiler::compile_baseline(&traps::MODULE)?,
    )?;
    write_image(folder, files::RENDERER, &compiler::compile_baseline(wasm)?)?;
    println!(
        "the renderer was compiled ahead in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

fn write_image(folder: &Path, name: &str, image: &[u8]) -> Result<(), BoxError> {
    let data = image::data_ranges(image)?;
    let lines = data.iter().fold(String::new(), |lines, range| {
        lines + &format!("{} {}\n", range.start, range.end)
    });
    let data_bytes: usize = data.iter().map(ExactSizeIterator::len).sum();
    println!(
        "{name}: {} bytes, {} of instructions, {} data ranges",
        image.len(),
        image.len() - data_bytes,
        data.len()
    );
    write(folder, name, image)?;
    write(
        folder,
        &format!("{name}{}", files::DATA_SUFFIX),
        lines.as_bytes(),
    )
}

fn read(path: &Path) -> Result<Vec<u8>, BoxError> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), BoxError> {
    let path = folder.join(name);
    fs::write(&path, bytes).map_err(|error| format!("{}: {error}", path.display()).into())
}
