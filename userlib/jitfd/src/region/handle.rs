// SPDX-License-Identifier: MIT OR Apache-2.0

//! The two handles of a region, which can be held by different processes, and a
//! mapping of it. They know chunks and backends; what keeps a region in order is in
//! `mod.rs`.

use crate::abi;
use crate::backend::dispatch::{self, Access};
use crate::backend::segment::Segment;
use crate::backend_name::Backend;
use crate::error::{Call, Error};
use crate::num::to_usize;
use crate::os::fallible::{few, no_memory, room};
use crate::os::window::Window;
use crate::region::mapping::Mapping;
use crate::region::stats::Stats;
use jitfd_code::internal::{Mode, Placed, aligns, place};
use jitfd_code::{Align, Chunk, CodeError, Reason};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Creates a region: its two handles.
pub(crate) fn create(
    backend: Backend,
    capacity: usize,
    any_process: bool,
    window: Option<Window>,
) -> Result<(MapHandle, AppendHandle), Error> {
    let (map, append) = dispatch::create(backend, capacity, any_process, window)?;
    Ok((MapHandle { access: map }, AppendHandle { access: append }))
}

/// The handle by which a region is mapped. Whoever holds it can read and execute
/// the region's code but not publish any.
///
/// ```
/// use jitfd::{Rules, validate};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
/// # let region = jit.region(1 << 20)?;
/// let published = region.publish(&validate(&[0xc3], &Rules::new())?)?;
/// // `append` is for the compiler, perhaps in another process; who only runs code
/// // has `map`.
/// let (map, append, mapping) = region.split();
/// let second = map.map(4096, None)?; // with mprotect flips that is the same place
/// // SAFETY: such a function is there, and `second` outlives the call.
/// let nothing = unsafe { second.entry::<extern "C" fn()>(published.offset)? };
/// nothing();
/// assert_eq!(map.stats()?.cursor, published.len);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MapHandle {
    access: Access,
}

impl MapHandle {
    /// Maps the first `len` bytes of the region, readable and executable: with a window
    /// inside of that, and as close as possible to the address that it prefers. Nothing
    /// that is mapped is replaced.
    ///
    /// # Errors
    /// [`Error::System`] of kind [`NotRegion`](crate::Kind::NotRegion),
    /// [`Argument`](crate::Kind::Argument) if `len` is 0 or exceeds the region,
    /// [`Denied`](crate::Kind::Denied), [`NoExec`](crate::Kind::NoExec) or
    /// [`NoMemory`](crate::Kind::NoMemory).
    /// With a window, [`Error::NoRoom`] if it has no gap of this size;
    /// [`Error::Unsupported`] if the backend has mapped the region elsewhere and can't
    /// map it twice ([`Backend::ProtectFlips`](crate::Backend::ProtectFlips)).
    ///
    /// # Example
    /// ```
    /// use jitfd::{Error, Window};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let region = jit.region(1 << 20)?;
    /// fn helper() {}
    /// // From there `helper` can be called directly.
    /// let window = Window::reaching(helper as *const () as usize);
    /// let (map, _append, _mapping) = region.split();
    /// match map.map(1 << 20, Some(window)) {
    ///     Ok(mapping) => assert!(window.contains(mapping.address(), mapping.len())),
    ///     Err(error @ Error::Unsupported { .. }) => println!("{error}"), // mprotect flips
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn map(&self, len: usize, window: Option<Window>) -> Result<Mapping, Error> {
        let mapped = self.access.map(window, len)?;
        Ok(Mapping::of(mapped))
    }

    /// Clones the region: a new one with its capacity, its code, its cursor and
    /// its unfilled reservations, not sealed, with counters of 0. Pages are
    /// shared until one of the two publishes on them. `any_process` is as in
    /// [`RegionOptions`](crate::RegionOptions).
    ///
    /// Code that refers to itself by address is right only where the source is
    /// mapped; for a forked child see [`Region::adopt`](crate::Region::adopt).
    ///
    /// # Errors
    /// [`Error::System`] as for creating a region, and of kind
    /// [`NotRegion`](crate::Kind::NotRegion); [`Error::Unsupported`] if the
    /// backend is not the kernel's.
    ///
    /// ```
    /// use jitfd::{Error, Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let region = jit.region(1 << 20)?;
    /// region.publish(&validate(&[0xc3], &Rules::new())?)?;
    /// let (map, append) = match region.map_handle().clone_region(false) {
    ///     Err(Error::Unsupported { .. }) => return Ok(()), // only /dev/jit can do it
    ///     cloned => cloned?,
    /// };
    /// // What both begin with is there once; each goes on by itself.
    /// append.publish_all(&[&validate(&[0x90, 0xc3], &Rules::new())?])?;
    /// let mapping = map.map(region.mapping().len(), None)?;
    /// assert_eq!((map.stats()?.cursor, region.stats()?.cursor), (18, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn clone_region(&self, any_process: bool) -> Result<(Self, AppendHandle), Error> {
        let (map, append) = self.access.clone_region(any_process)?;
        Ok((Self { access: map }, AppendHandle { access: append }))
    }

    pub(crate) fn adopt(&self, append: &AppendHandle, mapping: &Mapping) -> Result<(), Error> {
        self.access.adopt(&append.access, &mapping.mapped)
    }

    /// What makes the region's code executable.
    pub(crate) fn backend(&self) -> Backend {
        self.access.backend()
    }

    /// The descriptor, to be passed to another process.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the backend is not the kernel's: only its
    /// handles carry rights of their own.
    ///
    /// # Example
    /// ```
    /// use jitfd::{Error, MapHandle};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let region = jit.region(1 << 20)?;
    /// let descriptor = match region.map_handle().fd() {
    ///     Err(Error::Unsupported { .. }) => return Ok(()), // only /dev/jit has such
    ///     descriptor => descriptor?,
    /// };
    /// // The other process has received it, over a socket (SCM_RIGHTS) for example.
    /// let received = MapHandle::from(descriptor.try_clone_to_owned()?);
    /// let mapping = received.map(region.mapping().len(), None)?;
    /// assert_eq!(mapping.len(), region.mapping().len());
    /// # Ok(())
    /// # }
    /// ```
    pub fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.access.fd()
    }

    /// The region's counters.
    ///
    /// # Errors
    /// [`Error::System`] of kind [`NotRegion`](crate::Kind::NotRegion) or
    /// [`Foreign`](crate::Kind::Foreign).
    pub fn stats(&self) -> Result<Stats, Error> {
        self.access.stats().map(Stats::from)
    }
}

/// The handle by which code is published. Whoever holds it alone can publish but
/// neither read nor execute what was published.
///
/// Chunks are validated, but branches *between* chunks are not checked here:
/// only a [`Region`](crate::Region) knows what was published before.
///
/// ```
/// use jitfd::{Align, Rules, validate};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
/// # let region = jit.region(1 << 20)?;
/// let (_map, append, mapping) = region.split();
/// // The compiler's side, which needs no mapping.
/// // mov eax, 42; ret
/// let chunk = validate(&[0xb8, 42, 0, 0, 0, 0xc3], &Rules::new())?;
/// let offsets = append.publish_all(&[&chunk])?;
/// let later = append.reserve(16, Align::FUNCTION)?;
/// append.fill(later, &chunk)?;
/// append.seal()?;
/// assert!(append.stats()?.sealed);
/// // The side that runs it.
/// for offset in [offsets[0], later] {
///     // SAFETY: such a function is there, and `mapping` outlives the call.
///     let answer = unsafe { mapping.entry::<extern "C" fn() -> i32>(offset)? };
///     assert_eq!(answer(), 42);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AppendHandle {
    access: Access,
}

impl AppendHandle {
    /// Publishes `chunks` at the cursor, one after the other, each at its
    /// alignment, all or none. Returns their offsets in the region.
    ///
    /// # Errors
    /// As [`Region::publish_all`](crate::Region::publish_all); [`Error::Code`] if a
    /// chunk has branches that [may not leave to
    /// anywhere](crate::Rules::leaves_only_to), since no address is known here.
    pub fn publish_all(&self, chunks: &[&Chunk]) -> Result<Vec<usize>, Error> {
        self.publish_all_at(chunks, None)
    }

    /// The same. With `expect`, the first chunk comes to lie at that offset, or nothing
    /// is published: [`Error::Stale`] if the cursor is not where `expect` needs it,
    /// [`Error::Argument`] if `expect` is no multiple of 64 for a first chunk that stays
    /// [within lines](crate::Rules::within_lines).
    pub(crate) fn publish_all_at(
        &self,
        chunks: &[&Chunk],
        expect: Option<usize>,
    ) -> Result<Vec<usize>, Error> {
        chunks.iter().try_for_each(|chunk| check_address(chunk))?;
        self.append_in(chunks, expect, None, Mode::for_append(chunks))
    }

    /// `first` is in the place of the first chunk's alignment.
    pub(crate) fn append_in(
        &self,
        chunks: &[&Chunk],
        expect: Option<usize>,
        first: Option<Align>,
        mode: Mode,
    ) -> Result<Vec<usize>, Error> {
        if chunks.is_empty() {
            return Ok(Vec::new());
        }
        // Nothing can fail any more once they are published.
        let mut offsets = room(chunks.len()).ok_or(no_memory(Call::Append))?;
        let first = self.append_placed(chunks, expect, first, mode)?;
        let put = |offset| offsets.push(offset);
        place(first, usize::MAX, chunks, None, Mode::Lazy, put);
        Ok(offsets)
    }

    /// The same of chunks, at least one, whose offsets the caller knows if it knows the
    /// first one's; returns that.
    pub(crate) fn append_placed<'c>(
        &self,
        chunks: &[&'c Chunk],
        expect: Option<usize>,
        first: Option<Align>,
        mode: Mode,
    ) -> Result<usize, Error> {
        let mut aligns = aligns(chunks, first);
        let piece = |chunk: &&'c Chunk| at_cursor(chunk, aligns.next().unwrap_or(Align::NONE));
        let pieces = few(chunks.iter().map(piece)).ok_or(no_memory(Call::Append))?;
        check_count(&pieces)?;
        check_expected(chunks, expect)?;
        self.access.append(&pieces, expect, told(mode))
    }

    /// Sets `len` bytes at the cursor aside, to be filled later; returns their
    /// offset in the region.
    ///
    /// # Errors
    /// As [`Region::reserve`](crate::Region::reserve).
    pub fn reserve(&self, len: usize, align: Align) -> Result<usize, Error> {
        if len == 0 {
            return Err(Error::Argument("a range to reserve has at least 1 byte"));
        }
        self.access.reserve(len, align)
    }

    /// Publishes `chunk` at `offset` of the region, in a range that was
    /// reserved; each byte of it once.
    ///
    /// # Errors
    /// As [`Region::fill`](crate::Region::fill).
    pub fn fill(&self, offset: usize, chunk: &Chunk) -> Result<(), Error> {
        check_address(chunk)?;
        self.fill_batch(&[Placed { offset, chunk }])
    }

    /// The end of what was published or reserved, in bytes.
    pub(crate) fn cursor(&self) -> Result<usize, Error> {
        self.access.stats().map(|stats| to_usize(stats.cursor))
    }

    pub(crate) fn fill_batch(&self, batch: &[Placed<'_>]) -> Result<(), Error> {
        batch.iter().try_for_each(check_line)?;
        let pieces = few(batch.iter().map(at_offset)).ok_or(no_memory(Call::Fill))?;
        check_count(&pieces)?;
        let mode = Mode::for_places(batch.iter().map(|placed| placed.chunk));
        self.access.fill(&pieces, told(mode))
    }

    /// Ends all publication into the region, by any handle, for good. What is
    /// mapped stays.
    ///
    /// # Errors
    /// [`Error::System`] of kind [`NotOwner`](crate::Kind::NotOwner),
    /// [`Sealed`](crate::Kind::Sealed) or [`Foreign`](crate::Kind::Foreign).
    ///
    /// # Example
    /// ```
    /// use jitfd::{Kind, Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let region = jit.region(1 << 20)?;
    /// let chunk = validate(&[0xc3], &Rules::new())?;
    /// region.publish(&chunk)?;
    /// // All is compiled: from now on nobody can add code, not even who takes over
    /// // this program.
    /// region.append_handle().seal()?;
    /// assert_eq!(region.publish(&chunk).unwrap_err().kind(), Some(Kind::Sealed));
    /// # Ok(())
    /// # }
    /// ```
    pub fn seal(&self) -> Result<(), Error> {
        self.access.seal()
    }

    /// The descriptor, to be passed to another process.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the backend is not the kernel's: only its
    /// handles carry rights of their own.
    ///
    /// # Example
    /// ```
    /// use jitfd::{AppendHandle, Error, Rules, validate};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let region = jit.region(1 << 20)?;
    /// let descriptor = match region.append_handle().fd() {
    ///     Err(Error::Unsupported { .. }) => return Ok(()), // only /dev/jit has such
    ///     descriptor => descriptor?,
    /// };
    /// // Sent to another process this publishes only if `RegionOptions::any_process`
    /// // was asked for.
    /// let received = AppendHandle::from(descriptor.try_clone_to_owned()?);
    /// received.publish_all(&[&validate(&[0xc3], &Rules::new())?])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.access.fd()
    }

    /// The region's counters.
    ///
    /// # Errors
    /// [`Error::System`] of kind [`Foreign`](crate::Kind::Foreign).
    pub fn stats(&self) -> Result<Stats, Error> {
        self.access.stats().map(Stats::from)
    }
}

/// The mode, which the tests are told too.
fn told(mode: Mode) -> Mode {
    #[cfg(test)]
    tests::LAST.set(Some(mode));
    mode
}

fn at_cursor(chunk: &Chunk, align: Align) -> Segment<'_> {
    Segment {
        bytes: chunk.bytes(),
        offset: 0,
        align,
    }
}

fn at_offset<'a>(placed: &Placed<'a>) -> Segment<'a> {
    Segment {
        bytes: placed.chunk.bytes(),
        offset: placed.offset,
        align: Align::NONE,
    }
}

/// Code that was made for the middle of a line can't stay within lines.
pub(crate) const OFF_LINE: Error =
    Error::Argument("code whose instructions stay within lines is put at a multiple of 64 bytes");

/// Where branches go can't be checked without an address.
fn check_address(chunk: &Chunk) -> Result<(), Error> {
    if chunk.has_bound_leaves() {
        return Err(CodeError::whole(Reason::NoAddress).into());
    }
    Ok(())
}

/// A fill does not go by the chunk's alignment.
fn check_line(placed: &Placed<'_>) -> Result<(), Error> {
    if placed.chunk.within_lines() && placed.offset % Align::LINE.bytes() != 0 {
        return Err(OFF_LINE);
    }
    Ok(())
}

/// The cursor would never be where it is expected.
fn check_expected(chunks: &[&Chunk], expect: Option<usize>) -> Result<(), Error> {
    match (chunks.first(), expect) {
        (Some(&chunk), Some(offset)) => check_line(&Placed { offset, chunk }),
        _ => Ok(()),
    }
}

fn check_count(pieces: &[Segment<'_>]) -> Result<(), Error> {
    match u32::try_from(pieces.len()) {
        Ok(count) if count <= abi::MAX_SEGMENTS => Ok(()),
        _ => Err(Error::Argument("one publication takes at most 1024 chunks")),
    }
}

/// For a handle received from another process. If it is a descriptor of
/// something else, the first call on it fails.
impl From<OwnedFd> for MapHandle {
    fn from(fd: OwnedFd) -> Self {
        Self {
            access: Access::Kernel(fd),
        }
    }
}

/// Fails with [`Error::Unsupported`], closing the handle, if it is not the
/// kernel's.
impl TryFrom<MapHandle> for OwnedFd {
    type Error = Error;

    fn try_from(handle: MapHandle) -> Result<Self, Error> {
        handle.access.into_fd()
    }
}

/// For a handle received from another process. If it is a descriptor of
/// something else, the first call on it fails.
impl From<OwnedFd> for AppendHandle {
    fn from(fd: OwnedFd) -> Self {
        Self {
            access: Access::Kernel(fd),
        }
    }
}

/// Fails with [`Error::Unsupported`], closing the handle, if it is not the
/// kernel's.
impl TryFrom<AppendHandle> for OwnedFd {
    type Error = Error;

    fn try_from(handle: AppendHandle) -> Result<Self, Error> {
        handle.access.into_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, Fallback, Jit, Region, Rules, validate};
    use std::cell::Cell;

    thread_local! {
        pub(super) static LAST: Cell<Option<Mode>> = const { Cell::new(None) };
    }

    fn chunk(len: usize, data: bool) -> Chunk {
        let options = if data {
            Rules::new().data(0..1)
        } else {
            Rules::new()
        };
        validate(&vec![0x90; len], &options).unwrap()
    }

    #[track_caller]
    fn published_as<T>(mode: Mode, how: impl FnOnce() -> Result<T, Error>) {
        LAST.set(None);
        assert!(how().is_ok());
        assert_eq!(LAST.get(), Some(mode));
    }

    /// By whatever call, and wherever in a batch the data is.
    #[test]
    fn every_way_to_publish_knows_of_data() {
        let backend = Fallback::Only(Backend::DualMapping);
        let region = Jit::open(backend).unwrap().region(1 << 20);
        let region: Region = region.unwrap();
        let (code, data, large) = (chunk(32, false), chunk(32, true), chunk(70_000, true));
        let append = |mode, batch: &[&Chunk]| {
            published_as(mode, || region.publish_all(batch));
            published_as(mode, || region.append_handle().publish_all(batch));
        };
        append(Mode::Lazy, &[&code, &code]);
        append(Mode::Sync, &[&data, &code]);
        append(Mode::Sync, &[&code, &code, &data]);
        append(Mode::Fresh, &[&code, &large, &code]);
        for (chunk, mode) in [
            (&code, Mode::Lazy),
            (&data, Mode::Sync),
            (&large, Mode::Sync),
        ] {
            let place = region.reserve(chunk.len(), Align::NONE).unwrap();
            published_as(mode, || region.fill(&place, chunk));
            let next = region.next_offset(Align::FUNCTION).unwrap();
            published_as(mode, || region.publish_at(next, chunk));
        }
        published_as(Mode::Sync, || region.publish(&data));
    }
}
