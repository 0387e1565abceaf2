// SPDX-License-Identifier: MIT OR Apache-2.0

//! Stands in for `ioctl.rs` in unit tests: a model of the module, of a few plain
//! rules and an unlinked file as the memory of each region. So the rest of the
//! library runs, code included, on hosts without `/dev/jit`.

use crate::abi;
use crate::error::{Call, Error, SystemError};
pub(crate) use crate::ioctl_piece::Piece;
use crate::layout::Align;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// A region, by the inode of its file.
#[derive(Default)]
struct Region {
    capacity: usize,
    cursor: usize,
    sealed: bool,
    holes: Vec<Range<usize>>,
    flags: u32,
    publications: u64,
}

static REGIONS: Mutex<BTreeMap<u64, Region>> = Mutex::new(BTreeMap::new());

fn file(fd: BorrowedFd<'_>) -> File {
    File::from(fd.try_clone_to_owned().unwrap())
}

fn with<T>(
    fd: BorrowedFd<'_>,
    call: Call,
    work: impl FnOnce(&mut Region, &File) -> Result<T, i32>,
) -> Result<T, Error> {
    let file = file(fd);
    let mut regions = REGIONS.lock().unwrap();
    let region = regions
        .get_mut(&file.metadata().unwrap().ino())
        .ok_or(libc::ENOTTY);
    let result = region.and_then(|region| work(region, &file));
    result.map_err(|errno| SystemError::new(call, errno).into())
}

pub(crate) fn open_device() -> Result<OwnedFd, Error> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("jitfd-model-{}-{number}", std::process::id()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(path).unwrap();
    Ok(file.into())
}

pub(crate) fn create(device: BorrowedFd<'_>, size: usize, _: u32) -> Result<OwnedFd, Error> {
    let file = file(device);
    file.write_all_at(&vec![abi::FILL; size], 0).unwrap();
    let region = Region {
        capacity: size,
        ..Region::default()
    };
    REGIONS
        .lock()
        .unwrap()
        .insert(file.metadata().unwrap().ino(), region);
    Ok(file.into())
}

pub(crate) fn append(
    handle: BorrowedFd<'_>,
    pieces: &[Piece<'_>],
    expect: Option<usize>,
    flags: u32,
) -> Result<usize, Error> {
    let result = with(handle, Call::Append, |region, file| {
        if region.sealed {
            return Err(libc::EROFS);
        }
        let fresh = flags & abi::PUBLISH_FRESH != 0;
        let edge = |at| {
            if fresh {
                Align::PAGE.up(at).unwrap()
            } else {
                at
            }
        };
        let mut end = edge(region.cursor);
        let mut offsets = Vec::new();
        for piece in pieces {
            let offset = piece.align.up(end).unwrap();
            offsets.push(offset);
            end = offset + piece.bytes.len();
        }
        if expect.is_some_and(|expect| expect != offsets[0]) {
            return Err(libc::ESTALE);
        }
        if end > region.capacity {
            return Err(libc::ENOSPC);
        }
        for (piece, &offset) in pieces.iter().zip(&offsets) {
            file.write_all_at(piece.bytes, offset as u64).unwrap();
        }
        (region.cursor, region.flags) = (edge(end), flags);
        region.publications += 1;
        Ok(offsets[0])
    });
    result.map_err(|error| match (error.errno(), expect) {
        (libc::ESTALE, Some(expected)) => Error::Stale { expected },
        _ => error,
    })
}

pub(crate) fn fill(handle: BorrowedFd<'_>, pieces: &[Piece<'_>], flags: u32) -> Result<(), Error> {
    with(handle, Call::Fill, |region, file| {
        if region.sealed {
            return Err(libc::EROFS);
        }
        let mut holes = region.holes.clone();
        for piece in pieces {
            let range = piece.offset..piece.offset + piece.bytes.len();
            let inside = |hole: &Range<usize>| hole.start <= range.start && range.end <= hole.end;
            let hole = holes.iter().position(inside).ok_or(libc::EEXIST)?;
            let hole = holes.swap_remove(hole);
            holes.extend([hole.start..range.start, range.end..hole.end]);
        }
        for piece in pieces {
            file.write_all_at(piece.bytes, piece.offset as u64).unwrap();
        }
        (region.holes, region.flags) = (holes, flags);
        region.publications += 1;
        Ok(())
    })
}

pub(crate) fn reserve(handle: BorrowedFd<'_>, len: usize, align: Align) -> Result<usize, Error> {
    with(handle, Call::Reserve, |region, _| {
        let offset = align.up(region.cursor).unwrap();
        match offset.checked_add(len) {
            _ if region.sealed => Err(libc::EROFS),
            _ if len == 0 => Err(libc::EINVAL),
            Some(end) if end <= region.capacity => {
                region.cursor = end;
                region.holes.push(offset..end);
                Ok(offset)
            }
            _ => Err(libc::ENOSPC),
        }
    })
}

pub(crate) fn seal(handle: BorrowedFd<'_>) -> Result<(), Error> {
    with(handle, Call::Seal, |region, _| {
        region.sealed = true;
        Ok(())
    })
}

pub(crate) fn stats(handle: BorrowedFd<'_>) -> Result<abi::Stats, Error> {
    with(handle, Call::Stats, |region, _| {
        Ok(abi::Stats {
            capacity: region.capacity as u64,
            cursor: region.cursor as u64,
            publications: region.publications,
            sealed: region.sealed.into(),
            // The model tells the tests here how it was called last.
            straddles: region.flags.into(),
            ..abi::Stats::default()
        })
    })
}

pub(crate) fn cursor(handle: BorrowedFd<'_>) -> Result<usize, Error> {
    stats(handle).map(|stats| crate::cast::to_usize(stats.cursor))
}
