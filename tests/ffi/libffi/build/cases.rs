// SPDX-License-Identifier: GPL-2.0
//! Which of libffi's tests concern closures, in which variants, and what they
//! have to print: as its DejaGnu files say.

use std::fs;
use std::path::{Path, PathBuf};

/// One test in one variant.
pub struct Case {
    /// `folder/file`, and what the variant is.
    pub name: String,
    /// What its `main` is called in the program.
    pub symbol: String,
    pub source: PathBuf,
    /// Arguments for the compiler.
    pub flags: Vec<String>,
    /// A pattern that is found somewhere in what it prints.
    pub output: String,
    /// Whether it calls `ffi_closure_alloc`.
    pub allocates: bool,
}

/// What `run-many-tests` of `lib/libffi.exp` varies with GCC on x86-64.
const OPTIMIZATIONS: [&str; 2] = ["-O0", "-O2"];
const ABIS: [(&str, &[&str]); 2] = [
    ("", &[]),
    (" win64", &["-DABI_NUM=FFI_GNUW64", "-DABI_ATTR=__MSABI__"]),
];

/// How many tests `bhaible.exp` makes of the one file.
const CALLBACKS: u32 = 80;
/// Those of them that have no text: structs of types unknown to libffi.
const EMPTY: [u32; 2] = [58, 59];

/// All tests that make closures by `ffi_closure_alloc`, and the rest of the
/// folder of closures.
pub fn all(suite: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for folder in ["libffi.closures", "libffi.complex", "libffi.threads"] {
        for source in sources(&suite.join(folder)) {
            if folder == "libffi.closures" || allocates(&source) {
                variants(&mut cases, &source, "", &[]);
            }
        }
    }
    let callback = suite.join("libffi.bhaible/test-callback.c");
    for number in (1..=CALLBACKS).filter(|number| !EMPTY.contains(number)) {
        let define = format!("-DDGTEST={number}");
        variants(&mut cases, &callback, &format!(" {number}"), &[define]);
    }
    cases
}

/// The C and C++ files of a folder, in order.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("libffi-sys has libffi's tests");
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is_source = |path: &PathBuf| {
        path.extension()
            .is_some_and(|end| end == "c" || end == "cc")
    };
    let mut sources: Vec<PathBuf> = paths.filter(is_source).collect();
    sources.sort();
    sources
}

/// Whether the file, or one that it includes, allocates a closure.
fn allocates(source: &Path) -> bool {
    let text = read(source);
    let included = text
        .lines()
        .filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"'))
        .filter(|name| name.ends_with(".inc"))
        .map(|name| read(&source.with_file_name(name)));
    let mut texts = included.chain([text.clone()]);
    texts.any(|text| text.contains("ffi_closure_alloc"))
}

fn variants(cases: &mut Vec<Case>, source: &Path, part: &str, defines: &[String]) {
    let (text, allocates) = (read(source), allocates(source));
    let file = source.file_name().unwrap_or_default().to_string_lossy();
    let folder = source
        .parent()
        .and_then(Path::file_name)
        .unwrap_or_default();
    let abis = if text.contains("ABI_NUM") {
        &ABIS[..]
    } else {
        &ABIS[..1]
    };
    for optimization in OPTIMIZATIONS {
        for (abi, options) in abis {
            let mut flags = vec![optimization.to_owned()];
            flags.extend(options.iter().map(|&option| option.to_owned()));
            flags.extend_from_slice(defines);
            cases.push(Case {
                name: format!(
                    "{}/{file}{part} {optimization}{abi}",
                    folder.to_string_lossy()
                ),
                symbol: format!("case_{}", cases.len()),
                source: source.to_owned(),
                flags,
                output: output(&text),
                allocates,
            });
        }
    }
}

/// The strings of all `dg-output` of a file, put together: a regular expression.
fn output(text: &str) -> String {
    let mut pattern = String::new();
    for (_, rest) in text
        .match_indices("{ dg-output \"")
        .map(|(at, found)| text.split_at(at + found.len()))
    {
        // What is behind the string says on which machines it fails, none of
        // which is this one.
        unescape(rest, &mut pattern);
    }
    pattern
}

/// Appends a Tcl string, up to its closing quote.
fn unescape(text: &str, to: &mut String) {
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => return,
            '\\' => match letters.next() {
                Some('n') => to.push('\n'),
                Some(other) => to.push(other),
                None => return,
            },
            other => to.push(other),
        }
    }
}

fn read(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}
