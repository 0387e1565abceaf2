// SPDX-License-Identifier: GPL-2.0

//! `module/uapi/jit.h` is what `module/uapi/abi.rs` says, for C programs. To write it
//! anew:
//!
//! ```text
//! UPDATE=1 cargo test -p jitfd-host-tests --test header
//! ```

use std::path::Path;
use std::process::Command;

const HEAD: &str = "\
/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT OR Apache-2.0 */
/*
 * The interface between userspace and /dev/jit: ioctl numbers, argument structs
 * and flags. jit(4) says what the calls do. Programs that use libjitfd need
 * jitfd.h instead.
 *
 * Generated from abi.rs; tests/host/tests/header.rs says how.
 */
#ifndef _UAPI_LINUX_JIT_H
#define _UAPI_LINUX_JIT_H

#include <linux/ioctl.h>
#include <linux/types.h>

";
const FOOT: &str = "#endif /* _UAPI_LINUX_JIT_H */\n";

/// The name of a constant or a struct in C.
fn in_c(name: &str) -> String {
    if name == "FILL" {
        // There is a call of that name.
        return "JIT_FILL_BYTE".to_owned();
    }
    if name.starts_with("JIT_") {
        return name.to_owned();
    }
    if name.chars().all(|letter| !letter.is_lowercase()) {
        return format!("JIT_{name}");
    }
    let mut words = "struct jit".to_owned();
    for letter in name.chars() {
        if letter.is_uppercase() {
            words.push('_');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

/// A line of documentation, with names as C has them.
fn text(line: &str) -> String {
    let mut out = String::new();
    for (at, part) in line.split('`').enumerate() {
        let link = at % 2 == 1 && out.ends_with('[');
        match part.split_once("::") {
            Some((owner, field)) if link => out += &format!("{field} of {}", in_c(owner)),
            _ if link => out += &in_c(part),
            _ => out += part,
        }
    }
    out.replace(['[', ']'], "")
}

fn comment(docs: &mut Vec<String>, indent: &str) -> String {
    let docs = std::mem::take(docs);
    match docs.as_slice() {
        [] => String::new(),
        [one] => format!("{indent}/* {one} */\n"),
        many => {
            let lines: String = many.iter().map(|l| format!("{indent} * {l}\n")).collect();
            format!("{indent}/*\n{lines}{indent} */\n")
        }
    }
}

/// A field as C has it, of `name: type`.
fn field(rust: &str) -> String {
    let (name, kind) = rust.split_once(": ").unwrap();
    let (kind, count) = match kind.trim_matches(['[', ']']).split_once("; ") {
        Some((kind, count)) => (kind, format!("[{count}]")),
        None => (kind, String::new()),
    };
    let kind = kind.replace('u', "__u").replace('i', "__s");
    format!("{kind} {name}{count};")
}

/// A value as C has it.
fn value(kind: &str, rust: &str) -> String {
    if let Some(call) = rust.strip_prefix("ioctl(") {
        let mut parts = call.trim_end_matches(')').splitn(3, ", ");
        let mut next = || parts.next().unwrap();
        let (direction, number, size) = (next(), next(), next());
        let make = match direction {
            "NONE" => return format!("_IO(JIT_IOCTL_TYPE, {number})"),
            "WRITE" => "_IOW",
            "READ" => "_IOR",
            _ => "_IOWR",
        };
        let kind = size.trim_start_matches("size_of::<");
        let kind = in_c(kind.trim_end_matches(['(', '>']));
        return format!("{make}(JIT_IOCTL_TYPE, {number}, {kind})");
    }
    match (rust, kind) {
        ("u64::MAX", _) => "(~(__u64)0)".to_owned(),
        ("b'J' as u32", _) => "'J'".to_owned(),
        (shift, "u64") if shift.contains("<<") => format!("((__u64){shift})"),
        (shift, _) if shift.contains("<<") => format!("({shift})"),
        (plain, _) => plain.to_owned(),
    }
}

fn generated(abi: &str) -> String {
    let mut header = HEAD.to_owned();
    let mut docs = Vec::new();
    let mut in_struct = false;
    let abi = abi.replace("=\n    ", "= ");
    for line in abi.lines() {
        let rest = line.trim_start();
        if let Some(line) = rest.strip_prefix("/// ") {
            docs.push(text(line));
        } else if let Some(constant) = rest.strip_prefix("pub const ") {
            let (name, constant) = constant.trim_end_matches(';').split_once(": ").unwrap();
            let (kind, rust) = constant.split_once(" = ").unwrap();
            header += &comment(&mut docs, "");
            header += &format!("#define {} {}\n\n", in_c(name), value(kind, rust));
        } else if let Some(name) = rest.strip_prefix("pub struct ") {
            header += &comment(&mut docs, "");
            header += &format!("{} {{\n", in_c(name.trim_end_matches(" {")));
            in_struct = true;
        } else if let Some(rust) = rest.strip_prefix("pub ").filter(|_| in_struct) {
            header += &comment(&mut docs, "\t");
            header += &format!("\t{}\n", field(rust.trim_end_matches(',')));
        } else if line == "}" && in_struct {
            header += "};\n\n";
            in_struct = false;
        } else if !rest.starts_with("#[") {
            docs.clear();
        }
    }
    header + FOOT
}

#[test]
fn the_header_is_what_the_interface_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../module/uapi");
    let header = folder.join("jit.h");
    let wanted = generated(&std::fs::read_to_string(folder.join("abi.rs")).unwrap());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&header, &wanted).unwrap();
    }
    let committed = std::fs::read_to_string(&header).unwrap_or_default();
    assert!(
        committed == wanted,
        "module/uapi/jit.h is not what abi.rs says; UPDATE=1 cargo test -p jitfd-host-tests \
         --test header writes it anew"
    );
}

/// A C program prints the numbers of the calls, which hold the sizes of the structs.
#[test]
fn a_c_compiler_agrees() {
    use jitfd_plan::abi::*;
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    if Command::new(&cc).arg("--version").output().is_err() {
        eprintln!("not run: there is no C compiler ({cc})");
        return;
    }
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../module/uapi/jit.h");
    let folder = std::env::temp_dir().join(format!("jitfd-header-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let calls = [
        ("JIT_CREATE_CODE", JIT_CREATE_CODE),
        ("JIT_CREATE", JIT_CREATE),
        ("JIT_APPEND", JIT_APPEND),
        ("JIT_RESERVE", JIT_RESERVE),
        ("JIT_FILL", JIT_FILL),
        ("JIT_SEAL", JIT_SEAL),
        ("JIT_STATS", JIT_STATS),
        ("JIT_CLONE", JIT_CLONE),
        ("JIT_FILL_BYTE", FILL.into()),
        ("(JIT_ANY_OFFSET >> 32)", u32::MAX),
        ("(JIT_MAX_REGION == (__u64)1 << 30)", 1),
    ];
    let checks =
        calls.map(|(name, number)| format!("_Static_assert({name} == {number}u, \"{name}\");\n"));
    let source = folder.join("calls.c");
    let text = format!("#include \"{}\"\n{}", header.display(), checks.concat());
    std::fs::write(&source, text).unwrap();
    let compiled = Command::new(&cc)
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"])
        .arg(&source)
        .output()
        .unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
}
