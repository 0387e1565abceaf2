// SPDX-License-Identifier: MIT OR Apache-2.0

//! Regions: code that grows.

use crate::chunk::{all, jitfd_chunk};
use crate::guard::{self, Failure};
use crate::handle::{jitfd_appender, jitfd_mapper, jitfd_mapping};
use crate::options::{Choice, jitfd_options, number};
use crate::pointer;
use crate::rules::align;
use crate::stats::jitfd_stats;
use rust::{Published, Region, Reservation};
use std::ffi::{c_int, c_void};
use std::os::fd::AsRawFd;
use std::ptr::with_exposed_provenance_mut;

/// A range of code of fixed capacity, to which chunks are appended; mapped
/// readable and executable. On a page with code, what is not published is 0xCC; an
/// access to a page without any ends in SIGBUS, or SIGSEGV with
/// JITFD_BACKEND_PROTECT_FLIPS (with JITFD_BACKEND_DUAL_MAPPING a reserved page is
/// 0xCC). May be used by several threads at once.
///
/// A forked child executes the code, but may publish only with
/// JITFD_ANY_PROCESS, or in a copy of its own: jitfd_adopt. If the parent has
/// several threads, call that before anything else in the child.
pub struct jitfd_region {
    region: Region,
}

/// Where code lies, or will lie. This struct does not grow.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jitfd_place {
    /// In bytes from the start of the region.
    pub offset: usize,
    /// The number of bytes.
    pub len: usize,
    /// The address in this process.
    pub address: *mut c_void,
}

impl jitfd_place {
    fn new(offset: usize, len: usize, address: usize) -> Self {
        let address = with_exposed_provenance_mut(address);
        Self {
            offset,
            len,
            address,
        }
    }
}

impl From<Published> for jitfd_place {
    fn from(code: Published) -> Self {
        Self::new(code.offset, code.len, code.address)
    }
}

/// Creates a region of capacity bytes, rounded up to whole pages and at most
/// 1 GiB, and maps it. Memory is used only for what is published. options may be
/// null. Stores the region; give it back with jitfd_destroy or jitfd_split.
///
/// Returns 0, or -1 with errno EINVAL for a bad capacity, flag or size or a null
/// region; E2BIG if options asks for what this version does not have; ENOENT if
/// the module is not loaded; EACCES if a file mode or policy forbids it; EPERM
/// if /dev is mounted noexec; ENOMEM, also if there is no room close enough;
/// EDQUOT at the user's bound; EMFILE or ENFILE; EOPNOTSUPP if a fallback can't
/// do what the flags ask for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_create(
    capacity: usize,
    options: *const jitfd_options,
    region: *mut *mut jitfd_region,
) -> c_int {
    guard::status(|| {
        pointer::wanted(region)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let made = Choice::read(options)?.region().create(capacity)?;
            pointer::store(
                region,
                Box::into_raw(Box::new(jitfd_region { region: made })),
            );
        }
        Ok(())
    })
}

/// Unmaps a region and closes its descriptors. No thread executes its code or
/// uses it any more. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_destroy(region: *mut jitfd_region) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(region) }));
}

/// The address of the first byte of a region, and in capacity, which may be
/// null, its length in bytes.
///
/// Returns null with errno EINVAL if region is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_base(
    region: *const jitfd_region,
    capacity: *mut usize,
) -> *mut c_void {
    // SAFETY: the header says what these pointers must be.
    guard::address(|| unsafe {
        let region = &pointer::object(region)?.region;
        pointer::store(capacity, region.capacity());
        Ok(region.base().cast_mut().cast())
    })
}

/// What makes the region's code executable: one of JITFD_BACKEND_.
///
/// Returns -1 with errno EINVAL if region is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_backend(region: *const jitfd_region) -> c_int {
    // SAFETY: the header says what this pointer must be.
    guard::number(|| unsafe { Ok(number(pointer::object(region)?.region.backend())) })
}

/// Publishes a chunk behind what is there, at its alignment. When the call
/// returns it is executable in every thread and process that maps the region.
/// place may be null.
///
/// Returns 0, or -1 with errno EILSEQ if a branch between chunks does not go to
/// an instruction; ENOSPC if it does not fit; EROFS if the region is sealed;
/// EPERM in a process that may not publish; ESTALE if other holders of the
/// append descriptor were always faster; EDQUOT at the user's bound; ENOMEM;
/// EINVAL for a null pointer. Nothing is published then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_append(
    region: *mut jitfd_region,
    chunk: *const jitfd_chunk,
    place: *mut jitfd_place,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let (region, chunk) = (pointer::object(region)?, pointer::object(chunk)?);
        let published = region.region.append(&chunk.code)?;
        pointer::store(place, published.into());
        Ok(())
    })
}

/// Publishes up to 1024 chunks by one call, in order, all or none. places has
/// room for count of them, or is null. No chunk at all is no error.
///
/// Returns 0, or -1 with errno as jitfd_append, and EINVAL for more than 1024.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_append_batch(
    region: *mut jitfd_region,
    chunks: *const *const jitfd_chunk,
    count: usize,
    places: *mut jitfd_place,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let (region, chunks) = (pointer::object(region)?, all(chunks, count)?);
        let published = region.region.append_batch(&chunks)?;
        pointer::store_all(places, published.into_iter().map(jitfd_place::from));
        Ok(())
    })
}

/// The place that the next chunk with this alignment (a power of two up to 4096)
/// gets, unless another thread publishes first; jitfd_append_at finds that out.
/// The length of the place is 0.
///
/// Returns 0, or -1 with errno ENOSPC if no byte is left; EINVAL for a null
/// pointer or a bad align.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_next(
    region: *mut jitfd_region,
    align_bytes: usize,
    place: *mut jitfd_place,
) -> c_int {
    guard::status(|| {
        pointer::wanted(place)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let region = &pointer::object(region)?.region;
            let next = region.next_address(align(align_bytes)?)?;
            pointer::store(place, jitfd_place::new(next.offset, 0, next.address));
        }
        Ok(())
    })
}

/// Publishes a chunk that was made for an offset which jitfd_next has stored, for
/// the chunk's alignment or a greater one. Bytes that are skipped to get there
/// are 0xCC. place may be null.
///
/// Returns 0, or -1 with errno ESTALE if somebody else has published there: ask
/// for the next place and relocate the code; EINVAL if offset is no multiple of the
/// chunk's alignment (64 with JITFD_WITHIN_LINES); else as jitfd_append.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_append_at(
    region: *mut jitfd_region,
    offset: usize,
    chunk: *const jitfd_chunk,
    place: *mut jitfd_place,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let (region, chunk) = (pointer::object(region)?, pointer::object(chunk)?);
        let published = region.region.append_at(offset, &chunk.code)?;
        pointer::store(place, published.into());
        Ok(())
    })
}

/// Sets len bytes aside, at a multiple of align_bytes (a power of two up to
/// 4096). Their address is known before the code for them is made. Executing
/// them before they are filled raises a signal: SIGTRAP, or on a page without
/// any code SIGBUS (SIGTRAP or SIGSEGV with a fallback).
///
/// Returns 0, or -1 with errno ENOSPC, EROFS, EPERM or ENOMEM as jitfd_append;
/// EINVAL for a null pointer, a len of 0 or a bad align.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_reserve(
    region: *mut jitfd_region,
    len: usize,
    align_bytes: usize,
    place: *mut jitfd_place,
) -> c_int {
    guard::status(|| {
        pointer::wanted(place)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let region = &pointer::object(region)?.region;
            let range = region.reserve(len, align(align_bytes)?)?;
            pointer::store(
                place,
                jitfd_place::new(range.offset, range.len, range.address),
            );
        }
        Ok(())
    })
}

/// Publishes a chunk skip bytes behind the start of a reserved range, which is as
/// jitfd_reserve has stored it. Each byte can be filled once. place, where the
/// chunk is put, may be null. The range has the alignment that it was reserved
/// with; the chunk's is checked only with JITFD_WITHIN_LINES.
///
/// Returns 0, or -1 with errno EINVAL if the chunk is longer than the rest of
/// the range, the range is of another region, or a pointer is null; EEXIST if a
/// byte is not reserved or was filled before; EILSEQ, EROFS, EPERM, EDQUOT or
/// ENOMEM as jitfd_append. Nothing is published then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_fill(
    region: *mut jitfd_region,
    reserved: *const jitfd_place,
    skip: usize,
    chunk: *const jitfd_chunk,
    place: *mut jitfd_place,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let (region, chunk) = (pointer::object(region)?, pointer::object(chunk)?);
        let reserved = pointer::object(reserved)?;
        let range = Reservation::from_parts(reserved.offset, reserved.address.addr(), reserved.len);
        let published = region.region.fill_at(range, skip, &chunk.code)?;
        pointer::store(place, published.into());
        Ok(())
    })
}

/// Ends all publication into the region, by anybody, for good. What is
/// published stays. Sealing twice is no error.
///
/// Returns 0, or -1 with errno EPERM in a process that may not publish; EINVAL
/// if region is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_seal(region: *mut jitfd_region) -> c_int {
    // SAFETY: the header says what this pointer must be.
    guard::status(|| unsafe { Ok(pointer::object(region)?.region.seal()?) })
}

/// Stores the counters of a region.
///
/// Returns 0, or -1 with errno EINVAL for a null pointer or a bad size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_get_stats(
    region: *const jitfd_region,
    stats: *mut jitfd_stats,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let region = &pointer::object(region)?.region;
        jitfd_stats::store(stats, || region.stats())
    })
}

/// The descriptor by which the region can be mapped, in this process or in one
/// that it is sent to; it gives no right to publish. It stays the region's:
/// duplicate it, but do not close it.
///
/// Returns -1 with errno EOPNOTSUPP if the region is a fallback's, which has no
/// descriptors; EINVAL if region is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_map_fd(region: *const jitfd_region) -> c_int {
    // SAFETY: the header says what this pointer must be.
    guard::number(|| unsafe {
        let handle = pointer::object(region)?.region.map_handle();
        Ok(handle.fd()?.as_raw_fd())
    })
}

/// The descriptor by which code is published; it can't be mapped. Another
/// process needs JITFD_ANY_PROCESS to use it. It stays the region's.
///
/// Returns -1 with errno EOPNOTSUPP if the region is a fallback's, which has no
/// descriptors; EINVAL if region is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_append_fd(region: *const jitfd_region) -> c_int {
    // SAFETY: the header says what this pointer must be.
    guard::number(|| unsafe {
        let handle = pointer::object(region)?.region.append_handle();
        Ok(handle.fd()?.as_raw_fd())
    })
}

/// After fork(), in the child: makes the region the child's own, a copy of the
/// parent's as it is now (with a fallback: as it was at the fork()), at the same
/// addresses. Both go on publishing, each into its own. Without it the child
/// executes what its parent has published and publishes, and is refused to publish
/// itself (EPERM). The copy is not sealed, its counters start at 0, and only the
/// child may publish in it. In the process that made the region the call does the
/// same. jitfd_map_fd and jitfd_append_fd are those of the copy from now on; further
/// mappings stay the parent's. Branches to what the parent has published since the
/// fork() are not checked.
///
/// Returns 0, or -1 with errno EINVAL if another thread was publishing in the
/// region at the fork(), or region is null; else as jitfd_create. The region is
/// as it was then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_adopt(region: *mut jitfd_region) -> c_int {
    // SAFETY: the header says what this pointer must be.
    guard::status(|| unsafe { Ok(pointer::object(region)?.region.adopt()?) })
}

/// Takes a region apart, to give its parts to different owners: the handle that
/// maps, the handle that publishes, and the mapping. The region is given back.
///
/// Returns 0, or -1 with errno EINVAL for a null pointer; the region is as it
/// was then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_split(
    region: *mut jitfd_region,
    mapper: *mut *mut jitfd_mapper,
    appender: *mut *mut jitfd_appender,
    mapping: *mut *mut jitfd_mapping,
) -> c_int {
    guard::status(|| {
        pointer::wanted(mapper)?;
        pointer::wanted(appender)?;
        pointer::wanted(mapping)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let region = pointer::take(region).ok_or(Failure::NULL)?;
            let (map, append, mapped) = region.region.split();
            pointer::store(mapper, jitfd_mapper::raw(map));
            pointer::store(appender, jitfd_appender::raw(append));
            pointer::store(mapping, jitfd_mapping::raw(mapped));
        }
        Ok(())
    })
}
