// SPDX-License-Identifier: MIT OR Apache-2.0

//! Code spaces: as many regions as it takes, with names and lookup.

use crate::backend::jit;
use crate::chunk::all;
use crate::chunk::jitfd_chunk;
use crate::guard::{self, Failure};
use crate::pointer;
use crate::region::{FLAGS as REGION_FLAGS, JITFD_REGION_PERF_MAP, region_options, window};
use crate::rules::{ChunkRules, align, jitfd_rules};
use crate::text;
use crate::versioned::{self, Versioned};
use rust::Align;
use rust::Slot;
use rust::space::{CodeSpace, Listener, Request, SpaceOptions, SpaceStats, Symbol};
use rust::tools::{GdbJit, JitDump, PerfMap};
use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::iter::repeat_n;
use std::ptr::{null_mut, with_exposed_provenance_mut};
use std::sync::Arc;

/// The code of many functions in as many regions as it takes, with their names,
/// and lookup by address. May be used by several threads at once. Code is not
/// taken back one by one; destroying the space unmaps all of it.
pub struct jitfd_space {
    pub(crate) space: CodeSpace,
}

/// Room in a code space whose address is known and whose code is still to come.
/// Executing it before it is filled raises a signal, as with jitfd_region_reserve.
pub struct jitfd_slot {
    slot: Slot,
}

/// All code of the space can be reached from all of it by 32-bit displacements.
pub const JITFD_SPACE_TOGETHER: u32 = 0x100;
/// perf finds the names of functions, in /tmp/perf-PID.map, which is written;
/// JITFD_REGION_PERF_MAP goes without saying.
pub const JITFD_SPACE_PERF_MAP: u32 = 0x200;
/// gdb knows the names of functions: as jitfd_gdb_register, for all code.
pub const JITFD_SPACE_GDB: u32 = 0x400;
/// The first function of a region may lie at its start.
pub const JITFD_SPACE_NO_LEAD: u32 = 0x800;

/// Is told of code right after it was published, by the publishing thread and so
/// perhaps by several at once. The name is valid as long as the space, the struct only
/// during the call. It must return.
pub type jitfd_listener =
    Option<unsafe extern "C" fn(data: *mut c_void, function: *const jitfd_symbol)>;

/// How a code space is made. All zero but for the size: regions of 16 MiB, as many
/// as there is need for, made as jitfd_region_create does without options.
#[repr(C)]
pub struct jitfd_space_options {
    /// sizeof(struct jitfd_space_options).
    pub size: usize,
    /// JITFD_SPACE_TOGETHER, JITFD_SPACE_PERF_MAP, JITFD_SPACE_GDB,
    /// JITFD_SPACE_NO_LEAD; and JITFD_REGION_, for each region.
    pub flags: u32,
    /// One of JITFD_FALLBACK_; 0 is as the process allows.
    pub fallback: u32,
    /// Unless null, all regions are placed where 32-bit displacements reach all
    /// addresses from this one to near_last.
    pub near_first: *const c_void,
    /// Null if it is the same as near_first.
    pub near_last: *const c_void,
    /// The capacity of each region in bytes; 0 for 16 MiB.
    pub region_capacity: usize,
    /// The capacity of all regions together in bytes; 0 for no bound.
    pub max_capacity: usize,
    /// Is told of all code; or null.
    pub listener: jitfd_listener,
    /// The first argument of the listener.
    pub listener_data: *mut c_void,
    /// A folder for a dump of the code (jit-PID.dump), which perf inject reads; or
    /// null.
    pub jitdump: *const c_char,
    /// By which rules jitfd_space_link and jitfd_space_publish_moved validate; or
    /// null. They have no data, no entries and no align. If they ask for entries,
    /// each linked item that begins with code has one at its start.
    pub rules: *const jitfd_rules,
    /// Trap bytes at the start of each region, so that the bytes before a function
    /// can be read and never are another function's; 0 for 16.
    pub lead: usize,
}

// SAFETY: `repr(C)`, a word, two half words, nine words; zero is a value of all.
unsafe impl Versioned for jitfd_space_options {
    const FIRST: usize = 88;
}

/// Room for one function. All zero but for the size and the length: aligned to 16,
/// without a name, anywhere in the space.
#[repr(C)]
pub struct jitfd_request {
    /// sizeof(struct jitfd_request).
    pub size: usize,
    /// The number of bytes.
    pub len: usize,
    /// A power of two up to 4096; 0 is 16.
    pub align: usize,
    /// The name under which the code is found, in UTF-8; or null.
    pub name: *const c_char,
    /// As in struct jitfd_region_options; a region is added if none is there.
    pub near_first: *const c_void,
    /// As in struct jitfd_region_options.
    pub near_last: *const c_void,
}

// SAFETY: `repr(C)`, six words; zero is a value of all.
unsafe impl Versioned for jitfd_request {
    const FIRST: usize = 48;
}

/// A published function. This struct does not grow.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jitfd_symbol {
    /// The name, which has no NUL; valid as long as the space.
    pub name: *const c_char,
    /// The length of the name in bytes.
    pub name_len: usize,
    /// The address of the first byte.
    pub address: *mut c_void,
    /// The number of bytes.
    pub len: usize,
}

impl From<Symbol<'_>> for jitfd_symbol {
    fn from(symbol: Symbol<'_>) -> Self {
        Self {
            name: symbol.name.as_ptr().cast(),
            name_len: symbol.name.len(),
            address: with_exposed_provenance_mut(symbol.address),
            len: symbol.bytes.len(),
        }
    }
}

/// How the bytes of a code space are used. published, reserved, wasted and free
/// are together the capacity.
#[repr(C)]
pub struct jitfd_space_stats {
    /// In: sizeof(struct jitfd_space_stats).
    pub size: usize,
    /// Regions there are.
    pub regions: u64,
    /// Functions published.
    pub functions: u64,
    /// The capacity of all regions, in bytes.
    pub capacity: u64,
    /// Bytes of code and data that were published.
    pub published: u64,
    /// Bytes reserved and not published (yet).
    pub reserved: u64,
    /// Bytes skipped, given up, or at the start of a region.
    pub wasted: u64,
    /// Bytes behind the last function of each region.
    pub free: u64,
}

// SAFETY: `repr(C)`, words; zero is a value of all.
unsafe impl Versioned for jitfd_space_stats {
    const FIRST: usize = 64;
}

impl From<SpaceStats> for jitfd_space_stats {
    fn from(stats: SpaceStats) -> Self {
        let word = |value| u64::try_from(value).unwrap_or(u64::MAX);
        Self {
            size: size_of::<Self>(),
            regions: word(stats.regions),
            functions: word(stats.functions),
            capacity: word(stats.capacity),
            published: word(stats.published),
            reserved: word(stats.reserved),
            wasted: word(stats.wasted),
            free: word(stats.free),
        }
    }
}

/// The listener of a C program.
struct Told {
    call: unsafe extern "C" fn(*mut c_void, *const jitfd_symbol),
    data: *mut c_void,
}

// SAFETY: the header says that the listener is called by several threads.
unsafe impl Send for Told {}
// SAFETY: as above.
unsafe impl Sync for Told {}

impl Listener for Told {
    fn published(&self, codes: &[Symbol<'_>]) {
        for code in codes {
            let symbol = jitfd_symbol::from(*code);
            // SAFETY: the caller of `jitfd_space_create` vouches for the function.
            unsafe { (self.call)(self.data, &raw const symbol) };
        }
    }
}

/// # Safety
/// `options` is null or points to such a struct of the size it says, and so does
/// its `rules`; its `jitdump` is null or a C string.
unsafe fn create(options: *const jitfd_space_options) -> Result<CodeSpace, Failure> {
    // SAFETY: as promised by the caller.
    let (options, folder, rules) = unsafe {
        let options = versioned::read(options)?;
        let folder = text::read(options.jitdump)?;
        let rules = ChunkRules::for_any_layout(options.rules)?;
        (options, folder, rules)
    };
    if options.flags & !(FLAGS | REGION_FLAGS) != 0 {
        return Err(Failure::Refused(libc::EINVAL, "a flag is not known"));
    }
    let perf_map = options.flags & JITFD_SPACE_PERF_MAP != 0;
    let more = if perf_map { JITFD_REGION_PERF_MAP } else { 0 };
    let mut region = region_options(options.flags | more);
    region.window = window(options.near_first.addr(), options.near_last.addr())?;
    if options.region_capacity != 0 {
        region.capacity = options.region_capacity;
    }
    let mut wanted = SpaceOptions {
        region,
        together: options.flags & JITFD_SPACE_TOGETHER != 0,
        rules,
        lead: lead(&options)?,
        ..SpaceOptions::default()
    };
    if options.max_capacity != 0 {
        wanted.max_capacity = options.max_capacity;
    }
    let listeners = &mut wanted.listeners;
    if let Some(call) = options.listener {
        let data = options.listener_data;
        listeners.push(Arc::new(Told { call, data }));
    }
    if options.flags & JITFD_SPACE_GDB != 0 {
        listeners.push(Arc::new(GdbJit::default()));
    }
    if !folder.is_empty() {
        let dump = JitDump::create_in(folder.as_ref());
        let dump = dump.map_err(|error| no_file(&error, "the jitdump"))?;
        listeners.push(Arc::new(dump));
    }
    if perf_map {
        let map =
            PerfMap::create_in("/tmp".as_ref()).map_err(|error| no_file(&error, "the perf map"))?;
        listeners.push(Arc::new(map));
    }
    Ok(jit(options.fallback)?.space(wanted)?)
}

const FLAGS: u32 =
    JITFD_SPACE_TOGETHER | JITFD_SPACE_PERF_MAP | JITFD_SPACE_GDB | JITFD_SPACE_NO_LEAD;

fn lead(options: &jitfd_space_options) -> Result<usize, Failure> {
    match (options.lead, options.flags & JITFD_SPACE_NO_LEAD != 0) {
        (0, true) => Ok(0),
        (0, false) => Ok(LEAD),
        (lead, false) => Ok(lead),
        (_, true) => {
            let text = "there is a lead, and JITFD_SPACE_NO_LEAD";
            Err(Failure::Refused(libc::EINVAL, text))
        }
    }
}

/// In bytes, unless something else is asked for.
const LEAD: usize = 16;

fn no_file(error: &io::Error, what: &'static str) -> Failure {
    Failure::NoFile(error.raw_os_error().unwrap_or(libc::EIO), what)
}

/// # Safety
/// `request` is null or points to such a struct of the size it says, whose name is
/// null or a C string as long as the result is used.
unsafe fn read_request<'a>(request: *const jitfd_request) -> Result<Request<'a>, Failure> {
    pointer::wanted(request.cast_mut())?;
    // SAFETY: as promised by the caller.
    let (request, name) = unsafe {
        let request = versioned::read(request)?;
        let name = text::read(request.name)?;
        (request, name)
    };
    let align = match request.align {
        0 => Align::FUNCTION,
        bytes => align(bytes)?,
    };
    let wanted = Request {
        align,
        name,
        ..Request::new(request.len)
    };
    let window = window(request.near_first.addr(), request.near_last.addr())?;
    Ok(Request { window, ..wanted })
}

/// Makes a code space with one region. options may be null. Give it back with
/// jitfd_space_destroy.
///
/// Returns null with errno as jitfd_region_create; or that of a file for tools that
/// can't be made, such as EEXIST, EACCES or ENOENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_space_create(
    options: *const jitfd_space_options,
) -> *mut jitfd_space {
    guard::object(|| {
        // SAFETY: the header says what this pointer must be.
        let space = unsafe { create(options) }?;
        Ok(jitfd_space { space })
    })
}

/// Unmaps a code space. No thread executes its code or uses it any more. Slots
/// that were not filled are to be abandoned before. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_space_destroy(space: *mut jitfd_space) {
    // SAFETY: the header says what this pointer must be.
    guard::quietly(|| drop(unsafe { pointer::take(space) }));
}

/// Publishes a chunk under a name in UTF-8, or null, and stores its address, unless
/// that is null.
///
/// Returns 0, or -1 with errno as jitfd_region_publish and, if the space has to grow, as
/// jitfd_region_create; ENOSPC if the space has reached its bound.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_space_publish(
    space: *mut jitfd_space,
    name: *const c_char,
    chunk: *const jitfd_chunk,
    address: *mut *mut c_void,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let (space, chunk) = (pointer::object(space)?, pointer::object(chunk)?);
        let function = space.space.publish(text::read(name)?, &chunk.code)?;
        pointer::store(address, with_exposed_provenance_mut(function.address));
        Ok(())
    })
}

/// Publishes up to 1024 chunks next to each other, all or none. names has count of
/// them, each of which may be null, or is null; addresses has room for count of
/// them, or is null.
///
/// Returns 0, or -1 with errno as jitfd_space_publish; EINVAL also for more than
/// 1024.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_space_publish_all(
    space: *mut jitfd_space,
    names: *const *const c_char,
    chunks: *const *const jitfd_chunk,
    count: usize,
    addresses: *mut *mut c_void,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let (space, chunks) = (pointer::object(space)?, all(chunks, count)?);
        let names = all_names(names, chunks.len())?.into_iter();
        let batch = pointer::list(names.zip(chunks).map(Ok))?;
        let functions = space.space.publish_all(&batch)?;
        let places = functions.iter().map(|function| function.address);
        pointer::store_all(addresses, places.map(with_exposed_provenance_mut));
        Ok(())
    })
}

/// # Safety
/// `names` is null or valid for `count` pointers, each null or to a C string.
unsafe fn all_names<'a>(
    names: *const *const c_char,
    count: usize,
) -> Result<Vec<&'a str>, Failure> {
    if names.is_null() {
        return pointer::list(repeat_n("", count).map(Ok));
    }
    // SAFETY: as promised by the caller.
    let names = unsafe { pointer::array(names, count) }?;
    // SAFETY: as promised by the caller.
    pointer::list(names.iter().map(|&name| unsafe { text::read(name) }))
}

/// Sets room aside, and stores its address, unless that is null. The slot that is
/// returned is given back by jitfd_space_fill or jitfd_space_abandon.
///
/// Returns null with errno as jitfd_space_publish.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_space_reserve(
    space: *mut jitfd_space,
    request: *const jitfd_request,
    address: *mut *mut c_void,
) -> *mut jitfd_slot {
    guard::object(|| {
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let space = pointer::object(space)?;
            let slot = space.space.reserve(&read_request(request)?)?;
            pointer::store(address, with_exposed_provenance_mut(slot.address));
            Ok(jitfd_slot { slot })
        }
    })
}

/// Publishes a chunk at the start of a slot, and gives the slot back. What the
/// chunk does not need remains trap bytes.
///
/// Returns 0, or -1 with errno as jitfd_region_fill; the slot can be filled by another
/// try, or abandoned, then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_space_fill(
    space: *mut jitfd_space,
    slot: *mut jitfd_slot,
    chunk: *const jitfd_chunk,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let (space, chunk) = (pointer::object(space)?, pointer::object(chunk)?);
        space
            .space
            .fill(&pointer::object(slot)?.slot, &chunk.code)?;
        let _ = pointer::take(slot);
        Ok(())
    })
}

/// Gives a slot back that will not be filled. Its room is not used again. Null
/// is allowed for the slot.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_space_abandon(space: *mut jitfd_space, slot: *mut jitfd_slot) {
    // SAFETY: the header says what these pointers must be.
    guard::quietly(|| unsafe {
        if let (Ok(space), Some(slot)) = (pointer::object(space), pointer::take(slot)) {
            space.space.abandon(slot.slot);
        }
    });
}

/// After fork(), in the child: makes the space the child's own, a copy of the
/// parent's at the same addresses, as jitfd_region_adopt does with each of its regions.
/// Without it a child is refused to publish (EPERM). The listener is called in the
/// child for what the child publishes; a perf map or a dump is a file of the
/// child's own then. If the parent has several threads, call it before anything
/// else in the child, and fork while none of them publishes: under a lock of the
/// program's own that compilers hold while they publish (pthread_atfork can take it).
///
/// Returns 0, or -1 with errno EINVAL if another thread was publishing in the space
/// at the fork(), or space is null; else as jitfd_space_create. The child can't
/// publish then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_space_adopt(space: *mut jitfd_space) -> c_int {
    // SAFETY: the header says what this pointer must be.
    guard::status(|| unsafe { Ok(pointer::object(space)?.space.adopt()?) })
}

/// Publishes len bytes of code that works at the address from, changed so that it
/// works where it comes to lie. The length in request is not used. Stores the
/// address, unless that is null.
///
/// Returns 0, or -1 with errno as jitfd_space_publish; EINVAL also if the code is
/// not whole, valid instructions, or can't be moved.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_space_publish_moved(
    space: *mut jitfd_space,
    request: *const jitfd_request,
    source: *const c_void,
    len: usize,
    from: *const c_void,
    address: *mut *mut c_void,
) -> c_int {
    // SAFETY: the header says what these pointers must be.
    guard::status(|| unsafe {
        let (space, request) = (pointer::object(space)?, read_request(request)?);
        let code = pointer::copy(source, len)?;
        let function = space.space.publish_moved(&request, &code, from.addr())?;
        pointer::store(address, with_exposed_provenance_mut(function.address));
        Ok(())
    })
}

/// The function that an address lies in. Takes no lock and allocates nothing, so it
/// may be called by a signal handler, with pointers that are not null. A return
/// address lies behind its call: look up the address minus 1.
///
/// Returns 1 and stores the function, 0 if there is none, or -1 with errno EINVAL
/// for a null pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_space_lookup(
    space: *const jitfd_space,
    address: *const c_void,
    symbol: *mut jitfd_symbol,
) -> c_int {
    guard::number(|| {
        pointer::wanted(symbol)?;
        // SAFETY: the header says what these pointers must be.
        let found = unsafe { pointer::object(space)? }
            .space
            .lookup(address.addr());
        let none = jitfd_symbol {
            name: null_mut(),
            name_len: 0,
            address: null_mut(),
            len: 0,
        };
        let is_there = found.is_some().into();
        // SAFETY: as above.
        unsafe { pointer::store(symbol, found.map_or(none, jitfd_symbol::from)) };
        Ok(is_there)
    })
}

/// Stores the published functions, count of them at most, those of one region by
/// ascending address; and how many there are. symbols may be null if count is 0.
/// While other threads publish there may be more by the next call.
///
/// Returns 0, or -1 with errno EINVAL for a null pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_space_symbols(
    space: *const jitfd_space,
    symbols: *mut jitfd_symbol,
    count: usize,
    total: *mut usize,
) -> c_int {
    guard::status(|| {
        pointer::wanted(total)?;
        if count > 0 {
            pointer::wanted(symbols)?;
        }
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let space = pointer::object(space)?;
            let mut number = 0;
            let all = space.space.symbols().map(jitfd_symbol::from);
            let mut all = all.inspect(|_| number += 1);
            pointer::store_all(symbols, all.by_ref().take(count));
            all.for_each(drop);
            pointer::store(total, number);
        }
        Ok(())
    })
}

/// Stores how the bytes of a code space are used.
///
/// Returns 0, or -1 with errno EINVAL for a null pointer or a bad size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitfd_space_get_stats(
    space: *const jitfd_space,
    stats: *mut jitfd_space_stats,
) -> c_int {
    guard::status(|| {
        pointer::wanted(stats)?;
        // SAFETY: the header says what these pointers must be.
        unsafe {
            let space = pointer::object(space)?;
            versioned::write(stats, &jitfd_space_stats::from(space.space.stats()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_has_the_size_it_had() {
        assert_eq!(size_of::<jitfd_space_options>(), jitfd_space_options::FIRST);
        assert_eq!(size_of::<jitfd_request>(), jitfd_request::FIRST);
        assert_eq!(size_of::<jitfd_space_stats>(), jitfd_space_stats::FIRST);
    }
}
