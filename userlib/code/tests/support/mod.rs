// SPDX-License-Identifier: MIT OR Apache-2.0

//! The shadow of the validator: the same rules in the slowest and plainest way,
//! and real code to try both on.
#![allow(dead_code, reason = "each test uses a part of it")]

use iced_x86::{Decoder, DecoderOptions};
use object::{Object, ObjectSection};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;

/// What the shadow says about a chunk.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The starts of instructions, and the targets behind lock prefixes.
    Accepted(BTreeSet<usize>, BTreeSet<usize>),
    Refused,
}

/// Judges `code` with the given data ranges, tolerating lock skips.
pub fn judge(code: &[u8], data: &[Range<usize>]) -> Verdict {
    let is_data: Vec<bool> = (0..code.len())
        .map(|at| data.iter().any(|r| r.contains(&at)))
        .collect();
    let Some(starts) = starts(code, &is_data) else {
        return Verdict::Refused;
    };
    let mut skips = BTreeSet::new();
    for &at in &starts {
        match branch(code, at) {
            Branch::None => {}
            Branch::Ambiguous => return Verdict::Refused,
            Branch::To(target) => {
                let inside = usize::try_from(target)
                    .ok()
                    .filter(|&target| target < code.len());
                let Some(target) = inside.filter(|target| !starts.contains(target)) else {
                    continue;
                };
                let behind_lock = target.checked_sub(1).filter(|start| starts.contains(start));
                if behind_lock.is_none_or(|start| code[start] != 0xf0) || is_data[target] {
                    return Verdict::Refused;
                }
                skips.insert(target);
            }
        }
    }
    Verdict::Accepted(starts, skips)
}

/// Every instruction is decoded by a decoder of its own, from at most 15 bytes.
fn starts(code: &[u8], is_data: &[bool]) -> Option<BTreeSet<usize>> {
    let mut starts = BTreeSet::new();
    let mut at = 0;
    while at < code.len() {
        if is_data[at] {
            at += 1;
            continue;
        }
        let len = length(&code[at..code.len().min(at + 15)])?;
        if is_data[at..at + len].iter().any(|&data| data) {
            return None;
        }
        starts.insert(at);
        at += len;
    }
    Some(starts)
}

/// The length of the first instruction of `bytes`, if it is complete and valid.
pub fn length(bytes: &[u8]) -> Option<usize> {
    let instruction = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then(|| instruction.len())
}

enum Branch {
    None,
    To(i64),
    Ambiguous,
}

/// The direct branch at `at`, read from the bytes and the manual.
fn branch(code: &[u8], at: usize) -> Branch {
    let mut here = at;
    let (mut operand_size, mut wide) = (false, false);
    // A REX prefix counts only next to the opcode.
    while let byte @ (0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3) =
        code[here]
    {
        operand_size |= byte == 0x66;
        wide = byte & 0xf8 == 0x48;
        here += 1;
    }
    let next = code.get(here + 1).copied().unwrap_or(0);
    let (opcode_len, bytes) = match (code[here], next) {
        (0x70..=0x7f | 0xe0..=0xe3 | 0xeb, _) => (1, 1),
        (0xe8 | 0xe9, _) => (1, 4),
        (0x0f, 0x80..=0x8f) | (0xc7, 0xf8) => (2, 4),
        // Near ones that take an operand or the stack.
        (0xc2 | 0xc3, _) => (0, 0),
        (0xff, modrm) if matches!(modrm >> 3 & 7, 2 | 4) => (0, 0),
        _ => return Branch::None,
    };
    if operand_size && !wide {
        return Branch::Ambiguous;
    }
    if bytes == 0 {
        return Branch::None;
    }
    let from = here + opcode_len;
    let displacement = match bytes {
        1 => i64::from(code[from] as i8),
        _ => i64::from(i32::from_le_bytes(code[from..from + 4].try_into().unwrap())),
    };
    Branch::To((from + bytes) as i64 + displacement)
}

/// The `.text` of the first of these files that the host has.
pub fn text_of(paths: &[&str]) -> Option<Vec<u8>> {
    let file = paths.iter().find_map(|path| std::fs::read(path).ok())?;
    let elf = object::File::parse(&*file).ok()?;
    Some(elf.section_by_name(".text")?.data().ok()?.to_vec())
}

/// The large programs and libraries of this host with their `.text`, the largest
/// first, at most `most` of them.
pub fn programs(most: usize) -> impl Iterator<Item = (PathBuf, Vec<u8>)> {
    const LARGE: u64 = 500_000;
    let mut files = Vec::new();
    for folder in [
        "/usr/bin",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib64",
        "/usr/libexec",
    ] {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        // What is no link: so nothing comes twice.
        let plain = entries.filter_map(|entry| Some((entry.metadata().ok()?, entry.path())));
        files.extend(plain.filter(|(meta, _)| meta.is_file() && meta.len() > LARGE));
    }
    files.sort_by_key(|(meta, path)| (std::cmp::Reverse(meta.len()), path.clone()));
    let texts = files.into_iter().filter_map(|(_, path)| {
        let text = text_of(&[path.to_str()?])?;
        Some((path, text))
    });
    texts.take(most)
}
