// SPDX-License-Identifier: MIT OR Apache-2.0

//! The renderer, out of jitfd memory: its picture must equal the host's.

use crate::image;
use crate::report::BoxError;
use demo_program::files;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// Draws the picture into `out`; returns the number of wrong pictures.
pub fn check(folder: &Path, out: &Path) -> Result<u64, BoxError> {
    let engine = image::engine()?;
    let renderer = image::load(&engine, folder, files::RENDERER)?;
    let svg = fs::read(folder.join(files::SVG))?;
    let expected = fs::read(folder.join(files::EXPECTED))?;
    let start = Instant::now();
    let picture = demo_program::render(&engine, &renderer, &svg)?;
    let path = out.join(files::PICTURE);
    fs::write(&path, &picture).map_err(|error| format!("{}: {error}", path.display()))?;
    let same = picture == expected;
    println!(
        "the renderer drew {} bytes of picture in {:.1} s, {} the host's",
        picture.len(),
        start.elapsed().as_secs_f64(),
        if same {
            "byte for byte"
        } else {
            "WRONG: different from"
        }
    );
    Ok(u64::from(!same))
}
