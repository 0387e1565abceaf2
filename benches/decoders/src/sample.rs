// SPDX-License-Identifier: GPL-2.0

//! Real code, found on this machine when the bench runs.

use jitfd::{Rules, validate};
use object::{Object, ObjectSection};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Code to be checked.
pub struct Sample {
    pub name: String,
    pub bytes: Vec<u8>,
    /// Ascending.
    pub data: Vec<Range<usize>>,
    pub one_thread: Rules,
    pub all_threads: Rules,
}

/// Enough for steady numbers; the slowest decoder takes a second for it.
const MOST: usize = 4 << 20;

/// How many programs are taken, the largest first.
const PROGRAMS: usize = 4;

impl Sample {
    /// `None` if this is not code throughout.
    fn new(name: String, bytes: Vec<u8>, data: Vec<Range<usize>>) -> Option<Self> {
        let options = Rules::new().allow_lock_skips();
        let options = data.iter().cloned().fold(options, Rules::data);
        let sample = Self {
            name,
            bytes,
            data,
            one_thread: options.clone().threads(1),
            all_threads: options,
        };
        match validate(&sample.bytes, &sample.one_thread) {
            Ok(_) => Some(sample),
            Err(error) => {
                eprintln!("{} is left out: {error}", sample.name);
                None
            }
        }
    }

    /// What is no data, in ascending order.
    pub fn runs(&self) -> impl Iterator<Item = Range<usize>> {
        let ends = self.data.iter().map(|data| data.start);
        let starts = self.data.iter().map(|data| data.end);
        let runs = std::iter::once(0).chain(starts);
        runs.zip(ends.chain([self.bytes.len()]))
            .map(|(start, end)| start..end)
    }

    /// The start of the `.text` of a program, cut where an instruction ends.
    fn of_program(path: &Path) -> Option<Self> {
        let file = std::fs::read(path).ok()?;
        let elf = object::File::parse(&*file).ok()?;
        let mut text = elf.section_by_name(".text")?.data().ok()?.to_vec();
        if text.len() > MOST {
            text.truncate(whole(&text, MOST));
        }
        let name = path.file_name()?.to_string_lossy();
        let name = name.split_once("-").map_or(&*name, |(name, _)| name);
        Self::new(name.into(), text, Vec::new())
    }

    /// An image that Wasmtime made, and a list of what in it is data.
    fn of_image(path: &Path) -> Option<Self> {
        let bytes = std::fs::read(path).ok()?;
        let list = std::fs::read_to_string(path.with_extension("cwasm.data")).ok()?;
        let data = list.lines().filter_map(|line| {
            let (start, end) = line.split_once(' ')?;
            Some(start.parse().ok()?..end.parse().ok()?)
        });
        let data = data.collect();
        Self::new("Wasmtime image".into(), bytes, data)
    }
}

/// Where the last instruction that fits into `len` bytes ends.
fn whole(text: &[u8], len: usize) -> usize {
    let mut decoder = iced_x86::Decoder::new(64, &text[..len], iced_x86::DecoderOptions::NONE);
    loop {
        let at = decoder.position();
        if !decoder.can_decode() || decoder.decode().is_invalid() {
            return at;
        }
    }
}

/// The C library, large programs, and an image that `make demo` left in the
/// cache, if any.
pub fn samples() -> Vec<Sample> {
    let libc = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6"];
    let libc = libc
        .iter()
        .find_map(|path| Sample::of_program(Path::new(path)));
    let programs = large_files().into_iter();
    let programs = programs.filter_map(|path| Sample::of_program(&path));
    let image = images()
        .into_iter()
        .find_map(|path| Sample::of_image(&path));
    if image.is_none() {
        eprintln!("no Wasmtime image in the cache: `make demo` makes one");
    }
    libc.into_iter()
        .chain(programs.take(PROGRAMS))
        .chain(image)
        .collect()
}

/// Compilers, interpreters and debuggers, which are large, and many machines
/// have some.
fn large_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for (folder, names) in [
        ("/usr/libexec/gcc/x86_64-linux-gnu", &["cc1"][..]),
        ("/usr/lib/gcc/x86_64-linux-gnu", &["cc1"]),
        (
            "/usr/bin",
            &["python3", "gdb", "perl", "git", "qemu-system-x86_64"],
        ),
    ] {
        let folder = PathBuf::from(folder);
        let mut folders = entries(&folder);
        folders.push(folder);
        let inside = |folder: &PathBuf| names.iter().map(|name| folder.join(name)).collect();
        let all = folders
            .iter()
            .flat_map(|folder| -> Vec<_> { inside(folder) });
        files.extend(all.filter(|path| path.is_file()));
    }
    let toolchain = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let toolchain = toolchain.or_else(|| Some(std::env::home_dir()?.join(".rustup")));
    let toolchains = entries(&toolchain.unwrap_or_default().join("toolchains"));
    let libraries = toolchains
        .iter()
        .flat_map(|folder| entries(&folder.join("lib")));
    let is_driver = |path: &PathBuf| path.to_string_lossy().contains("librustc_driver");
    files.extend(libraries.filter(is_driver).take(1));
    files.sort_by_key(|path| {
        std::cmp::Reverse(std::fs::metadata(path).map_or(0, |meta| meta.len()))
    });
    files.dedup_by_key(|path| path.file_name().map(|name| name.to_owned()));
    files
}

fn images() -> Vec<PathBuf> {
    let cache = std::env::var_os("CACHE").map(PathBuf::from);
    let home = || Some(std::env::home_dir()?.join(".cache/jitfd"));
    let folders = entries(&cache.or_else(home).unwrap_or_default()).into_iter();
    let images = folders.map(|folder| folder.join("renderer.cwasm"));
    images.filter(|path| path.is_file()).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
