// SPDX-License-Identifier: MIT OR Apache-2.0

//! Maps a region inside of a window: looks for a gap, and again if another
//! thread was faster. Replaces nothing.

use super::window::Window;
use crate::error::{Call, Error};
use crate::layout::Align;
use crate::sys::Mapped;
use std::os::fd::BorrowedFd;
use std::{fs, io};

/// How often a gap is looked for, because another thread mapped something there.
const TRIES: usize = 16;

/// Maps the first `len` bytes of a region.
pub(crate) fn map(fd: BorrowedFd<'_>, window: Window, len: usize) -> Result<Mapped, Error> {
    let room = Align::PAGE.up(len).ok_or(Error::NoRoom { len })?;
    let failed = |error: io::Error| Error::system(Call::Map, &error);
    for _ in 0..TRIES {
        let maps = fs::read_to_string("/proc/self/maps").map_err(failed)?;
        let address = window.find(&maps, room).ok_or(Error::NoRoom { len })?;
        match Mapped::region_at(fd, len, address) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            other => return other.map_err(failed),
        }
    }
    Err(Error::NoRoom { len })
}
