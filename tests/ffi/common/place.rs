// SPDX-License-Identifier: GPL-2.0
//! Where code is.

use std::fs;

/// The line of `/proc/self/maps` about an address.
fn mapping(address: usize) -> Option<String> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let holds = |line: &&str| {
        let range = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'));
        range.is_some_and(|(first, end)| {
            let number = |text| usize::from_str_radix(text, 16).unwrap_or_default();
            (number(first)..number(end)).contains(&address)
        })
    };
    maps.lines().find(holds).map(str::to_owned)
}

/// Says what is wrong unless the address is in a mapping of `/dev/jit` that can be
/// executed and not be written.
pub fn is_in_jitfd(address: usize) -> Result<(), String> {
    let line = mapping(address).unwrap_or_default();
    let flags = line.split(' ').nth(1).unwrap_or_default();
    if line.ends_with(" /dev/jit") && flags.starts_with("r-x") {
        return Ok(());
    }
    Err(format!("code at {address:#x} is not in jitfd: {line:?}"))
}
