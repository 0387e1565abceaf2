// SPDX-License-Identifier: MIT OR Apache-2.0

//! The code space: chooses a region for each request, and adds regions.
//!
//! Locks: `growing` while a region is created, and while a forked child adopts the
//! space, which takes those of the areas (`area.rs`) inside it. Else they are never
//! held at the same time. Lookups take none. A forked child waits for none of its
//! parent's.

use super::area::{Area, FORKED_MEANWHILE, NOT_HERE, Part};
use super::listener::Symbol;
use super::options::SpaceOptions;
use super::slot::Request;
use super::stats::SpaceStats;
use super::table::Table;
use crate::backend_name::Backend;
use crate::entry::{CodePointer, Entry};
use crate::error::{Call, Error, Kind};
use crate::os::fallible::{no_memory, room};
use crate::os::fork::Owner;
use crate::os::near;
use crate::os::window::Window;
use crate::region::Region;
use crate::region::slot::{Published, Slot};
use jitfd_code::internal::{Mode, end};
use jitfd_code::{Align, Chunk};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

/// How often a region is added because other threads have filled the last one.
const TRIES: usize = 16;

/// Code of many functions in as many regions as it takes: what a JIT compiler
/// works with, one for the whole process.
///
/// * Many threads can reserve, publish and look up at once.
/// * An address can be had before the code ([`reserve`](Self::reserve)), so
///   that code is made for its place.
/// * Many functions that refer to each other are laid out, relocated, validated
///   and published as one ([`link`](Self::link)).
/// * An address leads back to the function and its name
///   ([`lookup`](Self::lookup)), without a lock.
/// * Tools can be told of all code ([`SpaceOptions::listeners`]).
///
/// Code is never moved, changed or taken back one by one; dropping the code
/// space unmaps all of it. Programs that drop code often use one code space for
/// each generation of it, each with a [`GdbJit`](crate::tools::GdbJit) of its own that
/// is dropped with it: gdb would keep the old names at addresses that are used again.
///
/// Each region has descriptors: two by `/dev/jit`, one by dual mapping, none by mprotect
/// flips. So some 500 code spaces meet a `RLIMIT_NOFILE` of 1024.
///
/// Direct branches are checked inside a region; those from one region to another
/// are not, since each region has a boundary map of its own, unless
/// [`Rules::leaves_only_to`](crate::Rules::leaves_only_to) asks for it: they then go to
/// the start of a function.
///
/// A forked child can execute and look up what it inherits. To publish it needs a
/// copy of its own: [`adopt`](Self::adopt).
///
/// # Example
/// ```
/// use jitfd::space::{Request, SpaceOptions};
/// use jitfd::{Error, Fallback, Jit, Rules, validate};
///
/// # fn main() -> Result<(), Error> {
/// let space = Jit::open(Fallback::Any)?.space(SpaceOptions::default())?;
/// let answer = space.publish_with(&Request { name: "where am I", ..Request::new(11) }, |address| {
///     // mov rax, its own address; ret
///     let mut code = vec![0x48, 0xb8];
///     code.extend(address.to_le_bytes());
///     code.push(0xc3);
///     Ok::<_, Error>(validate(&code, &Rules::new())?)
/// })?;
/// // SAFETY: the code is such a function, and `space` outlives the call.
/// let function = unsafe { space.entry::<extern "C" fn() -> usize>(answer)? };
/// assert_eq!(function(), answer.address);
/// let found = space.lookup(answer.address + 3).unwrap();
/// assert_eq!((found.name, found.address), ("where am I", answer.address));
/// # Ok(())
/// # }
/// ```
pub struct CodeSpace {
    areas: Table<Area>,
    backend: Backend,
    pub(super) options: SpaceOptions,
    /// Of no other code space of this process.
    number: u64,
    growing: Mutex<()>,
    /// `None` if this system does not tell a child from its parent.
    owner: Option<Owner>,
}

/// The number of the next code space.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

const TOO_MANY: Error = Error::Argument("a code space has room for 2^32 regions");
/// The cursor of each region only grows.
const CROWDED: Error = Error::of(Call::Append, libc::ENOSPC);
const TOO_LARGE: Error = Error::Argument(
    "no region has room for that: with the lead in front of it, it has more than 1 GiB",
);
/// The chunks that one publication takes.
const MOST: usize = crate::abi::MAX_SEGMENTS as usize;
/// The largest region, in bytes.
const LARGEST: usize = 1 << 30;
const FOREIGN: Error = Error::Argument("the address is not in this code space");

impl CodeSpace {
    pub(crate) fn create(backend: Backend, options: SpaceOptions) -> Result<Self, Error> {
        let space = Self {
            areas: Table::new(),
            backend,
            options,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            growing: Mutex::new(()),
            owner: Owner::new().ok(),
        };
        space.grow(0, space.options.lead.checked_add(1), None)?;
        Ok(space)
    }

    /// Publishes a chunk under a name, at its [alignment](Chunk::align).
    ///
    /// # Errors
    /// As [`publish_all`](Self::publish_all).
    ///
    /// # Example
    /// ```
    /// use jitfd::{Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let space = jit.space(jitfd::space::SpaceOptions::default())?;
    /// // mov eax, 42; ret
    /// let chunk = validate(&[0xb8, 42, 0, 0, 0, 0xc3], &Rules::new())?;
    /// let answer = space.publish("answer", &chunk)?;
    /// // SAFETY: the code is such a function, and `space` outlives the call.
    /// let function = unsafe { space.entry::<extern "C" fn() -> i32>(answer)? };
    /// assert_eq!(function(), 42);
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish(&self, name: &str, chunk: &Chunk) -> Result<Published, Error> {
        let published = self.publish_all(&[(name, chunk)])?;
        published.first().copied().ok_or(FOREIGN)
    }

    /// Publishes up to 1024 chunks in one step, next to each other, each at its
    /// [alignment](Chunk::align), all or none.
    ///
    /// # Errors
    /// As [`Region::publish_all`], but [`Error::Bound`] where the code space may not
    /// grow as far as is needed; [`Error::NoRoom`] if it must grow at addresses where it
    /// can't; [`Error::Argument`] if it is more than a region of 1 GiB has room for.
    ///
    /// # Example
    /// ```
    /// # use jitfd::{Error, Rules, space::SpaceOptions, validate};
    /// # fn main() -> Result<(), Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let space = jit.space(jitfd::space::SpaceOptions::default())?;
    /// let nop = validate(&[0x90, 0xc3], &Rules::new())?;
    /// let ret = validate(&[0xc3], &Rules::new())?;
    /// for function in space.publish_all(&[("nop", &nop), ("ret", &ret)])? {
    ///     println!("{:#x}", function.address);
    /// }
    /// assert!(space.symbols().map(|symbol| symbol.name).eq(["nop", "ret"]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_all(&self, batch: &[(&str, &Chunk)]) -> Result<Vec<Published>, Error> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.check_owner(Call::Append)?;
        if batch.len() > MOST {
            // No region that is added would help.
            return Err(Error::Argument("one publication takes at most 1024 chunks"));
        }
        let mut news = self.news(batch.len(), Call::Append)?;
        let chunks = batch.iter().map(|&(_, chunk)| chunk);
        let mode = Mode::for_cursor(chunks.clone());
        let end = |at| end(at, chunks.clone(), mode);
        let functions = self.place(end, None, |_, area| {
            area.append(batch, &|to| self.begins_at(to))
        })?;
        let pairs = batch.iter().zip(&functions).take(news.capacity());
        news.extend(pairs.map(|(&(name, chunk), function)| Symbol {
            name,
            address: function.address,
            bytes: chunk.bytes(),
        }));
        self.tell(&news);
        Ok(functions)
    }

    /// Sets room aside and says at which address.
    ///
    /// # Errors
    /// As [`Region::reserve`], but [`Error::Bound`] where the code space may not grow
    /// as far as is needed; [`Error::NoRoom`] if it must grow at addresses where it can't;
    /// [`Error::Argument`] if it is more than a region of 1 GiB has room for.
    ///
    /// # Example
    /// ```
    /// use jitfd::space::Request;
    /// use jitfd::{Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let space = jit.space(jitfd::space::SpaceOptions::default())?;
    /// // Code that calls it can be made from now on.
    /// let slot = space.reserve(&Request { name: "callee", ..Request::new(64) })?;
    /// // Later, on another thread: it is compiled, or that fails.
    /// match validate(&[0xc3], &Rules::new()) {
    ///     Ok(chunk) => assert_eq!(space.fill(&slot, &chunk)?.address, slot.address),
    ///     Err(_) => space.abandon(slot),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn reserve(&self, request: &Request<'_>) -> Result<Slot, Error> {
        let part = Part {
            name: request.name,
            offset: 0,
            len: request.len,
        };
        self.reserve_parts(request.len, request.align, request.window, &[part])
    }

    pub(super) fn reserve_parts(
        &self,
        len: usize,
        align: Align,
        window: Option<Window>,
        parts: &[Part<'_>],
    ) -> Result<Slot, Error> {
        self.check_owner(Call::Reserve)?;
        let end = |at| align.up(at)?.checked_add(len);
        self.place(end, window, |number, area| {
            area.reserve((self.number, number), len, align, parts)
        })
    }

    /// Whether a function of this code space begins at `address`. Takes no lock.
    fn begins_at(&self, address: usize) -> bool {
        self.areas.iter().any(|area| area.begins_at(address))
    }

    /// The region that a slot is in, if that is one of this code space's.
    fn area_of(&self, slot: &Slot) -> Option<&Area> {
        let home = slot.home.filter(|home| home.space == self.number)?;
        self.areas.get(home.area)
    }

    /// Publishes `chunk` at the start of a slot. What it does not need remains
    /// trap bytes. Threads that fill different slots do not disturb each other.
    ///
    /// See the example of [`reserve`](Self::reserve).
    ///
    /// # Errors
    /// As [`Region::fill`]. The slot can be filled by another try then.
    pub fn fill(&self, slot: &Slot, chunk: &Chunk) -> Result<Published, Error> {
        self.check_owner(Call::Fill)?;
        let area = self.area_of(slot).ok_or(NOT_HERE)?;
        let whole = Part {
            name: "",
            offset: 0,
            len: chunk.len(),
        };
        let published = area.fill(slot, chunk, &[whole], &|to| self.begins_at(to))?;
        let name = self.lookup(slot.address).map_or("", |symbol| symbol.name);
        self.tell(&[Symbol {
            name,
            address: slot.address,
            bytes: chunk.bytes(),
        }]);
        Ok(published)
    }

    pub(super) fn fill_parts(
        &self,
        slot: &Slot,
        chunk: &Chunk,
        parts: &[Part<'_>],
    ) -> Result<(), Error> {
        self.check_owner(Call::Fill)?;
        let area = self.area_of(slot).ok_or(NOT_HERE)?;
        let mut news = self.news(parts.len(), Call::Fill)?;
        area.fill(slot, chunk, parts, &|to| self.begins_at(to))?;
        news.extend(parts.iter().take(news.capacity()).map(|part| {
            let bytes = chunk.bytes().get(part.offset..part.offset + part.len);
            let address = slot.address + part.offset;
            Symbol {
                name: part.name,
                address,
                bytes: bytes.unwrap_or_default(),
            }
        }));
        self.tell(&news);
        Ok(())
    }

    /// Gives a slot up, because compiling has failed for example. Its room is
    /// not used again, and counts as wasted.
    ///
    /// See the example of [`reserve`](Self::reserve).
    pub fn abandon(&self, slot: Slot) {
        if let Some(area) = self.area_of(&slot) {
            area.abandon(&slot);
        }
    }

    /// Reserves room, has `make` make the code for its address, and publishes it.
    /// If that fails, or `make` panics, the room counts as wasted.
    ///
    /// # Errors
    /// What `make` returns, or as [`reserve`](Self::reserve) and
    /// [`fill`](Self::fill).
    pub fn publish_with<E: From<Error>>(
        &self,
        request: &Request<'_>,
        make: impl FnOnce(usize) -> Result<Chunk, E>,
    ) -> Result<Published, E> {
        let slot = self.reserve(request)?;
        let open = Open { space: self, slot };
        let chunk = make(open.slot.address)?;
        Ok(self.fill(&open.slot, &chunk)?)
    }

    /// After `fork()`, in the child: makes this the child's own code space, a copy
    /// of its parent's at the same addresses, as [`Region::adopt`] does with each of
    /// its regions. Both go on publishing, each into its own.
    ///
    /// Without it a child is refused to publish ([`Kind::NotOwner`]), also if the
    /// regions were made for any process: the child would not know what its parent
    /// adds. Slots that were open at the `fork()` can be filled in both. What the
    /// parent publishes between the `fork()` and this call is not known by name in
    /// the child. In a region that was sealed, room is used again.
    ///
    /// Listeners are told of what the child publishes, in the child. Those that
    /// write files ([`PerfMap`](crate::tools::PerfMap),
    /// [`JitDump`](crate::tools::JitDump)) write the child's own then. `perf` takes
    /// what regions made for perf maps hold for code of a file from here on. A
    /// listener that waits for a lock ([`GdbJit`](crate::tools::GdbJit) does) can
    /// wait for ever, if a thread of the parent held it at the `fork()`.
    ///
    /// If the parent has several threads, call it before anything else in the child,
    /// and fork while none of them publishes: have a lock of the program's own that
    /// compilers hold while they publish, and that `fork()` is called under
    /// (`pthread_atfork` can take it and give it back). Else a busy parent's children
    /// are refused often, and for good; all that is left to them is to fork again.
    ///
    /// # Errors
    /// [`Error::Argument`] if another thread was publishing in this code space at
    /// the time of the `fork()`; else as for creating a region. A child can't publish
    /// then; another call can succeed, except after the former.
    ///
    /// # Example
    /// ```
    /// # use jitfd::{Rules, space::SpaceOptions, validate};
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let space = jit.space(jitfd::space::SpaceOptions::default())?;
    /// # let chunk = validate(&[0xc3], &Rules::new())?;
    /// // After fork(), in the child:
    /// space.adopt()?;
    /// space.publish("of the child", &chunk)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn adopt(&self) -> Result<(), Error> {
        let _growing = match self.growing.try_lock() {
            Ok(growing) => growing,
            Err(TryLockError::Poisoned(growing)) => growing.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(FORKED_MEANWHILE),
        };
        self.areas.iter().try_for_each(Area::adopt)?;
        match &self.owner {
            Some(owner) => owner
                .change()
                .map_err(|error| Error::system(Call::Owner, &error)),
            None => Ok(()),
        }
    }

    fn check_owner(&self, call: Call) -> Result<(), Error> {
        if self.owner.as_ref().is_none_or(Owner::is_current) {
            return Ok(());
        }
        Err(Error::of(call, libc::EPERM))
    }

    /// The published function that `address` lies in.
    ///
    /// It takes no lock, allocates nothing and makes no system call, so it can be
    /// called from a signal handler, also from one that has interrupted any
    /// other call on the same code space. It takes time in proportion to the
    /// number of regions and to the logarithm of that of the functions.
    ///
    /// A return address lies behind its call: look up the address minus 1. The
    /// stubs by which linked code goes far
    /// ([`RelocKind::Call32`](super::RelocKind::Call32)) are of no function.
    #[must_use]
    pub fn lookup(&self, address: usize) -> Option<Symbol<'_>> {
        self.areas.iter().find_map(|area| area.lookup(address))
    }

    /// All published functions; those of one region by ascending address.
    ///
    /// See the example of [`publish_all`](Self::publish_all).
    pub fn symbols(&self) -> impl Iterator<Item = Symbol<'_>> {
        self.areas.iter().flat_map(Area::symbols)
    }

    /// The regions there are, the oldest first.
    ///
    /// ```
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let space = jit.space(jitfd::space::SpaceOptions::default())?;
    /// for region in space.regions() {
    ///     let mapping = region.mapping();
    ///     println!("{} bytes at {:#x}", mapping.len(), mapping.address());
    /// }
    /// assert_eq!(space.regions().count(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.areas.iter().map(|area| &area.region)
    }

    /// How the bytes of the code space are used.
    ///
    /// See the example of [`SpaceStats`].
    #[must_use]
    pub fn stats(&self) -> SpaceStats {
        let each = self.areas.iter().map(Area::stats);
        each.fold(SpaceStats::default(), SpaceStats::plus)
    }

    /// Published code as a function that can be called.
    ///
    /// # Errors
    /// [`Error::Argument`] if it is of another code space.
    ///
    /// # Safety
    /// As [`Mapping::entry`](crate::Mapping::entry).
    #[expect(unsafe_code, reason = "the caller vouches for the function's type")]
    pub unsafe fn entry<F: CodePointer>(
        &self,
        published: Published,
    ) -> Result<Entry<'_, F>, Error> {
        let inside = |area: &&Area| published.address.wrapping_sub(area.base()) < area.capacity();
        let area = self.areas.iter().find(inside).ok_or(FOREIGN)?;
        // SAFETY: as promised by the caller; the region lives as long as `self`.
        unsafe { area.region.entry(published) }
    }

    /// Does `work` in the newest region that can take it, or in a new one. `end` says
    /// where it ends if it begins at a cursor.
    fn place<T>(
        &self,
        end: impl Fn(usize) -> Option<usize>,
        window: Option<Window>,
        work: impl Fn(usize, &Area) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut last = CROWDED;
        for _ in 0..TRIES {
            let seen = self.areas.len();
            for number in (0..seen).rev() {
                match self.try_in(number, &end, window, &work) {
                    Some(Err(error)) if error.kind() == Some(Kind::Full) => last = error,
                    Some(done) => return done,
                    None => {}
                }
            }
            self.grow(seen, end(self.options.lead), window)?;
        }
        Err(last)
    }

    fn try_in<T>(
        &self,
        number: usize,
        end: impl Fn(usize) -> Option<usize>,
        window: Option<Window>,
        work: impl Fn(usize, &Area) -> Result<T, Error>,
    ) -> Option<Result<T, Error>> {
        let area = self.areas.get(number)?;
        let fits = window.is_none_or(|window| window.contains(area.base(), area.capacity()));
        (fits && area.may_have_room(end)).then(|| work(number, area))
    }

    /// Adds a region of at least `need` bytes, its lead among them, unless another
    /// thread has added one since there were `seen`. `None` is more than there can be.
    fn grow(&self, seen: usize, need: Option<usize>, window: Option<Window>) -> Result<(), Error> {
        // A panic can't leave anything half done: the region is added last.
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.areas.len() != seen {
            return Ok(());
        }
        if !self.areas.make_room(1) {
            return Err(no_memory(Call::Create));
        }
        let (least, mut capacity) = self.next_capacity(need.unwrap_or(usize::MAX))?;
        let window = self.window(window);
        let area = loop {
            let mut region = self.options.region;
            if let Some(window) = window {
                // One look for all sizes: it takes long where there are many mappings.
                let (window, room) = near::largest(window, least, capacity)?;
                region.window = Some(window);
                capacity = room;
            }
            region.capacity = capacity;
            match Area::create(self.backend, region, self.options.lead) {
                // There may be addresses for a smaller one: the process may have no more,
                // or somebody was faster, with a view to write to perhaps.
                Err(error) if capacity > least && is_crowded(&error) => {
                    let half = Align::PAGE.up(capacity / 2).unwrap_or(least);
                    capacity = half.max(least);
                }
                other => break other?,
            }
        };
        self.areas.push(area).map_err(|_| TOO_MANY)?;
        Ok(())
    }

    /// The least capacity of the next region, and the one it is to have.
    fn next_capacity(&self, need: usize) -> Result<(usize, usize), Error> {
        let used: usize = self.areas.iter().map(Area::capacity).sum();
        let left = self.options.max_capacity.saturating_sub(used);
        // Regions are whole pages; the bound holds all the same.
        let left = left - left % Align::PAGE.bytes();
        let least = Align::PAGE.up(need).filter(|&least| least <= LARGEST);
        let least = least.ok_or(TOO_LARGE)?;
        let capacity = self.options.region.capacity.max(least).min(left);
        if capacity < least {
            return Err(Error::Bound {
                needed: need,
                used,
                bound: self.options.max_capacity,
            });
        }
        Ok((least, capacity))
    }

    /// Where the next region must lie.
    fn window(&self, asked: Option<Window>) -> Option<Window> {
        let all = [asked, self.options.region.window, self.around_all()];
        all.into_iter().flatten().reduce(Window::and)
    }

    /// What reaches all regions, if that is asked for.
    fn around_all(&self) -> Option<Window> {
        let first = self.areas.iter().map(Area::base).min();
        let last = self
            .areas
            .iter()
            .map(|area| area.base() + area.capacity())
            .max();
        let window = Window::reaching_all(first?, last?);
        self.options.together.then_some(window)
    }

    /// A list for what listeners are told once `call` has published `len` functions:
    /// with room for all of them, or for none if nobody listens.
    fn news<'a>(&self, len: usize, call: Call) -> Result<Vec<Symbol<'a>>, Error> {
        if self.options.listeners.is_empty() {
            return Ok(Vec::new());
        }
        room(len).ok_or(no_memory(call))
    }

    fn tell(&self, codes: &[Symbol<'_>]) {
        for listener in &self.options.listeners {
            listener.published(codes);
        }
    }
}

fn is_crowded(error: &Error) -> bool {
    matches!(error, Error::NoRoom { .. }) || error.kind() == Some(Kind::NoMemory)
}

/// A slot that is given up when this is dropped, unless it was filled.
struct Open<'a> {
    space: &'a CodeSpace,
    slot: Slot,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // A slot that was filled stays filled.
        if let Some(area) = self.space.area_of(&self.slot) {
            area.abandon(&self.slot);
        }
    }
}

impl fmt::Debug for CodeSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeSpace")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::fork::tests::{in_child, limit_addresses};
    use crate::os::near::tests::LOOKS;
    use crate::{Fallback, Jit, RegionOptions, Rules, validate};

    /// In a child that was forked while another thread held one of the locks.
    fn refused(space: &CodeSpace) -> u8 {
        let chunk = validate(&[0xc3], &Rules::new()).unwrap();
        let not_owner = |error: Option<Error>| error.and_then(|error| error.kind());
        let refused = [
            not_owner(space.publish("f", &chunk).err()),
            not_owner(space.reserve(&Request::new(8)).err()),
        ];
        let meanwhile = matches!(space.adopt(), Err(Error::Argument(_)));
        let right = |kind: &&Option<Kind>| **kind == Some(Kind::NotOwner);
        let count = refused.iter().filter(right).count() + usize::from(meanwhile);
        u8::try_from(count).unwrap()
    }

    /// Also if the region lies where that of the slot was.
    #[test]
    fn a_slot_is_of_one_code_space() {
        let backend = Fallback::Only(Backend::DualMapping);
        let jit = Jit::open(backend).unwrap();
        let old = jit.space(SpaceOptions::default()).unwrap();
        let mut slot = old.reserve(&Request::new(64)).unwrap();
        drop(old);
        let space = jit.space(SpaceOptions::default()).unwrap();
        let open = space.reserve(&Request::new(8)).unwrap();
        slot.address = open.address;
        let chunk = validate(&[0xc3], &Rules::new()).unwrap();
        assert_eq!(space.fill(&slot, &chunk), Err(NOT_HERE));
        space.abandon(slot);
        assert_eq!(space.stats().reserved, 8);
        assert!(space.fill(&open, &chunk).is_ok());
    }

    #[test]
    fn a_child_waits_for_no_lock_of_its_parents() {
        let backend = Fallback::Only(Backend::DualMapping);
        let jit = Jit::open(backend).unwrap();
        let space = jit.space(SpaceOptions::default()).unwrap();
        let area = space.areas.get(0).unwrap();
        let growing = space.growing.lock().unwrap();
        assert_eq!(in_child(|| refused(&space)), 3);
        drop(growing);
        let order = area.order();
        assert_eq!(in_child(|| refused(&space)), 3);
        drop(order);
        let state = area.region.lock(Call::Append).unwrap();
        assert_eq!(in_child(|| refused(&space)), 3);
        drop(state);
        assert_eq!(in_child(|| u8::from(space.adopt().is_ok())), 1);
    }

    const REGION: usize = 16 << 20;

    /// The gap is what a mapping leaves that is taken away again, in a child: no other
    /// thread maps anything there.
    #[test]
    fn a_region_gets_the_largest_gap_by_one_look() {
        const GAP: usize = 6 << 20;
        let reach = (1 << 31) - 4096;
        let status = in_child(|| {
            let taken = vec![0_u8; GAP + 4096];
            let gap = taken.as_ptr().addr().next_multiple_of(4096);
            drop(taken);
            let window = Window::reaching_all(gap + GAP - 4096 - reach, gap + reach);
            let jit = Jit::open(Fallback::Only(Backend::ProtectFlips)).unwrap();
            let region = RegionOptions {
                window: Some(window),
                ..Default::default()
            };
            let options = SpaceOptions {
                region,
                ..Default::default()
            };
            let looks = LOOKS.get();
            let space = jit.space(options).unwrap();
            let capacity = space.stats().capacity;
            let right = (LOOKS.get() - looks, capacity > GAP / 2, capacity <= GAP);
            u8::from(right == (1, true, true))
        });
        assert_eq!(status, 1);
    }

    #[test]
    fn a_region_is_smaller_if_there_are_no_more_addresses() {
        let backends = [Backend::DualMapping, Backend::ProtectFlips];
        let status = in_child(|| {
            let smaller = backends.into_iter().filter(|&backend| {
                let jit = Jit::open(Fallback::Only(backend)).unwrap();
                // Both map a region twice.
                limit_addresses(24 << 20);
                let space = jit.space(SpaceOptions::default());
                limit_addresses(1 << 40);
                let capacity = space.map(|space| space.stats().capacity);
                capacity.is_ok_and(|capacity| (1 << 20..REGION).contains(&capacity))
            });
            u8::try_from(smaller.count()).unwrap()
        });
        assert_eq!(status, 2);
    }
}
