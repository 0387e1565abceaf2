// SPDX-License-Identifier: MIT OR Apache-2.0

//! `jitctl stat`: the counters that the kernel shows in `/proc/PID/fdinfo` of a
//! region's descriptors.

use crate::Status;
use serde_json::{Map, Value, json};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Arguments {
    /// The process
    pid: u32,
    /// Prints one JSON array
    #[arg(long)]
    json: bool,
    /// Where /proc is
    #[arg(long, hide = true, default_value = "/proc")]
    proc: PathBuf,
}

/// One descriptor of a region.
struct Descriptor {
    number: u32,
    /// What it is open on, as /proc says.
    file: String,
    /// The lines "jit-NAME:\tVALUE", without "jit-".
    counters: Vec<(String, u64)>,
}

pub fn run(arguments: &Arguments, out: &mut dyn Write) -> io::Result<Status> {
    let process = arguments.proc.join(arguments.pid.to_string());
    let descriptors = descriptors(&process)
        .map_err(|error| io::Error::other(format!("{}: {error}", process.display())))?;
    if arguments.json {
        writeln!(out, "{:#}", as_json(&descriptors))?;
    } else {
        print(&descriptors, out)?;
    }
    Ok(if descriptors.is_empty() {
        Status::No
    } else {
        Status::Good
    })
}

/// The descriptors with counters, in the order of their numbers. One that was
/// closed meanwhile is left out.
fn descriptors(process: &Path) -> io::Result<Vec<Descriptor>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(process.join("fdinfo"))? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(text) = fs::read_to_string(process.join("fdinfo").join(&name)) else {
            continue;
        };
        let counters = counters(&text);
        if !counters.is_empty() {
            let file = fs::read_link(process.join("fd").join(&name)).unwrap_or_default();
            all.push(Descriptor {
                number,
                file: file.display().to_string(),
                counters,
            });
        }
    }
    all.sort_by_key(|descriptor| descriptor.number);
    Ok(all)
}

fn counters(text: &str) -> Vec<(String, u64)> {
    let lines = text.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("jit-")?.split_once(':')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    });
    lines.collect()
}

fn print(descriptors: &[Descriptor], out: &mut dyn Write) -> io::Result<()> {
    if descriptors.is_empty() {
        return writeln!(out, "no descriptor of a region");
    }
    for descriptor in descriptors {
        writeln!(out, "descriptor {}: {}", descriptor.number, descriptor.file)?;
        for (name, value) in &descriptor.counters {
            writeln!(out, "  {name:<13} {value}")?;
        }
    }
    Ok(())
}

fn as_json(descriptors: &[Descriptor]) -> Value {
    let one = |descriptor: &Descriptor| {
        let counters = descriptor.counters.iter();
        let counters: Map<String, Value> = counters
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        json!({
            "descriptor": descriptor.number,
            "file": descriptor.file,
            "counters": counters,
        })
    };
    descriptors.iter().map(one).collect()
}
