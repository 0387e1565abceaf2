// SPDX-License-Identifier: MIT OR Apache-2.0

//! The two handles of a region, which can be held by different processes.

use crate::chunk::{all, jitfd_chunk};
use crate::guard::{self, Failure};
use crate::options::JITFD_ANY_PROCESS;
use crate::pointer;
use crate::rules::align;
use crate::stats::jitfd_stats;
use rust::{AppendHandle, MapHandle, Mapping};
use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The right to map a region and to execute it, not to publish. May be used by
/// several threads at once.
pub struct jitfd_mapper {
    handle: MapHandle,
}

/// The right to publish in a region, not to read or execute it. Branches between
/// chunks are not checked here: only a region knows what was published before.
/// May be used by several threads at once.
pub struct jitfd_appender {
    handle: AppendHandle,
}

/// Code of a region in this process's address space, readable and executable.
pub struct jitfd_mapping {
    mapping: Mapping,
}

/// Any offset will do: `SIZE_MAX` in the header, which the generator can't say.
const JITFD_ANY_OFFSET: usize = usize::MAX;

impl jitfd_mapper {
    pub(crate) fn raw(handle: MapHandle) -> *mut Self {
        Box::into_raw(Box::new(Self { handle }))
    }
}

impl jitfd_appender {
    pub(crate) fn raw(handle: AppendHandle) -> *mut Self {
        Box::into_raw(Box::new(Self { handle }))
    }
}

impl jitfd_mapping {
    pub(crate) fn raw(mapping: Mapping) -> *mut Self {
        Box::into_raw(Box::new(Self { mapping }))
    }
}

/// The descriptor that C gives away, if it is open.
fn owned(fd: c_int) -> Result<OwnedFd, Failure> {
    // SAFETY: this call touches no memory.
    if fd < 0 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(Failure::Refused(libc::EBADF, "the descriptor is closed"));
    }
    // SAFETY: it is open, and the caller gives it away.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes over a descriptor of jitfd_map_fd that was received from another
/// process. If it is a descriptor of something else, the first call on the
/// handle fails. Give the handle back with jitfd_mapper_free, which closes the
/// descriptor.
///
/// Returns null with errno EBADF if it is closed.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_mapper_adopt(fd: c_int) -> *mut jitfd_mapper {
    guard::object(|| {
        Ok(jitfd_mapper {
            handle: MapHandle::from(owned(fd)?),
        })
    })
}

/// Gives a handle back and closes its descriptor. Mappings stay. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_mapper_free(mapper: *mut jitfd_mapper) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(mapper) }));
}

/// The descriptor of a handle, to be sent to another process. It stays the
/// handle's.
///
/// Returns -1 with errno EOPNOTSUPP if it is a fallback's, which has no
/// descriptors; EINVAL if mapper is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_mapper_fd(mapper: *const jitfd_mapper) -> c_int {
    // SAFETY: the header says what this pointer must be.
    guard::number(|| unsafe { Ok(pointer::object(mapper)?.handle.fd()?.as_raw_fd()) })
}

/// Maps the first len bytes of the region, readable and executable.
///
/// Returns null with errno ENODATA, ENODEV or EPERM if the descriptor is of no
/// region; EINVAL if len is 0 or exceeds the region or mapper is null; EACCES if
/// a policy forbids it; EPERM if /dev is mounted noexec; ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_mapper_map(
    mapper: *const jitfd_mapper,
    len: usize,
) -> *mut jitfd_mapping {
    // SAFETY: the header says what this pointer must be.
    guard::object(|| unsafe {
        let mapping = pointer::object(mapper)?.handle.map(len)?;
        Ok(jitfd_mapping { mapping })
    })
}

/// Makes a region that is a copy of this one: its capacity, code, cursor and
/// unfilled reservations; not sealed, with counters of 0. Memory is shared until
/// one of the two publishes. flags is JITFD_ANY_PROCESS or 0. Code that refers to
/// itself by address is right only where the source is mapped.
///
/// Returns 0, or -1 with errno as jitfd_create; ENODATA or ENOTTY if the
/// descriptor is of no region; EOPNOTSUPP if it is a fallback's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_mapper_clone(
    mapper: *const jitfd_mapper,
    flags: u32,
    new_mapper: *mut *mut jitfd_mapper,
    new_appender: *mut *mut jitfd_appender,
) -> c_int {
    guard::status(|| {
        pointer::wanted(new_mapper)?;
        pointer::wanted(new_appender)?;
        if flags & !JITFD_ANY_PROCESS != 0 {
            return Err(Failure::Refused(libc::EINVAL, "a flag is not known"));
        }
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let source = &pointer::object(mapper)?.handle;
            let (map, append) = source.clone_region(flags & JITFD_ANY_PROCESS != 0)?;
            pointer::store(new_mapper, jitfd_mapper::raw(map));
            pointer::store(new_appender, jitfd_appender::raw(append));
        }
        Ok(())
    })
}

/// The address of the first byte of a mapping, and in len, which may be null, its
/// length in bytes.
///
/// Returns null with errno EINVAL if mapping is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_mapping_base(
    mapping: *const jitfd_mapping,
    len: *mut usize,
) -> *mut c_void {
    // SAFETY: the header says what these pointers must be.
    guard::address(|| unsafe {
        let mapping = &pointer::object(mapping)?.mapping;
        pointer::store(len, mapping.len());
        Ok(std::ptr::with_exposed_provenance_mut(mapping.address()))
    })
}

/// Unmaps a mapping. No thread executes its code any more. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_mapping_free(mapping: *mut jitfd_mapping) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(mapping) }));
}

/// Stores the counters of the region.
///
/// Returns 0, or -1 with errno ENODATA or ENOTTY if the descriptor is of no
/// region; EINVAL for a null pointer or a bad size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_mapper_stats(
    mapper: *const jitfd_mapper,
    stats: *mut jitfd_stats,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let handle = &pointer::object(mapper)?.handle;
        jitfd_stats::store(stats, || handle.stats())
    })
}

/// Takes over a descriptor of jitfd_append_fd that was received from another
/// process. If it is a descriptor of something else, the first call on the
/// handle fails. Give the handle back with jitfd_appender_free, which closes
/// the descriptor.
///
/// Returns null with errno EBADF if it is closed.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_appender_adopt(fd: c_int) -> *mut jitfd_appender {
    guard::object(|| {
        Ok(jitfd_appender {
            handle: AppendHandle::from(owned(fd)?),
        })
    })
}

/// Gives a handle back and closes its descriptor. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_appender_free(appender: *mut jitfd_appender) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(appender) }));
}

/// The descriptor of a handle, to be sent to another process. It stays the
/// handle's.
///
/// Returns -1 with errno EOPNOTSUPP if it is a fallback's, which has no
/// descriptors; EINVAL if appender is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_appender_fd(appender: *const jitfd_appender) -> c_int {
    // SAFETY: the header says what this pointer must be.
    guard::number(|| unsafe { Ok(pointer::object(appender)?.handle.fd()?.as_raw_fd()) })
}

/// Publishes up to 1024 chunks by one call, in order, all or none. The first
/// comes to lie at expect, or nothing is published; JITFD_ANY_OFFSET takes the
/// next place. offsets has room for count of them, or is null.
///
/// Returns 0, or -1 with errno ESTALE if the first chunk would not get the
/// offset expect; ENOSPC, EROFS, EPERM, EDQUOT or ENOMEM as jitfd_append; ENOTTY
/// if the descriptor is no append descriptor; EINVAL for a null pointer, too
/// many chunks, or an expect that is no multiple of 64 for a first chunk with
/// JITFD_WITHIN_LINES.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_appender_append(
    appender: *mut jitfd_appender,
    chunks: *const *const jitfd_chunk,
    count: usize,
    expect: usize,
    offsets: *mut usize,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let (handle, chunks) = (&pointer::object(appender)?.handle, all(chunks, count)?);
        let expect = (expect != JITFD_ANY_OFFSET).then_some(expect);
        pointer::store_all(offsets, handle.append(&chunks, expect)?);
        Ok(())
    })
}

/// Sets len bytes aside, at a multiple of align_bytes (a power of two up to
/// 4096), and stores their offset in the region.
///
/// Returns 0, or -1 with errno as jitfd_reserve, and ENOTTY if the descriptor is
/// no append descriptor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_appender_reserve(
    appender: *mut jitfd_appender,
    len: usize,
    align_bytes: usize,
    offset: *mut usize,
) -> c_int {
    guard::status(|| {
        pointer::wanted(offset)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let handle = &pointer::object(appender)?.handle;
            pointer::store(offset, handle.reserve(len, align(align_bytes)?)?);
        }
        Ok(())
    })
}

/// Publishes a chunk at an offset of the region, in a range that was reserved;
/// each byte of it once.
///
/// Returns 0, or -1 with errno EEXIST if a byte is not reserved or was filled
/// before; EROFS, EPERM, EDQUOT or ENOMEM as jitfd_append; ENOTTY if the
/// descriptor is no append descriptor; EINVAL for a null pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_appender_fill(
    appender: *mut jitfd_appender,
    offset: usize,
    chunk: *const jitfd_chunk,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let (handle, chunk) = (&pointer::object(appender)?.handle, pointer::object(chunk)?);
        Ok(handle.fill(offset, &chunk.code)?)
    })
}

/// Ends all publication into the region, by anybody, for good. What is mapped
/// stays.
///
/// Returns 0, or -1 with errno EPERM in a process that may not publish; ENOTTY if
/// the descriptor is no append descriptor; EINVAL if appender is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_appender_seal(appender: *mut jitfd_appender) -> c_int {
    // SAFETY: the header says what this pointer must be.
    guard::status(|| unsafe { Ok(pointer::object(appender)?.handle.seal()?) })
}

/// Stores the counters of the region.
///
/// Returns 0, or -1 with errno ENOTTY if the descriptor is no append descriptor;
/// EINVAL for a null pointer or a bad size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_appender_stats(
    appender: *const jitfd_appender,
    stats: *mut jitfd_stats,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let handle = &pointer::object(appender)?.handle;
        jitfd_stats::store(stats, || handle.stats())
    })
}
