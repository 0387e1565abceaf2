// SPDX-License-Identifier: GPL-2.0
//! The one channel between the guest's init and the runner on the host, which
//! carries frames. A frame is the run's token, one byte of kind, the payload's
//! length as four little-endian bytes, and the payload.
//!
//! The guest sends, in this order: [`Kind::Ready`]; [`Kind::Cpu`]; any number of
//! [`Kind::Stdout`] and [`Kind::Stderr`]; files, each a [`Kind::FileName`] and
//! its [`Kind::FileData`]; [`Kind::KernelLog`]; one of [`Kind::Exited`] and
//! [`Kind::Killed`]; [`Kind::End`]. A [`Kind::Failure`] may come anywhere before
//! the end.
//!
//! The token is new in every run. Init removes it before it starts the program,
//! so what a program writes to the channel itself is no frame, whatever it looks
//! like: it would have to read init's memory.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

/// Where the runner leaves its orders for init, in the guest.
pub mod orders {
    /// The [`Token`](crate::Token); init removes it.
    pub const TOKEN: &str = "run/token";
    /// The name of the [`Link`](crate::Link).
    pub const LINK: &str = "run/link";
}

/// How a guest talks to the runner, and how it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// By the virtio-serial port [`PORT_NAME`]; the host answers [`Kind::End`] with
    /// one byte, so that the guest does not end while frames are under way. Ends by
    /// the isa-debug-exit device.
    Virtio,
    /// By the second serial port, [`SERIAL_PORT`], which nobody answers. Ends by
    /// switching the machine off.
    Serial,
}

impl Link {
    /// What [`orders::LINK`] holds.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Link::Virtio => "virtio",
            Link::Serial => "serial",
        }
    }

    /// The link of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Link> {
        [Link::Virtio, Link::Serial]
            .into_iter()
            .find(|link| link.name() == name)
    }
}

/// The second serial port, as the guest names it.
pub const SERIAL_PORT: &str = "/dev/ttyS1";

/// The name of the port, as udev and sysfs show it in the guest.
pub const PORT_NAME: &str = "jitfd";

/// What the guest's init writes to the isa-debug-exit device when it ends on
/// purpose. QEMU then exits with [`QEMU_EXIT`].
pub const DEBUG_EXIT_VALUE: u32 = 0x2a;

/// QEMU's exit status after [`DEBUG_EXIT_VALUE`].
pub const QEMU_EXIT: i32 = 0x55;

/// The I/O port of the isa-debug-exit device.
pub const DEBUG_EXIT_PORT: u16 = 0xf4;

/// The largest payload that a reader accepts.
const MAX_PAYLOAD: usize = 1 << 20;

/// What begins each frame of a run, and no frame of any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(pub [u8; 16]);

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The kernel is up and init runs. No payload.
    Ready = 1,
    /// Three lines: how many CPUs, the model's name, and the flags of
    /// `/proc/cpuinfo` that all of them have.
    Cpu,
    /// Bytes of the program's standard output.
    Stdout,
    /// Bytes of the program's standard error.
    Stderr,
    /// One line: what init could not do.
    Failure,
    /// The name of a file that the program left in `/out`.
    FileName,
    /// Bytes of the file named last.
    FileData,
    /// Text of the kernel's log.
    KernelLog,
    /// One byte: the program's exit status.
    Exited,
    /// One byte: the signal that ended the program.
    Killed,
    /// Nothing follows. No payload.
    End,
}

impl Kind {
    const ALL: [Kind; 11] = [
        Kind::Ready,
        Kind::Cpu,
        Kind::Stdout,
        Kind::Stderr,
        Kind::Failure,
        Kind::FileName,
        Kind::FileData,
        Kind::KernelLog,
        Kind::Exited,
        Kind::Killed,
        Kind::End,
    ];

    fn from_byte(byte: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Sends one frame.
///
/// # Errors
///
/// What the writer returns, or `InvalidInput` for a payload above 1 MiB.
pub fn send(writer: &mut impl Write, token: Token, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(|_| too_long())?;
    if payload.len() > MAX_PAYLOAD {
        return Err(too_long());
    }
    let mut frame = Vec::with_capacity(payload.len() + token.0.len() + 5);
    frame.extend_from_slice(&token.0);
    frame.push(kind as u8);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(payload);
    writer.write_all(&frame)?;
    writer.flush()
}

/// Receives one frame.
///
/// # Errors
///
/// What the reader returns (`UnexpectedEof` when the channel closes), or
/// `InvalidData` for what begins with another token, and for a kind or a length that
/// no sender uses.
pub fn receive(reader: &mut impl Read, token: Token) -> io::Result<(Kind, Vec<u8>)> {
    let mut begin = token;
    let mut kind = [0; 1];
    let mut length = [0; 4];
    reader.read_exact(&mut begin.0)?;
    if begin != token {
        return Err(io::ErrorKind::InvalidData.into());
    }
    reader.read_exact(&mut kind)?;
    reader.read_exact(&mut length)?;
    let kind = Kind::from_byte(kind[0]).ok_or(io::ErrorKind::InvalidData)?;
    let length = usize::try_from(u32::from_le_bytes(length)).map_err(|_| too_long())?;
    if length > MAX_PAYLOAD {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload)?;
    Ok((kind, payload))
}

fn too_long() -> io::Error {
    io::ErrorKind::InvalidInput.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = Token(*b"0123456789abcdef");

    #[test]
    fn every_kind_survives_the_channel() {
        let mut channel = Vec::new();
        for kind in Kind::ALL {
            send(&mut channel, TOKEN, kind, &[kind as u8; 3]).unwrap();
        }
        let mut reader = channel.as_slice();
        for kind in Kind::ALL {
            assert_eq!(
                receive(&mut reader, TOKEN).unwrap(),
                (kind, vec![kind as u8; 3])
            );
        }
        assert_eq!(
            receive(&mut reader, TOKEN).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn noise_is_refused() {
        for noise in [[0xffu8; 8], [0; 8], [1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0]] {
            let noise = [&TOKEN.0[..], &noise].concat();
            assert_eq!(
                receive(&mut noise.as_slice(), TOKEN).unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
        }
    }

    #[test]
    fn a_frame_with_another_token_is_refused() {
        for wrong in 0..TOKEN.0.len() {
            let mut other = TOKEN;
            other.0[wrong] ^= 1;
            let mut channel = Vec::new();
            send(&mut channel, other, Kind::End, &[]).unwrap();
            assert_eq!(
                receive(&mut channel.as_slice(), TOKEN).unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
        }
    }

    #[test]
    fn a_payload_that_no_reader_accepts_is_not_sent() {
        let mut channel = Vec::new();
        assert!(send(&mut channel, TOKEN, Kind::Stdout, &vec![0; MAX_PAYLOAD + 1]).is_err());
        assert!(channel.is_empty());
    }

    #[test]
    fn a_link_has_the_name_that_names_it() {
        for link in [Link::Virtio, Link::Serial] {
            assert_eq!(Link::named(link.name()), Some(link));
        }
        assert_eq!(Link::named("virtio\n"), None);
    }
}
