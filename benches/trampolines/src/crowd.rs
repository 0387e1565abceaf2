// SPDX-License-Identifier: GPL-2.0

//! As many trampolines as a way can have, in a process that does nothing else:
//! the time they take to make, and the memory until each was called once.

use std::process::Command;

use crate::calls;
use crate::machine::{self, ticks};
use crate::memory::Memory;
use crate::ways::{self, Place, Start};

/// Runs [`run`] in a process of its own; the line that it prints.
pub fn spawn(way: &str, start: &Start) -> Result<String, String> {
    let output = Command::new("/proc/self/exe")
        .args(["crowd", way, &start.count.to_string()])
        .args((start.place == Place::Here).then_some("--here"))
        .output()
        .map_err(|error| format!("a process: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        return Ok(text);
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("the crowd of {way}: {}: {why}", output.status))
}

/// Makes them, and prints a line of values. Where they are kept, and what their
/// contexts point to, is not counted.
pub fn run(name: &str, start: &Start) -> Result<(), String> {
    machine::pin(0)?;
    let count = start.count;
    let contexts: &'static [u64] = Vec::leak((0..count as u64).collect());
    let mut codes = vec![1; count];
    let before = Memory::now()?;
    let begun = ticks();
    let way = ways::one(name, start)?;
    let ready = ticks();
    let (made, stopped) = way.crowd(contexts, &mut codes);
    let (setting_up, making) = (ready - begun, ticks() - ready);
    let wanted: u64 = contexts[..made].iter().map(|number| number + 1).sum();
    // SAFETY: They were just made, and live for ever.
    let sum = unsafe { calls::each(&codes[..made], &0) };
    if sum != wanted {
        return Err(format!("{name}: wrong results"));
    }
    let [process, tables, kernel] = Memory::now()?.since(before);
    println!(
        "{name},{made},{},{setting_up},{making},{process},{tables},{kernel}",
        stopped.unwrap_or_default().replace(',', ";"),
    );
    Ok(())
}
