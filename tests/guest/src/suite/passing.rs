// SPDX-License-Identifier: GPL-2.0
//! Passes descriptors from one process to another over a unix socket.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use super::sys;

/// One end of a socket that carries descriptors.
pub struct Socket(UnixStream);

/// Room for a control message with one descriptor, aligned for its header.
#[repr(align(8))]
struct Control([u8; 64]);

/// The bytes of a control message with one descriptor.
const LEN: u32 = size_of::<RawFd>() as u32;

impl Socket {
    /// Both ends.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = UnixStream::pair()?;
        Ok((Socket(one), Socket(other)))
    }

    /// Sends one descriptor.
    pub fn send(&self, fd: RawFd) -> io::Result<()> {
        let mut byte = [0u8];
        let mut control = Control([0; 64]);
        let mut vector = vector(&mut byte);
        let mut message = message(&mut vector, &mut control);
        // SAFETY: the control buffer has room for a header and a descriptor,
        // which are written before the kernel reads them.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(LEN) as usize;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(LEN) as usize;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
            sys::check(libc::sendmsg(self.0.as_raw_fd(), &message, 0) as i64)?;
        }
        Ok(())
    }

    /// Receives one descriptor.
    pub fn receive(&self) -> io::Result<OwnedFd> {
        let mut byte = [0u8];
        let mut control = Control([0; 64]);
        let mut vector = vector(&mut byte);
        let mut message = message(&mut vector, &mut control);
        // SAFETY: the control buffer has room for what is asked for; the header
        // is looked at only if there is one.
        unsafe {
            let flags = libc::MSG_CMSG_CLOEXEC;
            sys::check(libc::recvmsg(self.0.as_raw_fd(), &mut message, flags) as i64)?;
            let header = libc::CMSG_FIRSTHDR(&message);
            if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let fd = libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned();
            Ok(OwnedFd::from_raw_fd(fd))
        }
    }
}

fn vector(byte: &mut [u8; 1]) -> libc::iovec {
    libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    }
}

fn message(vector: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: all zeros is an empty message.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = vector;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    message
}
