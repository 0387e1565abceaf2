// SPDX-License-Identifier: MIT OR Apache-2.0

//! A region: a range of code that grows, which is what a JIT compiler works
//! with.
//!
//! Locks: one mutex per region, held while a publication is placed, checked,
//! done and noted. Nothing else is locked inside it, and no code of the caller
//! runs under it. A forked child does not wait for it, because a thread of the
//! parent may have held it at the `fork()`.

pub(crate) mod fixed;
pub(crate) mod handle;
pub(crate) mod image;
pub(crate) mod mapping;
pub(crate) mod options;
pub(crate) mod shared_code;
pub(crate) mod slot;
pub(crate) mod stats;

use crate::abi;
use crate::backend_name::Backend;
use crate::entry::{CodePointer, Entry};
use crate::error::{Call, Error, Kind};
use crate::num::to_u64;
use crate::os::fallible::{few, list, no_memory, room};
use crate::os::fork::{FORKED_MEANWHILE, Owner, PerProcess};
use crate::region::handle::{AppendHandle, MapHandle, OFF_LINE, create};
use crate::region::mapping::Mapping;
use crate::region::options::RegionOptions;
use crate::region::slot::{Published, Slot};
use crate::region::stats::Stats;
use jitfd_code::internal::{BranchMap, Mode, Placed, place};
use jitfd_code::{Align, Chunk};
use std::borrow::Borrow;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// How often a publication is tried again because another holder of the append
/// handle published in between.
const TRIES: usize = 64;

impl RegionOptions {
    pub(crate) fn create(self, backend: Backend) -> Result<Region, Error> {
        let capacity = checked_capacity(self.capacity)?;
        let (map, append) = create(backend, capacity, self.any_process, self.window)?;
        let mapping = self.map(&map, capacity)?;
        Ok(Region {
            mapping,
            map,
            append,
            options: self,
            owner: Owner::new().ok(),
            state: Mutex::new(State::new(self, capacity)),
            child: PerProcess::new(),
        })
    }

    fn map(self, handle: &MapHandle, capacity: usize) -> Result<Mapping, Error> {
        match self.window {
            _ if self.perf_map && handle.backend() == Backend::ProtectFlips => {
                Err(Error::Unsupported {
                    backend: handle.backend(),
                    what: "perf maps",
                })
            }
            _ if self.perf_map => handle.map(capacity, None)?.posing_as_memory(self.window),
            window => handle.map(capacity, window),
        }
    }
}

fn checked_capacity(capacity: usize) -> Result<usize, Error> {
    const RANGE: Error = Error::Argument("a region has 1 byte to 1 GiB");
    let rounded = Align::PAGE.up(capacity).ok_or(RANGE)?;
    if rounded == 0 || to_u64(rounded) > abi::MAX_REGION {
        return Err(RANGE);
    }
    Ok(rounded)
}

/// A range of code of fixed capacity, to which validated code can be added;
/// mapped readable and executable. All methods can be called from many threads
/// at once.
///
/// On a page with code, what is not published is `int3` (0xCC). An access to a page
/// without any ends in a signal ([`Backend`] says which), or meets `int3` too. Code
/// is executable in all threads from the moment the publishing call returns.
///
/// Dropping it unmaps it and closes its handles; function pointers into it do
/// not keep it alive.
///
/// # Example
/// ```
/// use jitfd::{Fallback, Jit, Rules, validate};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let region = Jit::open(Fallback::Any)?.region(1 << 20)?;
/// // mov eax, 42; ret
/// let chunk = validate(&[0xb8, 42, 0, 0, 0, 0xc3], &Rules::new())?;
/// let published = region.publish(&chunk)?;
/// // SAFETY: the chunk is such a function.
/// let answer = unsafe { region.entry::<extern "C" fn() -> i32>(published)? };
/// assert_eq!(answer(), 42);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Region {
    // In the order in which they are given up.
    mapping: Mapping,
    append: AppendHandle,
    map: MapHandle,
    options: RegionOptions,
    /// `None` if this system does not tell a child from its parent.
    owner: Option<Owner>,
    /// Of the owner.
    state: Mutex<State>,
    /// Of a forked child that may publish without being the owner.
    child: PerProcess<Mutex<State>>,
}

/// What the library knows about a region.
#[derive(Debug)]
pub(crate) struct State {
    /// Where the kernel's cursor was last seen. It only grows.
    cursor: usize,
    boundaries: Option<BranchMap>,
}

impl Region {
    /// What makes the region's code executable.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.map.backend()
    }

    /// The region as it is mapped: where, and how many bytes, which is its capacity.
    ///
    /// ```
    /// use jitfd::{Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let region = jit.region(1 << 20)?;
    /// // For a profiler, or a handler of signals: is this address in generated code?
    /// let mapping = region.mapping();
    /// let code = mapping.address()..mapping.address() + mapping.len();
    /// let published = region.publish(&validate(&[0xc3], &Rules::new())?)?;
    /// assert!(code.contains(&published.address));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    const fn capacity(&self) -> usize {
        self.mapping.len()
    }

    /// Published code as a function that can be called.
    ///
    /// # Errors
    /// [`Error::Argument`] if it is of another region.
    ///
    /// # Safety
    /// As [`Mapping::entry`].
    #[expect(unsafe_code, reason = "the caller vouches for the function's type")]
    pub unsafe fn entry<F: CodePointer>(
        &self,
        published: Published,
    ) -> Result<Entry<'_, F>, Error> {
        if self.address_of(published.offset) != published.address {
            return Err(Error::Argument("the code is of another region"));
        }
        // SAFETY: as promised by the caller.
        unsafe { self.mapping.entry(published.offset) }
    }

    /// Publishes one chunk at the cursor, at its [alignment](Chunk::align).
    ///
    /// If the chunk holds data the library has the kernel make sure that no CPU
    /// can read the old bytes in its place: by a flush, or for large chunks by
    /// pages of their own.
    ///
    /// # Errors
    /// As [`publish_all`](Self::publish_all).
    pub fn publish(&self, chunk: &Chunk) -> Result<Published, Error> {
        let chunks = [chunk];
        let published = self.publish_chunks(&chunks, None, Mode::for_append(&chunks), NOWHERE)?;
        one(published)
    }

    /// Publishes up to 1024 chunks at the cursor by one call, in order, each at
    /// its [alignment](Chunk::align), all or none.
    ///
    /// Direct branches between them and to code published before must go to
    /// instructions. A branch to a place where nothing is published yet is
    /// checked when something is.
    ///
    /// # Errors
    /// Nothing is published then.
    /// * [`Error::Code`] if a branch does not go to an instruction;
    /// * [`Error::Argument`] if there are more than 1024 chunks;
    /// * [`Error::System`] of kind [`Full`](crate::Kind::Full),
    ///   [`Sealed`](crate::Kind::Sealed), [`NotOwner`](crate::Kind::NotOwner) or
    ///   [`NoMemory`](crate::Kind::NoMemory);
    /// * [`Error::Stale`] if other holders of the append handle were always
    ///   faster.
    ///
    /// # Example
    /// ```
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let region = jit.region(1 << 20)?;
    /// # let a = jitfd::validate(&[0xc3], &jitfd::Rules::new())?;
    /// # let b = a.clone();
    /// for function in region.publish_all(&[a, b])? {
    ///     println!("{} bytes at {:#x}", function.len, function.address);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_all<V: Borrow<Chunk>>(&self, chunks: &[V]) -> Result<Vec<Published>, Error> {
        let chunks = list(chunks.iter().map(Borrow::borrow)).ok_or(NO_MEMORY)?;
        self.publish_beside(&chunks, NOWHERE)
    }

    /// The same, if branches may leave to further addresses.
    pub(crate) fn publish_beside(
        &self,
        chunks: &[&Chunk],
        known: Known<'_>,
    ) -> Result<Vec<Published>, Error> {
        self.publish_chunks(chunks, None, Mode::for_append(chunks), known)
    }

    /// Publishes one chunk that was made for `offset`, which
    /// [`next_offset`](Self::next_offset) has returned for the chunk's alignment or a
    /// greater one. Bytes that are skipped to get there are `int3`.
    ///
    /// It is [`Error::Stale`] if the cursor has moved on, [`Error::Argument`] if `offset`
    /// is no multiple of the chunk's alignment, so that the cursor never gets there.
    pub(crate) fn publish_at(&self, offset: usize, chunk: &Chunk) -> Result<Published, Error> {
        check_place(offset, chunk)?;
        one(self.publish_chunks(
            &[chunk],
            Some(offset),
            Mode::for_places(std::iter::once(chunk)),
            NOWHERE,
        )?)
    }

    /// Publishes what `make` makes for the address it is given. If another thread
    /// publishes there meanwhile, `make` is called again with another address.
    ///
    /// # Errors
    /// What `make` returns; [`Error::Stale`] if other threads were always
    /// faster; [`Error::Argument`] if `align` is below 64 bytes and the chunk stays
    /// [within lines](crate::Rules::within_lines); else as
    /// [`publish_all`](Self::publish_all).
    ///
    /// # Example
    /// ```
    /// use jitfd::{Align, Error, Rules, validate};
    ///
    /// # fn main() -> Result<(), Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let region = jit.region(4096)?;
    /// let published = region.publish_with(Align::FUNCTION, |address| {
    ///     // mov rax, its own address; ret
    ///     let mut code = vec![0x48, 0xb8];
    ///     code.extend(address.to_le_bytes());
    ///     code.push(0xc3);
    ///     Ok::<_, Error>(validate(&code, &Rules::new())?)
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_with<E: From<Error>>(
        &self,
        align: Align,
        mut make: impl FnMut(usize) -> Result<Chunk, E>,
    ) -> Result<Published, E> {
        let mut last = Error::Stale { expected: 0 };
        for _ in 0..TRIES {
            let offset = self.next_offset(align)?;
            let chunk = make(self.address_of(offset))?.aligned(align);
            // Only lines refuse an alignment; one that fits by chance is refused too.
            if chunk.align() != align {
                return Err(OFF_LINE.into());
            }
            match self.publish_at(offset, &chunk) {
                Err(error @ Error::Stale { .. }) => last = error,
                other => return other.map_err(E::from),
            }
        }
        Err(last.into())
    }

    /// The offset that the next chunk of this alignment gets, unless another thread
    /// publishes first: [`publish_at`](Self::publish_at) finds that out.
    pub(crate) fn next_offset(&self, align: Align) -> Result<usize, Error> {
        let mut state = self.lock(Call::Append)?;
        state.cursor = self.kernel_cursor()?;
        let offset = align.up(state.cursor);
        offset
            .filter(|&offset| offset < self.capacity())
            .ok_or(FULL)
    }

    /// Sets `len` bytes at the cursor aside. Their address is known before the
    /// code for them is emitted. Executing them before they are filled raises a
    /// signal: `SIGTRAP`, or on a page without any code the one that [`Backend`]
    /// names.
    ///
    /// # Errors
    /// [`Error::Argument`] if `len` is 0; [`Error::System`] of kind
    /// [`Full`](crate::Kind::Full), [`Sealed`](crate::Kind::Sealed),
    /// [`NotOwner`](crate::Kind::NotOwner) or [`NoMemory`](crate::Kind::NoMemory).
    ///
    /// # Example
    /// ```
    /// use jitfd::{Align, Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let region = jit.region(1 << 20)?;
    /// let slot = region.reserve(64, Align::FUNCTION)?;
    /// // Code elsewhere can call `slot.address` from now on.
    /// region.fill(&slot, &validate(&[0xc3], &Rules::new())?)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn reserve(&self, len: usize, align: Align) -> Result<Slot, Error> {
        let mut state = self.lock(Call::Reserve)?;
        let offset = self.append.reserve(len, align)?;
        state.cursor = state.cursor.max(offset.saturating_add(len));
        Ok(Slot {
            offset,
            address: self.address_of(offset),
            len,
            home: None,
        })
    }

    /// Publishes `chunk` at the start of a slot. What it does not need stays filled with
    /// `int3`.
    ///
    /// The slot has the alignment that it was reserved with. The chunk's
    /// [alignment](Chunk::align) is checked only if the chunk stays [within
    /// lines](crate::Rules::within_lines).
    ///
    /// See the example of [`reserve`](Self::reserve).
    ///
    /// # Errors
    /// Nothing is published then.
    /// * [`Error::Argument`] if the chunk is longer than the slot, or the slot is of
    ///   another region, or of a code space;
    /// * [`Error::Code`] if a branch does not go to an instruction;
    /// * [`Error::System`] of kind [`NotReserved`](crate::Kind::NotReserved) if
    ///   it was filled before, [`Sealed`](crate::Kind::Sealed),
    ///   [`NotOwner`](crate::Kind::NotOwner) or [`NoMemory`](crate::Kind::NoMemory).
    pub fn fill(&self, slot: &Slot, chunk: &Chunk) -> Result<Published, Error> {
        self.fill_at(slot, 0, chunk)
    }

    /// As [`fill`](Self::fill), `skip` bytes behind the start of the slot.
    pub(crate) fn fill_at(
        &self,
        slot: &Slot,
        skip: usize,
        chunk: &Chunk,
    ) -> Result<Published, Error> {
        if slot.home.is_some() {
            // Its code space would not know of the code.
            return Err(Error::Argument(
                "the slot is of a code space, which fills it",
            ));
        }
        self.fill_beside(slot, skip, chunk, NOWHERE)
    }

    /// As [`fill_at`](Self::fill_at), if branches may leave to further addresses. The slot
    /// may be of a code space.
    pub(crate) fn fill_beside(
        &self,
        slot: &Slot,
        skip: usize,
        chunk: &Chunk,
        known: Known<'_>,
    ) -> Result<Published, Error> {
        let offset = self.offset_in(slot, skip, chunk.len())?;
        let batch = [Placed { offset, chunk }];
        self.check_leaves(&batch, known)?;
        let mut state = self.lock(Call::Fill)?;
        state.check(&batch, Call::Fill)?;
        self.append.fill_batch(&batch)?;
        state.note(&batch);
        Ok(self.published(offset, chunk))
    }

    /// After `fork()`, in the child: makes this the child's own region, a copy of
    /// its parent's as it is now (without the kernel's backend: as it was at the
    /// `fork()`), at the same addresses. Both go on publishing, each into its own.
    ///
    /// Without it a child executes what its parent has published and publishes,
    /// and is refused to publish itself ([`Kind::NotOwner`]). The copy is not
    /// sealed, its counters start at 0, and only the child may publish in it. In the
    /// process that made the region a call does the same: a copy, counters of 0.
    /// [`map_handle`](Self::map_handle) and [`append_handle`](Self::append_handle)
    /// are those of the copy from now on; further mappings that were made by
    /// [`MapHandle::map`] stay the parent's. Branches to what the parent has
    /// published between the `fork()` and this call are not checked.
    ///
    /// # Errors
    /// [`Error::Argument`] if another thread was publishing in this region at the
    /// time of the `fork()`; else as for creating a region. The region is as it
    /// was then.
    ///
    /// [`Kind::NotOwner`]: crate::Kind::NotOwner
    ///
    /// # Example
    /// ```
    /// use jitfd::{Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let region = jit.region(1 << 20)?;
    /// let chunk = validate(&[0xc3], &Rules::new())?;
    /// region.publish(&chunk)?;
    /// // SAFETY: the child uses its copy of the region and ends.
    /// match unsafe { libc::fork() } {
    ///     0 => {
    ///         // It keeps the code there is, and goes on without its parent.
    ///         let done = region.adopt().and_then(|()| region.publish(&chunk));
    ///         // SAFETY: ends the child, and nothing else.
    ///         unsafe { libc::_exit(done.is_err().into()) }
    ///     }
    ///     child => {
    ///         let mut status = -1;
    ///         // SAFETY: the child is this process's, and the status a number of ours.
    ///         unsafe { libc::waitpid(child, &mut status, 0) };
    ///         assert_eq!(status, 0);
    ///     }
    /// }
    /// assert_eq!(region.stats()?.publications, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn adopt(&self) -> Result<(), Error> {
        // A lock that was held at the fork is never released in the child.
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(FORKED_MEANWHILE),
        };
        self.map.adopt(&self.append, &self.mapping)?;
        if let Some(owner) = &self.owner {
            let changed = owner.change();
            changed.map_err(|error| Error::system(Call::Owner, &error))?;
        }
        state.cursor = self.kernel_cursor()?;
        Ok(())
    }

    /// The region's counters.
    ///
    /// See the example of [`Stats`].
    ///
    /// # Errors
    /// As [`AppendHandle::stats`].
    pub fn stats(&self) -> Result<Stats, Error> {
        self.append.stats()
    }

    /// The handle by which the region can be mapped.
    ///
    /// See the example of [`clone_region`](MapHandle::clone_region).
    #[must_use]
    pub const fn map_handle(&self) -> &MapHandle {
        &self.map
    }

    /// The handle by which code is published. What is published through it is
    /// not in this region's boundary map.
    ///
    /// ```
    /// use jitfd::{Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let region = jit.region(1 << 20)?;
    /// // Code that no other chunk branches to, and that branches to none.
    /// let chunk = validate(&[0xc3], &Rules::new())?;
    /// let offsets = region.append_handle().publish_all(&[&chunk, &chunk])?;
    /// assert_eq!(offsets, [0, 16]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn append_handle(&self) -> &AppendHandle {
        &self.append
    }

    /// Takes the region apart, to give its parts to different owners.
    ///
    /// See the example of [`MapHandle`].
    #[must_use]
    pub fn split(self) -> (MapHandle, AppendHandle, Mapping) {
        (self.map, self.append, self.mapping)
    }

    /// Publishes at the cursor: places, checks, does and notes it.
    fn publish_chunks(
        &self,
        chunks: &[&Chunk],
        made_for: Option<usize>,
        mode: Mode,
        known: Known<'_>,
    ) -> Result<Vec<Published>, Error> {
        let mut state = self.lock(Call::Append)?;
        // Else the place must be known before.
        let anywhere = !chunks.iter().any(|chunk| chunk.has_bound_leaves());
        if state.boundaries.is_none() && anywhere {
            drop(state);
            let mut published = room(chunks.len()).ok_or(NO_MEMORY)?;
            let first = made_for.map(Align::of);
            let offsets = self.append.append_in(chunks, made_for, first, mode);
            let offsets = offsets.map_err(|error| self.missed(made_for, error))?;
            let pairs = offsets.iter().zip(chunks);
            published.extend(pairs.map(|(&offset, chunk)| self.published(offset, chunk)));
            return Ok(published);
        }
        let mut last = Error::Stale { expected: 0 };
        for _ in 0..TRIES {
            match self.publish_once(&mut state, chunks, made_for, mode, known) {
                Err(error @ Error::Stale { .. }) => last = error,
                other => return other,
            }
            let seen = std::mem::replace(&mut state.cursor, self.kernel_cursor()?);
            if made_for.is_some() && seen == state.cursor {
                break;
            }
        }
        Err(last)
    }

    fn publish_once(
        &self,
        state: &mut State,
        chunks: &[&Chunk],
        made_for: Option<usize>,
        mode: Mode,
        known: Known<'_>,
    ) -> Result<Vec<Published>, Error> {
        if let Some(expected) = made_for.filter(|&offset| offset < state.cursor) {
            return Err(Error::Stale { expected });
        }
        let align = made_for.map(Align::of);
        let placed = |&chunk| Placed { offset: 0, chunk };
        let mut batch = few(chunks.iter().map(placed)).ok_or(NO_MEMORY)?;
        let mut slots = batch.iter_mut();
        let put = |offset| {
            if let Some(slot) = slots.next() {
                slot.offset = offset;
            }
        };
        let end = place(state.cursor, self.capacity(), chunks, align, mode, put);
        let end = end.ok_or(FULL)?;
        let Some(first) = batch.first().map(|placed| placed.offset) else {
            return Ok(Vec::new());
        };
        if let Some(expected) = made_for.filter(|&offset| offset != first) {
            return Err(Error::Stale { expected });
        }
        self.check_leaves(&batch, known)?;
        state.check(&batch, Call::Append)?;
        let all = batch.iter();
        let published = list(all.map(|placed| self.published(placed.offset, placed.chunk)));
        let published = published.ok_or(NO_MEMORY)?;
        let appended = self.append.append_placed(chunks, Some(first), align, mode);
        appended.map_err(|error| self.missed(made_for, error))?;
        state.note(&batch);
        state.cursor = end;
        Ok(published)
    }

    /// Whether branches of `batch` leave it only to where they may: to `known`
    /// addresses, to the region, where its map decides, or to what their rules name.
    fn check_leaves(&self, batch: &[Placed<'_>], known: Known<'_>) -> Result<(), Error> {
        let base = self.mapping.address();
        let is_known = |target: usize| target.wrapping_sub(base) < self.capacity() || known(target);
        for (number, placed) in batch.iter().enumerate() {
            let address = base.wrapping_add(placed.offset);
            let checked = placed.chunk.check_leaves(address, is_known);
            checked.map_err(|error| Placed::named(batch, number, error))?;
        }
        Ok(())
    }

    /// If the cursor moved, reports `Stale`, not `Full`: re-emitted code may still
    /// fit.
    fn missed(&self, made_for: Option<usize>, error: Error) -> Error {
        let full = error.kind() == Some(Kind::Full);
        match made_for.filter(|_| full).zip(self.kernel_cursor().ok()) {
            Some((expected, cursor)) if expected < cursor => Error::Stale { expected },
            _ => error,
        }
    }

    fn kernel_cursor(&self) -> Result<usize, Error> {
        self.append.cursor()
    }

    fn address_of(&self, offset: usize) -> usize {
        self.mapping.address().wrapping_add(offset)
    }

    fn published(&self, offset: usize, chunk: &Chunk) -> Published {
        Published {
            offset,
            address: self.address_of(offset),
            len: chunk.len(),
        }
    }

    /// The offset in the region of `len` bytes in a slot.
    fn offset_in(&self, slot: &Slot, skip: usize, len: usize) -> Result<usize, Error> {
        let end = slot.offset.checked_add(slot.len);
        let inside = end.is_some_and(|end| end <= self.capacity());
        if !inside || self.address_of(slot.offset) != slot.address {
            return Err(Error::Argument("the slot is of another region"));
        }
        let fits = skip.checked_add(len).is_some_and(|end| end <= slot.len);
        let offset = slot.offset.checked_add(skip).filter(|_| fits);
        offset.ok_or(Error::Argument("the chunk is longer than the slot"))
    }

    pub(crate) fn lock(&self, call: Call) -> Result<MutexGuard<'_, State>, Error> {
        let state = if self.owner.as_ref().is_none_or(Owner::is_current) {
            &self.state
        } else if self.options.any_process {
            let new = || Ok(Mutex::new(State::new(self.options, self.capacity())));
            let own = self.child.get_or_make(new);
            own.map_err(|error| Error::system(Call::Owner, &error))?
        } else {
            return Err(Error::of(call, libc::EPERM));
        };
        // A panic can't leave the state half changed: it is noted in one go.
        Ok(state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn new(options: RegionOptions, capacity: usize) -> Self {
        Self {
            cursor: 0,
            boundaries: options.boundary_map.then(|| BranchMap::new(capacity)),
        }
    }

    /// Whether `batch` may be published, and can be noted then: memory is got before,
    /// because a publication can't be taken back.
    fn check(&mut self, batch: &[Placed<'_>], call: Call) -> Result<(), Error> {
        let Some(map) = &mut self.boundaries else {
            return Ok(());
        };
        map.check(batch)?;
        if !map.make_room(batch) {
            return Err(no_memory(call));
        }
        Ok(())
    }

    fn note(&mut self, batch: &[Placed<'_>]) {
        if let Some(map) = &mut self.boundaries {
            map.note(batch);
        }
    }
}

/// Whether a chunk that is appended can get the place it was made for.
fn check_place(offset: usize, chunk: &Chunk) -> Result<(), Error> {
    if offset % chunk.align().bytes() == 0 {
        Ok(())
    } else if chunk.within_lines() {
        Err(OFF_LINE)
    } else {
        Err(Error::Argument(
            "the offset is no multiple of the chunk's alignment; ask for the next place with \
             that alignment",
        ))
    }
}

/// The addresses that branches may leave the region to.
pub(crate) type Known<'a> = &'a dyn Fn(usize) -> bool;

/// None but those that the chunk's rules name.
const NOWHERE: Known<'static> = &|_| false;
const NO_MEMORY: Error = no_memory(Call::Append);
/// The cursor only grows, so what does not fit now never will.
const FULL: Error = Error::of(Call::Append, libc::ENOSPC);

fn one(published: Vec<Published>) -> Result<Published, Error> {
    published
        .into_iter()
        .next()
        .ok_or(Error::Argument("there is nothing to publish"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::os::fork::tests::in_child;
    use crate::{Fallback, Jit, Rules, validate};

    #[test]
    fn a_child_waits_for_no_lock_of_its_parent() {
        let backend = Fallback::Only(Backend::DualMapping);
        let region = Jit::open(backend).unwrap().region(4096).unwrap();
        let place = region.reserve(8, Align::NONE).unwrap();
        let chunk = validate(&[0xc3], &Rules::new()).unwrap();
        let held = region.lock(Call::Append).unwrap();
        let status = in_child(|| {
            let refused = [
                region.publish(&chunk).err(),
                region.fill(&place, &chunk).err(),
                region.reserve(8, Align::NONE).err(),
                region.next_offset(Align::NONE).err(),
            ];
            let meanwhile = region.adopt() == Err(FORKED_MEANWHILE);
            let kinds = refused.iter().flatten().filter_map(Error::kind);
            let right = kinds.filter(|kind| *kind == Kind::NotOwner).count();
            u8::try_from(right + 10 * usize::from(meanwhile)).unwrap()
        });
        drop(held);
        assert_eq!(status, 14);
    }
}
