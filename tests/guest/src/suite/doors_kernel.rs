// SPDX-License-Identifier: GPL-2.0
//! Rule R8, the doors of the kernel: system calls that write to, or pin, a
//! program's memory can't be pointed at code.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;

use super::asm;
use super::harness::{Test, tests};
use super::memory::{Mapping, load, put_at};
use super::outcome::{Checked, OrFail, Outcome, equal, holds, refused, skipped};
use super::region::Region;
use super::sys::{self, PAGE};

pub fn tests() -> Vec<Test> {
    tests![
        read_into_code,
        read_past_the_page_cache_into_code,
        write_out_of_code,
        receive_into_code,
        random_bytes_into_code,
        vmsplice_out_of_code,
        io_uring_buffers,
        io_uring_read_into_code,
        userfaultfd_registration,
        userfaultfd_copy_into_code,
        thread_id_into_code,
        memory_limit_query_into_code,
    ]
}

/// Fails unless `door` leaves the region as it is. It gets the address of a
/// page with code, and of one without.
fn shut(door: impl Fn(usize) -> Outcome) -> Outcome {
    let region = Region::new(2)?;
    region.append(&asm::long_answer(1, 100))?;
    region.answers(0, 1)?;
    region.unchanged_by(|| {
        door(region.at(0))?;
        door(region.at(PAGE as u64))
    })?;
    region.answers(0, 1)
}

fn read_into_code() -> Outcome {
    shut(|addr| {
        let (reader, mut writer) = sys::pipe().or_fail("pipe")?;
        writer.write_all(&[0xf4; 64]).or_fail("write")?;
        let result = sys::read_to(reader.as_raw_fd(), addr, 64);
        refused("read from a pipe", result, libc::EFAULT)?;
        let zero = File::open("/dev/zero").or_fail("open /dev/zero")?;
        let result = sys::read_to(zero.as_raw_fd(), addr, 64);
        refused("read from /dev/zero", result, libc::EFAULT)
    })
}

/// A file opened with O_DIRECT: the kernel pins the buffer where it can.
fn direct_file() -> Checked<File> {
    let path = "/tmp/direct";
    fs::write(path, [0xf4; PAGE]).or_fail("write a file")?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .or_fail("open with O_DIRECT")
}

fn read_past_the_page_cache_into_code() -> Outcome {
    let file = direct_file()?;
    shut(|addr| {
        let arguments = [file.as_raw_fd() as usize, addr, PAGE, 0, 0, 0];
        let result = sys::syscall(libc::SYS_pread64, arguments);
        refused("read with O_DIRECT", result, libc::EFAULT)
    })
}

/// The other way the kernel only loads, which published code allows.
fn write_out_of_code() -> Outcome {
    let region = Region::new(2)?;
    region.append(&asm::long_answer(1, 100))?;
    region.unchanged_by(|| {
        let file = sys::memfd(PAGE).or_fail("memfd")?;
        let fd = file.as_raw_fd();
        let count = sys::write_from(fd, region.at(0), PAGE).or_fail("write")?;
        equal("bytes written", count, PAGE)?;
        let result = sys::write_from(fd, region.at(PAGE as u64), PAGE);
        refused("write of an unpublished page", result, libc::EFAULT)
    })
}

fn receive_into_code() -> Outcome {
    shut(|addr| {
        let (one, mut other) = UnixStream::pair().or_fail("socketpair")?;
        other.write_all(&[0xf4; 64]).or_fail("write")?;
        let arguments = [one.as_raw_fd() as usize, addr, 64, 0, 0, 0];
        let result = sys::syscall(libc::SYS_recvfrom, arguments);
        refused("recv", result, libc::EFAULT)
    })
}

fn random_bytes_into_code() -> Outcome {
    shut(|addr| {
        let result = sys::syscall(libc::SYS_getrandom, [addr, 64, 0, 0, 0, 0]);
        refused("getrandom", result, libc::EFAULT)
    })
}

fn vmsplice_out_of_code() -> Outcome {
    shut(|addr| {
        let (_reader, writer) = sys::pipe().or_fail("pipe")?;
        let vector = [addr, PAGE];
        let fd = writer.as_raw_fd() as usize;
        let arguments = [fd, vector.as_ptr().expose_provenance(), 1, 0, 0, 0];
        let result = sys::syscall(libc::SYS_vmsplice, arguments);
        refused("vmsplice", result, libc::EFAULT)
    })
}

/// A new io_uring with room for a few requests, and its parameters.
fn io_uring() -> Checked<(OwnedFd, [u32; 30])> {
    let mut parameters = [0u32; 30];
    let address = parameters.as_mut_ptr().expose_provenance();
    match sys::syscall(libc::SYS_io_uring_setup, [4, address, 0, 0, 0, 0]) {
        // SAFETY: the kernel has just given this descriptor to us.
        Ok(fd) => Ok((unsafe { OwnedFd::from_raw_fd(fd as RawFd) }, parameters)),
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            skipped("this kernel has no io_uring")
        }
        Err(error) => Err(error).or_fail("io_uring_setup"),
    }
}

const IORING_REGISTER_BUFFERS: usize = 0;

fn io_uring_buffers() -> Outcome {
    let (ring, _) = io_uring()?;
    shut(|addr| {
        let vector = [addr, PAGE];
        let arguments = [
            ring.as_raw_fd() as usize,
            IORING_REGISTER_BUFFERS,
            vector.as_ptr().expose_provenance(),
            1,
            0,
            0,
        ];
        let result = sys::syscall(libc::SYS_io_uring_register, arguments);
        refused("register buffers", result, libc::EFAULT)
    })
}

/// Where the parts of the two rings are, by io_uring_params.
struct Offsets {
    queue_tail: usize,
    queue_array: usize,
    done_entries: usize,
}

impl Offsets {
    fn new(parameters: &[u32; 30]) -> Self {
        // struct io_uring_params: ten words, then io_sqring_offsets of ten
        // words (tail second, array seventh), then io_cqring_offsets (cqes
        // sixth).
        Offsets {
            queue_tail: parameters[11] as usize,
            queue_array: parameters[16] as usize,
            done_entries: parameters[25] as usize,
        }
    }
}

const IORING_OFF_SQES: usize = 0x1000_0000;
const IORING_OP_READ: u64 = 22;
const IORING_ENTER_GETEVENTS: usize = 1;

fn io_uring_read_into_code() -> Outcome {
    shut(|addr| {
        let (ring, parameters) = io_uring()?;
        let offsets = Offsets::new(&parameters);
        let fd = ring.as_raw_fd();
        let rings = Mapping::of_file(fd, 2 * PAGE, sys::RW, 0).or_fail("mmap the rings")?;
        let entries = Mapping::of_file(fd, PAGE, sys::RW, IORING_OFF_SQES).or_fail("mmap")?;
        let zero = File::open("/dev/zero").or_fail("open /dev/zero")?;
        // struct io_uring_sqe: opcode and fd, offset, address, length.
        let source = (zero.as_raw_fd() as u64) << 32 | IORING_OP_READ;
        entries.put(&[source, 0, addr as u64, 64]);
        put_at(rings.addr() + offsets.queue_array, &0u32);
        put_at(rings.addr() + offsets.queue_tail, &1u32);
        let arguments = [fd as usize, 1, 1, IORING_ENTER_GETEVENTS, 0, 0];
        sys::syscall(libc::SYS_io_uring_enter, arguments).or_fail("io_uring_enter")?;
        let result = load(rings.addr() + offsets.done_entries + 8, 4);
        let result = i32::from_ne_bytes([result[0], result[1], result[2], result[3]]);
        equal("the result", result, -libc::EFAULT)
    })
}

/// A userfaultfd with these features.
fn userfaultfd(features: u64) -> Checked<OwnedFd> {
    let fd = match sys::syscall(libc::SYS_userfaultfd, [0; 6]) {
        Ok(fd) => fd,
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            return skipped("this kernel has no userfaultfd");
        }
        Err(error) => return Err(error).or_fail("userfaultfd"),
    };
    // SAFETY: the kernel has just given this descriptor to us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    let mut api = [0xaa_u64, features, 0];
    sys::ioctl_inout(fd.as_raw_fd(), UFFDIO_API, &mut api).or_fail("UFFDIO_API")?;
    Ok(fd)
}

const UFFDIO_API: u32 = 0xc018_aa3f;
const UFFDIO_REGISTER: u32 = 0xc020_aa00;
const UFFDIO_COPY: u32 = 0xc028_aa03;
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;

fn register(fd: &OwnedFd, addr: usize, mode: u64) -> io::Result<i64> {
    let mut argument = [addr as u64, PAGE as u64, mode, 0];
    sys::ioctl_inout(fd.as_raw_fd(), UFFDIO_REGISTER, &mut argument)
}

/// Missing pages, write protection, minor faults, access tracking; and write
/// protection without messages, which ordinary files of any kind allow.
fn userfaultfd_registration() -> Outcome {
    for features in [0, UFFD_FEATURE_WP_ASYNC] {
        let fd = userfaultfd(features)?;
        shut(|addr| {
            for mode in 1..16 {
                let what = format!("UFFDIO_REGISTER, mode {mode}");
                let result = register(&fd, addr, mode);
                refused(&what, result, libc::EINVAL)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn userfaultfd_copy_into_code() -> Outcome {
    let fd = userfaultfd(0)?;
    shut(|addr| {
        let source = Mapping::anonymous(1)?;
        source.write(0, &[0xf4; PAGE]);
        let mut argument = [addr as u64, source.addr() as u64, PAGE as u64, 0, 0];
        let result = sys::ioctl_inout(fd.as_raw_fd(), UFFDIO_COPY, &mut argument);
        holds(result.is_err(), "UFFDIO_COPY")
    })
}

/// The kernel stores the id of a new thread where it is told.
fn thread_id_into_code() -> Outcome {
    shut(|addr| {
        let flags = libc::CLONE_CHILD_SETTID | libc::CLONE_PARENT_SETTID | libc::SIGCHLD;
        let arguments = [flags as usize, 0, addr, addr, 0, 0];
        match sys::syscall(libc::SYS_clone, arguments) {
            Ok(0) => sys::exit(0),
            Ok(pid) => {
                sys::wait(pid as libc::pid_t).or_fail("wait")?;
                Ok(())
            }
            // Also right.
            Err(_) => Ok(()),
        }
    })
}

fn memory_limit_query_into_code() -> Outcome {
    shut(|addr| {
        let arguments = [0, libc::RLIMIT_AS as usize, 0, addr, 0, 0];
        let result = sys::syscall(libc::SYS_prlimit64, arguments);
        refused("prlimit64", result, libc::EFAULT)
    })
}
