// SPDX-License-Identifier: GPL-2.0
//! What the guest holds, as a cpio archive in the "newc" format
//! (Documentation/driver-api/early-userspace/buffer-format.rst), uncompressed:
//! the kernel unpacks it faster than it could decompress it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use jitfd_vm_protocol::{Link, Token, orders};

use crate::error::Error;
use crate::options::Options;

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_777;

/// One file or folder of the guest.
pub struct Entry {
    path: String,
    mode: u32,
    /// Seconds since 1970. Some programs take 0 for an error.
    modified: u32,
    data: Vec<u8>,
}

impl Entry {
    fn folder(path: &str) -> Entry {
        Entry {
            path: path.to_owned(),
            mode: DIRECTORY,
            modified: 0,
            data: Vec::new(),
        }
    }

    fn text(path: &str, text: String) -> Entry {
        Entry::bytes(path, text.into_bytes())
    }

    fn bytes(path: &str, data: Vec<u8>) -> Entry {
        Entry {
            path: path.to_owned(),
            mode: REGULAR | 0o644,
            modified: 0,
            data,
        }
    }

    fn copy(path: String, mode: u32, from: &Path) -> Result<Entry, Error> {
        let data = fs::read(from).map_err(Error::at(from))?;
        let found = fs::metadata(from).map_err(Error::at(from))?;
        Ok(Entry {
            path,
            mode,
            modified: u32::try_from(found.mtime()).unwrap_or(0),
            data,
        })
    }
}

/// The guest of a trial boot: nothing but init.
pub fn only_init(init: &Path) -> Result<Vec<Entry>, Error> {
    let mut entries: Vec<Entry> = ["bin", "files", "run"].map(Entry::folder).into();
    entries.push(Entry::copy("init".into(), EXECUTABLE, init)?);
    Ok(entries)
}

/// What init has to know of the emulator.
pub fn orders(link: Link, token: Token) -> [Entry; 2] {
    [
        Entry::text(orders::LINK, link.name().to_owned()),
        Entry::bytes(orders::TOKEN, token.0.to_vec()),
    ]
}

/// Everything that a run needs, whatever the emulator.
pub fn contents(
    options: &Options,
    init: &Path,
    module: Option<&Path>,
) -> Result<Vec<Entry>, Error> {
    let mut entries = only_init(init)?;
    if let Some(module) = module {
        entries.push(Entry::copy("run/jit.ko".into(), REGULAR | 0o644, module)?);
        entries.push(Entry::text("run/parameters", options.params.clone()));
    }
    if options.watch_leaks() {
        entries.push(Entry::text("run/leaks", String::new()));
    }
    push_program(&mut entries, &options.program)?;
    for file in options.files.iter().filter(|file| !file.is_empty()) {
        let from = Path::new(file);
        let path = format!("files/{}", base_name(from)?);
        let found = fs::metadata(from).map_err(Error::at(from))?;
        push_tree(&mut entries, path, from, &found)?;
    }
    Ok(entries)
}

/// A file, or a folder with all below it: files, folders and links, as they are.
fn push_tree(
    entries: &mut Vec<Entry>,
    path: String,
    from: &Path,
    found: &fs::Metadata,
) -> Result<(), Error> {
    let mode = found.permissions().mode() & 0o777;
    if found.is_file() {
        entries.push(Entry::copy(path, REGULAR | mode, from)?);
    } else if found.is_symlink() {
        let target = fs::read_link(from).map_err(Error::at(from))?;
        entries.push(Entry {
            path,
            mode: LINK,
            modified: 0,
            data: target.into_os_string().into_vec(),
        });
    } else if found.is_dir() {
        entries.push(Entry::folder(&path));
        for inside in fs::read_dir(from).map_err(Error::at(from))? {
            let inside = inside.map_err(Error::at(from))?.path();
            let path = format!("{path}/{}", base_name(&inside)?);
            let found = fs::symlink_metadata(&inside).map_err(Error::at(&inside))?;
            push_tree(entries, path, &inside, &found)?;
        }
    }
    Ok(())
}

/// Copies the program and writes down its arguments, each ended by a NUL.
fn push_program(entries: &mut Vec<Entry>, program: &[String]) -> Result<(), Error> {
    let (path, arguments) = program
        .split_first()
        .ok_or(Error("no program is named".into()))?;
    let from = Path::new(path);
    let inside = format!("bin/{}", base_name(from)?);
    let mut words = format!("/{inside}\0");
    for argument in arguments {
        words.push_str(argument);
        words.push('\0');
    }
    let program = Entry::copy(inside, EXECUTABLE, from)?;
    if names_interpreter(&program.data) {
        return Err(Error(format!(
            "{path} is linked dynamically, and the guest has no libraries; build it with \
             -C target-feature=+crt-static, or with cc -static"
        )));
    }
    entries.push(program);
    entries.push(Entry::text("run/program", words));
    Ok(())
}

/// Whether this is a 64-bit ELF file with a PT_INTERP program header.
fn names_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: usize = 3;
    let headers = number(elf, 32, 8).zip(number(elf, 54, 2).zip(number(elf, 56, 2)));
    let Some((first, (size, count))) = headers else {
        return false;
    };
    elf.starts_with(b"\x7fELF\x02")
        && (0..count).any(|index| number(elf, first + index * size, 4) == Some(PT_INTERP))
}

/// The little-endian number of `size` bytes at `at`.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<usize> {
    let mut number = [0; 8];
    number
        .get_mut(..size)?
        .copy_from_slice(bytes.get(at..)?.get(..size)?);
    usize::try_from(u64::from_le_bytes(number)).ok()
}

fn base_name(path: &Path) -> Result<&str, Error> {
    path.file_name()
        .and_then(|name| name.to_str())
        .ok_or(Error(format!("{} names no file", path.display())))
}

/// Writes the archive.
pub fn write(path: &Path, entries: &[Entry]) -> Result<(), Error> {
    let archive = File::create(path).and_then(|file| {
        let mut writer = BufWriter::new(file);
        write_archive(&mut writer, entries)?;
        writer.flush()
    });
    archive.map_err(Error::at(path))
}

fn write_archive(writer: &mut impl Write, entries: &[Entry]) -> io::Result<()> {
    for (number, entry) in (1..).zip(entries) {
        write_entry(writer, number, entry)?;
    }
    let trailer = Entry {
        path: "TRAILER!!!".into(),
        mode: 0,
        modified: 0,
        data: Vec::new(),
    };
    write_entry(writer, 0, &trailer)
}

fn write_entry(writer: &mut impl Write, inode: u32, entry: &Entry) -> io::Result<()> {
    let size = u32::try_from(entry.data.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let name_size = entry.path.len() + 1;
    write!(
        writer,
        "070701{inode:08x}{mode:08x}{uid:08x}{gid:08x}{links:08x}{mtime:08x}{size:08x}\
         {major:08x}{minor:08x}{rmajor:08x}{rminor:08x}{name_size:08x}{check:08x}{path}\0",
        mode = entry.mode,
        uid = 0,
        gid = 0,
        links = 1,
        mtime = entry.modified,
        major = 0,
        minor = 0,
        rmajor = 0,
        rminor = 0,
        check = 0,
        path = entry.path,
    )?;
    pad(writer, 110 + name_size)?;
    writer.write_all(&entry.data)?;
    pad(writer, entry.data.len())
}

/// Fills up to a multiple of four.
fn pad(writer: &mut impl Write, length: usize) -> io::Result<()> {
    writer.write_all(&[0; 3][..length.next_multiple_of(4) - length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_recognised() {
        let dynamic = fs::read("/proc/self/exe").unwrap();
        assert!(names_interpreter(&dynamic));
        assert!(!names_interpreter(&dynamic[..60]));
        assert!(!names_interpreter(b"#!/bin/sh"));
    }

    #[test]
    fn a_folder_is_copied_as_it_is() {
        let folder = std::env::temp_dir().join(format!("jitfd-tree-{}", std::process::id()));
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("a/b/c"), "text").unwrap();
        std::os::unix::fs::symlink("/b/c", folder.join("a/d")).unwrap();
        let mut entries = Vec::new();
        let found = fs::metadata(&folder).unwrap();
        push_tree(&mut entries, "files/x".into(), &folder, &found).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        assert_ne!(entries[3].modified, 0);
        let seen: Vec<_> = entries
            .iter()
            .map(|entry| (entry.path.as_str(), entry.mode >> 12, entry.data.as_slice()))
            .collect();
        let none: &[u8] = b"";
        assert_eq!(
            seen,
            [
                ("files/x", 4, none),
                ("files/x/a", 4, none),
                ("files/x/a/b", 4, none),
                ("files/x/a/b/c", 8, b"text"),
                ("files/x/a/d", 10, b"/b/c"),
            ]
        );
    }

    #[test]
    fn an_archive_has_aligned_headers_and_a_trailer() {
        let mut archive = Vec::new();
        let entries = [
            Entry::folder("run"),
            Entry::text("run/a", "12345".into()),
            Entry::text("run/long-name", String::new()),
        ];
        write_archive(&mut archive, &entries).unwrap();
        assert_eq!(archive.len() % 4, 0);
        let headers: Vec<usize> = (0..archive.len() - 6)
            .filter(|&at| &archive[at..at + 6] == b"070701")
            .collect();
        assert_eq!(headers.len(), 4);
        assert!(headers.iter().all(|at| at % 4 == 0));
        let file = String::from_utf8_lossy(&archive[headers[1]..headers[2]]).into_owned();
        assert_eq!(&file[54..62], "00000005");
        assert_eq!(&file[94..102], "00000006");
        assert!(file.ends_with("run/a\x0012345\0\0\0"));
    }
}
