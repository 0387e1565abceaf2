// SPDX-License-Identifier: GPL-2.0

//! The page that shows the last run.

use std::fs;
use std::path::Path;

/// Replaces what is between the two comments of this name.
pub fn update(path: &Path, name: &str, text: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let page = fs::read_to_string(path).map_err(failed)?;
    fs::write(path, replaced(&page, name, text)?).map_err(failed)
}

fn replaced(page: &str, name: &str, text: &str) -> Result<String, String> {
    let begin = format!(".. {name}: begin\n");
    let end = format!(".. {name}: end\n");
    let (before, rest) = page.split_once(&begin).ok_or(format!("no {begin}"))?;
    let (_, after) = rest.split_once(&end).ok_or(format!("no {end}"))?;
    Ok(format!("{before}{begin}\n{text}\n{end}{after}"))
}
