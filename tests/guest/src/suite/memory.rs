// SPDX-License-Identifier: GPL-2.0
//! Mappings of the test's own, and what a program, a debugger or the kernel
//! sees at an address.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;

use super::outcome::{Checked, OrFail};
use super::sys::{self, PAGE};

/// A mapping, removed when dropped.
#[derive(Debug)]
pub struct Mapping {
    addr: usize,
    len: usize,
}

impl Mapping {
    /// Takes over `addr..addr + len`.
    pub fn adopt(addr: usize, len: usize) -> Self {
        Mapping { addr, len }
    }

    /// Private anonymous pages, readable and writable.
    pub fn anonymous(pages: usize) -> Checked<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let addr =
            sys::mmap(0, pages * PAGE, sys::RW, flags, -1, 0).or_fail("mmap anonymous memory")?;
        Ok(Mapping::adopt(addr, pages * PAGE))
    }

    /// `len` bytes that read as zeros and take no memory.
    pub fn sparse(len: usize) -> Checked<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let addr = sys::mmap(0, len, libc::PROT_READ, flags, -1, 0).or_fail("mmap zeros")?;
        Ok(Mapping::adopt(addr, len))
    }

    /// Shared anonymous pages, readable and writable.
    pub fn shared(pages: usize) -> Checked<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let addr =
            sys::mmap(0, pages * PAGE, sys::RW, flags, -1, 0).or_fail("mmap shared memory")?;
        Ok(Mapping::adopt(addr, pages * PAGE))
    }

    /// A shared mapping of `len` bytes of a file.
    pub fn of_file(fd: RawFd, len: usize, prot: i32, offset: usize) -> io::Result<Self> {
        let addr = sys::mmap(0, len, prot, libc::MAP_SHARED, fd, offset)?;
        Ok(Mapping::adopt(addr, len))
    }

    /// Two pages of which the second is unmapped: the address of the last
    /// `before` bytes of the first.
    pub fn cliff(before: usize) -> Checked<(Self, usize)> {
        let mut pages = Mapping::anonymous(2)?;
        sys::munmap(pages.addr + PAGE, PAGE).or_fail("munmap the second page")?;
        pages.len = PAGE;
        let addr = pages.addr + PAGE - before;
        Ok((pages, addr))
    }

    /// Its address.
    pub fn addr(&self) -> usize {
        self.addr
    }

    /// Its length.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Its bytes. It must be readable, and nobody changes it.
    pub fn bytes(&self) -> &[u8] {
        let start = std::ptr::with_exposed_provenance(self.addr);
        // SAFETY: the range is the mapping, which is ours; and by the contract of
        // this function.
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }

    /// Writes to every page of a part of it. It must be writable.
    pub fn take(&self, offset: usize, len: usize) {
        for page in (offset..offset + len).step_by(PAGE) {
            self.write(page, &[1]);
        }
    }

    /// Writes to it. It must be writable.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len);
        let to = std::ptr::with_exposed_provenance_mut::<u8>(self.addr + offset);
        // SAFETY: the range is in the mapping, which is ours.
        unsafe { to.copy_from(bytes.as_ptr(), bytes.len()) };
    }

    /// Copies an argument to its start. It must be writable.
    pub fn put<T: Copy>(&self, value: &T) -> usize {
        put_at(self.addr, value);
        self.addr
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // A part of it may be gone already.
        let _ = sys::munmap(self.addr, self.len);
    }
}

/// Copies `value` to `addr`, which must be writable memory of the test.
pub fn put_at<T: Copy>(addr: usize, value: &T) {
    let to = std::ptr::with_exposed_provenance_mut::<T>(addr);
    // SAFETY: by the contract of this function.
    unsafe { to.write_unaligned(*value) };
}

/// Reads by plain loads. The range must be readable.
pub fn load(addr: usize, len: usize) -> Vec<u8> {
    (addr..addr + len)
        // SAFETY: by the contract of this function. Volatile: the kernel changes it.
        .map(|byte| unsafe { std::ptr::with_exposed_provenance::<u8>(byte).read_volatile() })
        .collect()
}

/// The page at `addr` as the program sees it; `None` where a load would fault.
pub fn seen(addr: usize) -> Checked<Option<Vec<u8>>> {
    let (mut reader, writer) = sys::pipe().or_fail("pipe")?;
    match sys::write_from(writer.as_raw_fd(), addr, PAGE) {
        Ok(PAGE) => {
            let mut page = vec![0; PAGE];
            reader.read_exact(&mut page).or_fail("read a pipe")?;
            Ok(Some(page))
        }
        _ => Ok(None),
    }
}

/// What `/proc/PID/mem` says, which is what a debugger sees.
pub fn debugger_view(pid: u32, addr: usize, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    File::open(format!("/proc/{pid}/mem"))?.read_exact_at(&mut bytes, addr as u64)?;
    Ok(bytes)
}

/// The lines of `/proc/self/maps` that map `/dev/jit`.
pub fn jit_mappings() -> Checked<Vec<String>> {
    Ok(all_mappings()?
        .into_iter()
        .filter(|line| line.ends_with("/dev/jit"))
        .collect())
}

/// All lines of `/proc/self/maps` but those of the heap, which grows by itself.
pub fn all_mappings() -> Checked<Vec<String>> {
    let maps = fs::read_to_string("/proc/self/maps").or_fail("read the list of mappings")?;
    let lines = maps.lines().filter(|line| !line.ends_with("[heap]"));
    Ok(lines.map(str::to_owned).collect())
}
