// SPDX-License-Identifier: MIT OR Apache-2.0

//! Maps a region inside of a window: looks for a gap, and again if another
//! thread was faster. Replaces nothing.

use crate::error::{Call, Error};
use crate::os::window::Window;
use jitfd_code::Align;
use std::{fs, io};

/// How often a gap is looked for, because another thread mapped something there.
const TRIES: usize = 16;

/// Has `map` make a mapping of `len` bytes at an address that it is given: one
/// inside of `window`, or `None` if any will do. `call` is what `map` does.
pub(crate) fn map<T>(
    window: Option<Window>,
    len: usize,
    call: Call,
    mut map: impl FnMut(Option<usize>) -> io::Result<T>,
) -> Result<T, Error> {
    let failed = |error: io::Error| Error::system(call, &error);
    let Some(window) = window else {
        return map(None).map_err(failed);
    };
    let room = Align::PAGE.up(len).ok_or(Error::NoRoom { len })?;
    let mut seen = window.last_seen();
    for _ in 0..TRIES {
        let address = match seen.take() {
            Some(address) => address,
            None => {
                let maps = read("/proc/self/maps")?;
                window.find(&maps, room).ok_or(Error::NoRoom { len })?
            }
        };
        match map(Some(address)) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            other => return other.map_err(failed),
        }
    }
    Err(Error::NoRoom { len })
}

/// The window and the room in it for `most` bytes, or for fewer, but `least`. What is
/// mapped next in the window that is returned is put there without another look.
pub(crate) fn largest(window: Window, least: usize, most: usize) -> Result<(Window, usize), Error> {
    let maps = read("/proc/self/maps")?;
    let room = window.largest(&maps, least, most);
    let room = room.ok_or(Error::NoRoom { len: least })?;
    Ok((window.seen(room.at), room.len))
}

fn read(maps: &str) -> Result<String, Error> {
    #[cfg(test)]
    tests::LOOKS.set(tests::LOOKS.get() + 1);
    fs::read_to_string(maps).map_err(|error| Error::system(Call::Maps, &error))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::error::Kind;
    use std::cell::Cell;

    thread_local! {
        /// How often this thread has read the list of mappings.
        pub(crate) static LOOKS: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn without_proc_it_says_so() {
        let error = read("/proc/self/none").unwrap_err();
        assert_eq!(error.kind(), Some(Kind::NoProcfs));
        let text = error.to_string();
        assert!(text.contains("/proc/self/maps can't be read"), "{text}");
    }
}
