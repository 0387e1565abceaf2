// SPDX-License-Identifier: MIT OR Apache-2.0

//! Regions: code that grows. One type of C is all that a process can have of one: the
//! whole, or any of its parts.

use crate::backend::{jit, number};
use crate::chunk::{all, jitfd_chunk};
use crate::guard::{self, Failure, errno, set_errno};
use crate::pointer;
use crate::rules::align;
use crate::stats::jitfd_stats;
use crate::versioned::{self, Versioned};
use rust::internal::{fill_at, publish_all_at, slot};
use rust::{
    Align, AppendHandle, Backend, Chunk, Error, MapHandle, Mapping, Published, Region,
    RegionOptions, Stats, Window,
};
use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::with_exposed_provenance_mut;

/// A range of code of fixed capacity, to which chunks are appended; mapped
/// readable and executable. On a page with code, what is not published is 0xCC; an
/// access to a page without any ends in SIGBUS, or SIGSEGV with
/// JITFD_BACKEND_PROTECT_FLIPS (with JITFD_BACKEND_DUAL_MAPPING a reserved page is
/// 0xCC). May be used by several threads at once.
///
/// What jitfd_region_create makes is a whole region. jitfd_region_split,
/// jitfd_region_open, jitfd_region_map and jitfd_region_clone make objects that are
/// parts of one: the code as it is mapped, the right to map it, the right to publish in
/// it. A call that needs a part which an object does not have fails with EBADF.
///
/// A forked child executes the code, but may publish only with
/// JITFD_REGION_ANY_PROCESS, or in a copy of its own: jitfd_region_adopt. If the parent
/// has several threads, call that before anything else in the child.
pub struct jitfd_region {
    held: Held,
}

enum Held {
    Whole(Region),
    Parts(Parts),
}

struct Parts {
    map: Option<MapHandle>,
    append: Option<AppendHandle>,
    mapping: Option<Mapping>,
    backend: Backend,
}

/// Every process that holds the append descriptor may publish, not only the one
/// that created the region.
pub const JITFD_REGION_ANY_PROCESS: u32 = 0x1;
/// Keep no map of where instructions start, and check no branches between
/// chunks. Publications need not wait for each other then.
pub const JITFD_REGION_NO_BOUNDARY_MAP: u32 = 0x2;
/// Map the region as anonymous memory, so that perf looks up its functions in
/// /tmp/perf-PID.map. EOPNOTSUPP with mprotect flips.
pub const JITFD_REGION_PERF_MAP: u32 = 0x4;

/// All of them.
pub(crate) const FLAGS: u32 =
    JITFD_REGION_ANY_PROCESS | JITFD_REGION_NO_BOUNDARY_MAP | JITFD_REGION_PERF_MAP;

/// How a region is made. All zero but for the size: by what the process allows, at any
/// address, only this process publishes, branches between chunks are checked.
#[repr(C)]
pub struct jitfd_region_options {
    /// sizeof(struct jitfd_region_options).
    pub size: usize,
    /// JITFD_REGION_ANY_PROCESS, JITFD_REGION_NO_BOUNDARY_MAP, JITFD_REGION_PERF_MAP.
    pub flags: u32,
    /// One of JITFD_FALLBACK_; 0 is as the process allows.
    pub fallback: u32,
    /// Unless null, the region is placed where 32-bit displacements reach all
    /// addresses from this one to near_last.
    pub near_first: *const c_void,
    /// Null if it is the same as near_first.
    pub near_last: *const c_void,
}

// SAFETY: `repr(C)`, a word, two half words, two words; zero is a value of all.
unsafe impl Versioned for jitfd_region_options {
    const FIRST: usize = 32;
}

/// What is asked for by flags, of one region or of all of a space.
pub(crate) fn region_options(flags: u32) -> RegionOptions {
    RegionOptions {
        any_process: flags & JITFD_REGION_ANY_PROCESS != 0,
        boundary_map: flags & JITFD_REGION_NO_BOUNDARY_MAP == 0,
        perf_map: flags & JITFD_REGION_PERF_MAP != 0,
        ..RegionOptions::default()
    }
}

/// What reaches all addresses from `first` to `last`; 0 is "not set".
pub(crate) fn window(first: usize, last: usize) -> Result<Option<Window>, Failure> {
    match (first, last) {
        (0, 0) => Ok(None),
        (first, 0) => Ok(Some(Window::reaching(first))),
        (first, last) if first != 0 && first <= last => Ok(Some(Window::reaching_all(first, last))),
        _ => Err(Failure::Refused(
            libc::EINVAL,
            "near_last is not behind near_first",
        )),
    }
}

/// Where code lies, or will lie. This struct does not grow.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jitfd_place {
    /// In bytes from the start of the region.
    pub offset: usize,
    /// The number of bytes.
    pub len: usize,
    /// The address in this process; null if the region is not mapped by this object.
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

/// How often a place is asked for again, when others publish in the one before.
const TRIES: usize = 1000;

const NO_MAP: Failure = Failure::Refused(
    libc::EBADF,
    "this part of a region gives no right to map it",
);
const NO_APPEND: Failure = Failure::Refused(
    libc::EBADF,
    "this part of a region gives no right to publish in it",
);
const NOT_WHOLE: Failure = Failure::Refused(libc::EBADF, "this is only a part of a region");
const TOO_LONG: Failure =
    Failure::Refused(libc::EINVAL, "the chunk is longer than the reserved range");
const FULL: Failure = Failure::Refused(libc::ENOSPC, "the region is full");

impl jitfd_region {
    fn parts(parts: Parts) -> Self {
        Self {
            held: Held::Parts(parts),
        }
    }

    fn whole(&self) -> Result<&Region, Failure> {
        match &self.held {
            Held::Whole(region) => Ok(region),
            Held::Parts(_) => Err(NOT_WHOLE),
        }
    }

    fn map(&self) -> Result<&MapHandle, Failure> {
        match &self.held {
            Held::Whole(region) => Ok(region.map_handle()),
            Held::Parts(parts) => parts.map.as_ref().ok_or(NO_MAP),
        }
    }

    fn append(&self) -> Result<&AppendHandle, Failure> {
        match &self.held {
            Held::Whole(region) => Ok(region.append_handle()),
            Held::Parts(parts) => parts.append.as_ref().ok_or(NO_APPEND),
        }
    }

    /// The address of the first byte and the number of bytes; 0 if it is not mapped.
    fn mapped(&self) -> (usize, usize) {
        match &self.held {
            Held::Whole(region) => (region.mapping().address(), region.mapping().len()),
            Held::Parts(parts) => {
                let mapping = parts.mapping.as_ref();
                mapping.map_or((0, 0), |mapping| (mapping.address(), mapping.len()))
            }
        }
    }

    fn backend(&self) -> Backend {
        match &self.held {
            Held::Whole(region) => region.backend(),
            Held::Parts(parts) => parts.backend,
        }
    }

    fn place(&self, offset: usize, len: usize) -> jitfd_place {
        match self.mapped() {
            (0, _) => jitfd_place::new(offset, len, 0),
            (address, _) => jitfd_place::new(offset, len, address.wrapping_add(offset)),
        }
    }

    /// Nothing can fail any more once they are published.
    ///
    /// # Safety
    /// `places` is null or valid for writes of as many places as there are chunks.
    unsafe fn publish(&self, chunks: &[&Chunk], places: *mut jitfd_place) -> Result<(), Failure> {
        match &self.held {
            Held::Whole(region) => {
                let published = region.publish_all(chunks)?.into_iter();
                // SAFETY: as promised by the caller.
                unsafe { pointer::store_all(places, published.map(jitfd_place::from)) };
            }
            Held::Parts(_) => {
                let offsets = self.append()?.publish_all(chunks)?.into_iter();
                let all = offsets.zip(chunks);
                let all = all.map(|(offset, chunk)| self.place(offset, chunk.len()));
                // SAFETY: as above.
                unsafe { pointer::store_all(places, all) };
            }
        }
        Ok(())
    }

    fn publish_with(
        &self,
        align: Align,
        mut make: impl FnMut(jitfd_place) -> Result<Chunk, Failure>,
    ) -> Result<jitfd_place, Failure> {
        if let Held::Whole(region) = &self.held {
            let published = region.publish_with(align, |address| {
                make(jitfd_place::new(
                    address - region.mapping().address(),
                    0,
                    address,
                ))
            })?;
            return Ok(published.into());
        }
        let append = self.append()?;
        let mut last = FULL;
        for _ in 0..TRIES {
            let Stats {
                cursor, capacity, ..
            } = append.stats()?;
            let offset = cursor.next_multiple_of(align.bytes());
            if offset >= capacity {
                return Err(FULL);
            }
            let chunk = make(self.place(offset, 0))?.aligned(align);
            match publish_all_at(append, &[&chunk], Some(offset)) {
                Ok(_) => return Ok(self.place(offset, chunk.len())),
                Err(error @ Error::Stale { .. }) => last = error.into(),
                Err(error) => return Err(error.into()),
            }
        }
        Err(last)
    }

    fn reserve(&self, len: usize, align: Align) -> Result<jitfd_place, Failure> {
        if let Held::Whole(region) = &self.held {
            let range = region.reserve(len, align)?;
            return Ok(jitfd_place::new(range.offset, range.len, range.address));
        }
        let offset = self.append()?.reserve(len, align)?;
        Ok(self.place(offset, len))
    }

    fn fill(
        &self,
        range: &jitfd_place,
        skip: usize,
        chunk: &Chunk,
    ) -> Result<jitfd_place, Failure> {
        if let Held::Whole(region) = &self.held {
            let range = slot(range.offset, range.address.addr(), range.len);
            return Ok(fill_at(region, &range, skip, chunk)?.into());
        }
        let append = self.append()?;
        let fits = skip.checked_add(chunk.len());
        let fits = fits.is_some_and(|end| end <= range.len);
        let offset = range.offset.checked_add(skip).filter(|_| fits);
        let offset = offset.ok_or(TOO_LONG)?;
        append.fill(offset, chunk)?;
        Ok(self.place(offset, chunk.len()))
    }

    fn stats(&self) -> Result<Stats, Failure> {
        match &self.held {
            Held::Whole(region) => Ok(region.stats()?),
            Held::Parts(parts) => match (&parts.append, &parts.map) {
                (Some(append), _) => Ok(append.stats()?),
                (None, Some(map)) => Ok(map.stats()?),
                (None, None) => Err(NO_MAP),
            },
        }
    }
}

/// Creates a region of capacity bytes, rounded up to whole pages and at most
/// 1 GiB, and maps it. Memory is used only for what is published. options may be
/// null. Give the region back with jitfd_region_destroy or jitfd_region_split.
///
/// Returns null with errno EINVAL for a bad capacity, flag, fallback or size; E2BIG if
/// options asks for what this version does not have; ENOENT if the module is not
/// loaded; EACCES if a file mode or policy forbids it; EPERM if /dev is mounted noexec;
/// ENOMEM, also if there is no room close enough; EDQUOT at the user's bound; EMFILE or
/// ENFILE; EOPNOTSUPP if a fallback can't do what the flags ask for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_region_create(
    capacity: usize,
    options: *const jitfd_region_options,
) -> *mut jitfd_region {
    guard::object(|| {
        // SAFETY: the header says what this pointer must be.
        let options = unsafe { versioned::read(options) }?;
        if options.flags & !FLAGS != 0 {
            return Err(Failure::Refused(libc::EINVAL, "a flag is not known"));
        }
        let wanted = RegionOptions {
            capacity,
            window: window(options.near_first.addr(), options.near_last.addr())?,
            ..region_options(options.flags)
        };
        let region = jit(options.fallback)?.region(wanted)?;
        Ok(jitfd_region {
            held: Held::Whole(region),
        })
    })
}

/// Takes over descriptors of a region that were received from another process: of its
/// map_fd and its append_fd (jitfd_region_get_info), or -1 for one that there is not.
/// Nothing is mapped: jitfd_region_map. Branches between chunks are not checked: only
/// the whole region knows what was published before. A descriptor of something else is
/// found out by the first call that uses it. Give the object back with
/// jitfd_region_destroy, which closes the descriptors.
///
/// Returns null with errno EBADF if one of them is closed, or there is none; they are
/// the caller's then.
#[unsafe(no_mangle)]
pub extern "C" fn jitfd_region_open(map_fd: c_int, append_fd: c_int) -> *mut jitfd_region {
    guard::object(|| {
        for fd in [map_fd, append_fd] {
            // SAFETY: this call touches no memory.
            if fd != -1 && unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
                return Err(Failure::Refused(libc::EBADF, "the descriptor is closed"));
            }
        }
        if map_fd == -1 && append_fd == -1 {
            return Err(Failure::Refused(libc::EBADF, "there is no descriptor"));
        }
        // SAFETY: those that are not -1 are open, and the caller gives them away.
        let owned = |fd| (fd != -1).then(|| unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(jitfd_region::parts(Parts {
            map: owned(map_fd).map(MapHandle::from),
            append: owned(append_fd).map(AppendHandle::from),
            mapping: None,
            backend: Backend::Kernel,
        }))
    })
}

/// Gives a region, or a part of one, back: unmaps what it maps, and closes its
/// descriptors. No thread executes that code or uses the object any more. Null is
/// allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_region_destroy(region: *mut jitfd_region) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(region) }));
}

/// What a region is in this process. It does not change, but for the descriptors, by
/// jitfd_region_adopt.
#[repr(C)]
pub struct jitfd_region_info {
    /// In: sizeof(struct jitfd_region_info).
    pub size: usize,
    /// The address of its first byte; null if it is not mapped by this object.
    pub address: *mut c_void,
    /// How many bytes are mapped there.
    pub len: usize,
    /// What makes its code executable: one of JITFD_BACKEND_.
    pub backend: c_int,
    /// The descriptor by which it can be mapped, in this process or in one that it is
    /// sent to; it gives no right to publish. -1 if the object has none, as those of
    /// fallbacks. It stays the object's: do not close it.
    pub map_fd: c_int,
    /// The descriptor by which code is published; it can't be mapped. Another process
    /// needs JITFD_REGION_ANY_PROCESS to use it. Else as map_fd.
    pub append_fd: c_int,
    /// 0.
    pub reserved: c_int,
}

// SAFETY: `repr(C)`, three words and four half words; zero is a value of all.
unsafe impl Versioned for jitfd_region_info {
    const FIRST: usize = 40;
}

/// Stores what a region, or a part of one, is in this process.
///
/// Returns 0, or -1 with errno EINVAL for a null pointer or a bad size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_region_get_info(
    region: *const jitfd_region,
    info: *mut jitfd_region_info,
) -> c_int {
    guard::status(|| {
        pointer::wanted(info)?;
        // SAFETY: the header says what this pointer must be.
        let region = unsafe { pointer::object(region)? };
        let (address, len) = region.mapped();
        let map_fd = region.map().ok().and_then(|map| map.fd().ok());
        let append_fd = region.append().ok().and_then(|append| append.fd().ok());
        let made = jitfd_region_info {
            size: size_of::<jitfd_region_info>(),
            address: with_exposed_provenance_mut(address),
            len,
            backend: number(region.backend()),
            map_fd: map_fd.map_or(-1, |fd| fd.as_raw_fd()),
            append_fd: append_fd.map_or(-1, |fd| fd.as_raw_fd()),
            reserved: 0,
        };
        // SAFETY: as above.
        unsafe { versioned::write(info, &made) }
    })
}

/// Publishes a chunk behind what is there, at its alignment. When the call
/// returns it is executable in every thread and process that maps the region.
/// place may be null.
///
/// Returns 0, or -1 with errno EILSEQ if a branch between chunks does not go to
/// an instruction; ENOSPC if it does not fit; EROFS if the region is sealed;
/// EPERM in a process that may not publish; EBADF without the right to publish; ENOTTY
/// if the append descriptor is of something else; ESTALE if other holders of that were
/// always faster; EDQUOT at the user's bound; ENOMEM; EINVAL for a null pointer.
/// Nothing is published then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_region_publish(
    region: *mut jitfd_region,
    chunk: *const jitfd_chunk,
    place: *mut jitfd_place,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let (region, chunk) = (pointer::object(region)?, pointer::object(chunk)?);
        match &region.held {
            Held::Whole(region) => pointer::store(place, region.publish(&chunk.code)?.into()),
            Held::Parts(_) => region.publish(&[&chunk.code], place)?,
        }
        Ok(())
    })
}

/// Publishes up to 1024 chunks by one call, in order, all or none. places has
/// room for count of them, or is null. No chunk at all is no error.
///
/// Returns 0, or -1 with errno as jitfd_region_publish, and EINVAL for more than 1024.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_region_publish_all(
    region: *mut jitfd_region,
    chunks: *const *const jitfd_chunk,
    count: usize,
    places: *mut jitfd_place,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let (region, chunks) = (pointer::object(region)?, all(chunks, count)?);
        region.publish(&chunks, places)
    })
}

/// Makes the code for a place, whose length is 0. It returns a chunk, which it gives
/// away; or null with errno, and nothing is published. It must return, and may publish in
/// the same region.
pub type jitfd_emitter =
    Option<unsafe extern "C" fn(data: *mut c_void, place: *const jitfd_place) -> *mut jitfd_chunk>;

/// Publishes what emit makes for the place that it is told, a multiple of align_bytes (a
/// power of two up to 4096). If somebody else publishes there meanwhile, emit is called
/// again, with another place. Stores where the chunk lies, unless place is null.
///
/// Returns 0, or -1 with errno as jitfd_region_publish; what emit has left there, if it
/// returns null (ECANCELED if that is 0); EINVAL also for a bad align, or one below 64 for a
/// chunk with JITFD_RULE_WITHIN_LINES.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_region_publish_with(
    region: *mut jitfd_region,
    align_bytes: usize,
    emit: jitfd_emitter,
    data: *mut c_void,
    place: *mut jitfd_place,
) -> c_int {
    guard::status(|| {
        let emit = emit.ok_or(Failure::NULL)?;
        // SAFETY: the header says what this pointer must be.
        let region = unsafe { pointer::object(region)? };
        let published = region.publish_with(align(align_bytes)?, |place| {
            set_errno(0);
            // SAFETY: the header says what the function is called with, and what it
            // returns.
            let made = unsafe { pointer::take(emit(data, &raw const place)) };
            made.map(|chunk| chunk.code).ok_or_else(|| match errno() {
                0 => Failure::Callers(libc::ECANCELED),
                errno => Failure::Callers(errno),
            })
        })?;
        // SAFETY: the header says what this pointer must be.
        unsafe { pointer::store(place, published) };
        Ok(())
    })
}

/// Sets len bytes aside, at a multiple of align_bytes (a power of two up to
/// 4096). Their address is known before the code for them is made. Executing
/// them before they are filled raises a signal: SIGTRAP, or on a page without
/// any code SIGBUS (SIGTRAP or SIGSEGV with a fallback).
///
/// Returns 0, or -1 with errno ENOSPC, EROFS, EPERM, EBADF, ENOTTY or ENOMEM as
/// jitfd_region_publish; EINVAL for a null pointer, a len of 0 or a bad align.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_region_reserve(
    region: *mut jitfd_region,
    len: usize,
    align_bytes: usize,
    place: *mut jitfd_place,
) -> c_int {
    guard::status(|| {
        pointer::wanted(place)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let range = pointer::object(region)?.reserve(len, align(align_bytes)?)?;
            pointer::store(place, range);
        }
        Ok(())
    })
}

/// Publishes a chunk skip bytes behind the start of a reserved range, which is as
/// jitfd_region_reserve has stored it. Each byte can be filled once. place, where the
/// chunk is put, may be null. The range has the alignment that it was reserved
/// with; the chunk's is checked only with JITFD_RULE_WITHIN_LINES.
///
/// Returns 0, or -1 with errno EINVAL if the chunk is longer than the rest of
/// the range, the range is of another region, or a pointer is null; EEXIST if a
/// byte is not reserved or was filled before; EILSEQ, EROFS, EPERM, EBADF, ENOTTY,
/// EDQUOT or ENOMEM as jitfd_region_publish. Nothing is published then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_region_fill(
    region: *mut jitfd_region,
    reserved: *const jitfd_place,
    skip: usize,
    chunk: *const jitfd_chunk,
    place: *mut jitfd_place,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let (region, chunk) = (pointer::object(region)?, pointer::object(chunk)?);
        let published = region.fill(pointer::object(reserved)?, skip, &chunk.code)?;
        pointer::store(place, published);
        Ok(())
    })
}

/// Ends all publication into the region, by anybody, for good. What is
/// published stays. Sealing twice is no error.
///
/// Returns 0, or -1 with errno EPERM in a process that may not publish; EBADF or ENOTTY
/// as jitfd_region_publish; EINVAL if region is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_region_seal(region: *mut jitfd_region) -> c_int {
    guard::status(|| {
        // SAFETY: the header says what this pointer must be.
        let region = unsafe { pointer::object(region)? };
        match &region.held {
            Held::Whole(region) => region.append_handle().seal()?,
            Held::Parts(_) => region.append()?.seal()?,
        }
        Ok(())
    })
}

/// Stores the counters of a region.
///
/// Returns 0, or -1 with errno EBADF of an object that is only a mapping; ENODATA or
/// ENOTTY if the descriptor is of no region; EINVAL for a null pointer or a bad size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_region_get_stats(
    region: *const jitfd_region,
    stats: *mut jitfd_stats,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let region = pointer::object(region)?;
        jitfd_stats::store(stats, || region.stats())
    })
}

/// After fork(), in the child: makes the region the child's own, a copy of the
/// parent's as it is now (with a fallback: as it was at the fork()), at the same
/// addresses. Both go on publishing, each into its own. Without it the child
/// executes what its parent has published and publishes, and is refused to publish
/// itself (EPERM). The copy is not sealed, its counters start at 0, and only the
/// child may publish in it. In the process that made the region the call does the
/// same. The descriptors are those of the copy from now on; further mappings stay the
/// parent's. Branches to what the parent has published since the fork() are not
/// checked.
///
/// Returns 0, or -1 with errno EINVAL if another thread was publishing in the
/// region at the fork(), or region is null; EBADF if it is only a part; else as
/// jitfd_region_create. The region is as it was then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_region_adopt(region: *mut jitfd_region) -> c_int {
    // SAFETY: the header says what this pointer must be.
    guard::status(|| unsafe { Ok(pointer::object(region)?.whole()?.adopt()?) })
}

/// Takes a whole region apart, to give its parts to different owners: the code as it is
/// mapped, the right to map it, and the right to publish in it. The region is given
/// back. Each of the three pointers may be null: nobody has that part from now on; what
/// was mapped is unmapped, if it is that.
///
/// Returns 0, or -1 with errno EINVAL if region is null, EBADF if it is only a part;
/// nothing has changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_region_split(
    region: *mut jitfd_region,
    mapping: *mut *mut jitfd_region,
    mapper: *mut *mut jitfd_region,
    publisher: *mut *mut jitfd_region,
) -> c_int {
    guard::status(|| {
        // SAFETY: the header says what this pointer must be.
        unsafe { pointer::object(region)?.whole()? };
        // SAFETY: as above.
        let taken = unsafe { pointer::take(region) }.map(|region| region.held);
        let Some(Held::Whole(whole)) = taken else {
            return Err(NOT_WHOLE);
        };
        let none = || Parts {
            map: None,
            append: None,
            mapping: None,
            backend: whole.backend(),
        };
        let (mut mapped, mut maps, mut publishes) = (none(), none(), none());
        let (map, append, code) = whole.split();
        (mapped.mapping, maps.map, publishes.append) = (Some(code), Some(map), Some(append));
        for (pointer, parts) in [(mapping, mapped), (mapper, maps), (publisher, publishes)] {
            if !pointer.is_null() {
                let made = Box::into_raw(Box::new(jitfd_region::parts(parts)));
                // SAFETY: as above.
                unsafe { pointer::store(pointer, made) };
            }
        }
        Ok(())
    })
}

/// Maps the first len bytes of the region, readable and executable, once more: at an
/// address of its own (with mprotect flips it is the same). The object that is returned
/// is that mapping and nothing else. Give it back with jitfd_region_destroy.
///
/// Returns null with errno ENODATA, ENODEV or EPERM if the descriptor is of no
/// region; EBADF without the right to map; EINVAL if len is 0 or exceeds the region, or
/// region is null; EACCES if a policy forbids it; EPERM if /dev is mounted noexec; ENOMEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_region_map(
    region: *const jitfd_region,
    len: usize,
) -> *mut jitfd_region {
    guard::object(|| {
        // SAFETY: the header says what this pointer must be.
        let region = unsafe { pointer::object(region)? };
        Ok(jitfd_region::parts(Parts {
            map: None,
            append: None,
            mapping: Some(region.map()?.map(len, None)?),
            backend: region.backend(),
        }))
    })
}

/// Makes a region that is a copy of this one: its capacity, code, cursor and
/// unfilled reservations; not sealed, with counters of 0. Memory is shared until
/// one of the two publishes. flags is JITFD_REGION_ANY_PROCESS or 0. The object that is
/// returned may map and publish, as that of jitfd_region_open. Code that refers to itself
/// by address is right only where the source is mapped. Give it back with
/// jitfd_region_destroy.
///
/// Returns null with errno as jitfd_region_create; EBADF without the right to map;
/// ENODATA or ENOTTY if the descriptor is of no region; EOPNOTSUPP if it is a fallback's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_region_clone(
    region: *const jitfd_region,
    flags: u32,
) -> *mut jitfd_region {
    guard::object(|| {
        if flags & !JITFD_REGION_ANY_PROCESS != 0 {
            return Err(Failure::Refused(libc::EINVAL, "a flag is not known"));
        }
        // SAFETY: the header says what this pointer must be.
        let region = unsafe { pointer::object(region)? };
        let (map, append) = region.map()?.clone_region(flags != 0)?;
        Ok(jitfd_region::parts(Parts {
            map: Some(map),
            append: Some(append),
            mapping: None,
            backend: region.backend(),
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_has_the_size_it_had() {
        assert_eq!(
            size_of::<jitfd_region_options>(),
            jitfd_region_options::FIRST
        );
        assert_eq!(size_of::<jitfd_region_info>(), jitfd_region_info::FIRST);
        assert_eq!(size_of::<jitfd_place>(), 24);
    }
}
