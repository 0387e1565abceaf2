// SPDX-License-Identifier: GPL-2.0

//! The page that shows the last run.

use std::fs;
use std::path::Path;

const BEGIN: &str = ".. measured: begin\n";
const END: &str = ".. measured: end\n";

/// Replaces what is between the two comments.
pub fn update(path: &Path, text: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let page = fs::read_to_string(path).map_err(failed)?;
    fs::write(path, replaced(&page, text)?).map_err(failed)
}

fn replaced(page: &str, text: &str) -> Result<String, String> {
    let (before, rest) = page.split_once(BEGIN).ok_or("no measured: begin")?;
    let (_, after) = rest.split_once(END).ok_or("no measured: end")?;
    Ok(format!("{before}{BEGIN}\n{text}\n{END}{after}"))
}
