// SPDX-License-Identifier: MIT OR Apache-2.0

//! The rules that a program can set for validation, and the defaults.

use crate::error::{CodeError, Reason};
use crate::forbid::{Class, Forbidden};
use std::ops::Range;
use std::sync::Arc;

/// What a chunk may be, where its data is and where it may be entered.
///
/// The default is what is right for every chunk; the rest tightens it.
///
/// ```
/// use jitfd::{Rules, validate};
///
/// // mov eax, [rip + 1]; ret; and the four bytes that it loads.
/// let code = [0x8b, 0x05, 1, 0, 0, 0, 0xc3, 42, 0, 0, 0];
/// let chunk = validate(&code, &Rules::new().data(7..11)).unwrap();
/// assert!(chunk.holds_data());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Whether branches may go behind a `lock` prefix.
    pub(crate) lock_skips: bool,
    pub(crate) data: Vec<Range<usize>>,
    /// `None` if every instruction is one.
    pub(crate) entries: Option<Vec<usize>>,
    pub(crate) endbr64: bool,
    /// Ascending; `None` if branches may leave to anywhere.
    pub(crate) leaves: Option<Arc<[usize]>>,
    pub(crate) each: EachInstruction,
    /// `None` for as many as the process may use.
    pub(crate) threads: Option<usize>,
}

/// The rules that each single instruction has to follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EachInstruction {
    pub(crate) forbidden: Forbidden,
    /// Whether none may cross a line of 64 bytes.
    pub(crate) within_lines: bool,
}

impl Rules {
    /// No data, and branches behind a `lock` prefix are refused. Everything else
    /// is as [`validate`](crate::validate) says.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            lock_skips: false,
            data: Vec::new(),
            entries: None,
            endbr64: false,
            leaves: None,
            each: EachInstruction {
                forbidden: Forbidden::NOTHING,
                within_lines: false,
            },
            threads: None,
        }
    }

    /// Allows direct branches that go behind the `lock` prefix of an instruction.
    /// They are not always mistakes: glibc has five, which take the prefix only if
    /// there is more than one thread. [`Chunk::lock_skips`](crate::Chunk::lock_skips)
    /// lists them.
    ///
    /// ```
    /// use jitfd::{Reason, Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// // je, one byte ahead; lock inc dword ptr [rdi]; ret
    /// let code = [0x74, 1, 0xf0, 0xff, 0x07, 0xc3];
    /// let error = validate(&code, &Rules::new()).unwrap_err();
    /// assert_eq!(error.reason, Reason::SkipsLock { target: 3 });
    /// let chunk = validate(&code, &Rules::new().allow_lock_skips())?;
    /// assert_eq!(chunk.lock_skips(), [3]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn allow_lock_skips(mut self) -> Self {
        self.lock_skips = true;
        self
    }

    /// Declares bytes of the chunk as data: constants, jump tables. Offsets are
    /// in bytes from the start of the chunk. Ranges may come in any order.
    #[must_use]
    pub fn data(mut self, range: Range<usize>) -> Self {
        self.data.push(range);
        self
    }

    /// Gets the memory for this many more data ranges and entries now, so that
    /// declaring them can't fail: for programs that handle lack of memory. Room for
    /// entries is as [`entries_only`](Self::entries_only).
    ///
    /// # Errors
    /// [`Reason::NoMemory`](crate::Reason::NoMemory).
    #[doc(hidden)]
    pub fn try_reserve(mut self, data: usize, entries: usize) -> Result<Self, CodeError> {
        let mut room = self.data.try_reserve(data).is_ok();
        if entries > 0 {
            let all = self.entries.get_or_insert_default();
            room &= all.try_reserve(entries).is_ok();
        }
        room.then_some(self).ok_or_else(CodeError::no_memory)
    }

    /// Declares that the instruction at `offset`, in bytes from the start of the
    /// chunk, may be entered from other chunks. From the first call on, only
    /// declared entries may be. Branches inside the chunk are free.
    ///
    /// ```
    /// use jitfd::{Rules, validate};
    ///
    /// let chunk = validate(&[0x90, 0x90, 0xc3], &Rules::new().entry(0)).unwrap();
    /// assert!(chunk.is_entry(0) && !chunk.is_entry(1));
    /// ```
    #[must_use]
    pub fn entry(mut self, offset: usize) -> Self {
        self.entries.get_or_insert_default().push(offset);
        self
    }

    /// Declares that only declared entries may be entered from other chunks,
    /// even if there are none.
    ///
    /// ```
    /// use jitfd::{Rules, validate};
    ///
    /// // Reached by pointers only: no branch of another chunk may go here.
    /// let chunk = validate(&[0x90, 0xc3], &Rules::new().entries_only()).unwrap();
    /// assert!(chunk.is_boundary(0) && !chunk.is_entry(0));
    /// ```
    #[must_use]
    pub fn entries_only(mut self) -> Self {
        self.entries.get_or_insert_default();
        self
    }

    /// Declares all addresses outside of the region or code space that direct branches
    /// of the chunk may go to: the functions of the runtime that it calls. Else they
    /// stay in the chunk, or go to an entry in the region where it is published, or to
    /// the start of a function in another region of the code space.
    ///
    /// It is checked when the chunk is published, since its address has to be known;
    /// a call that was assembled for another address is the commonest mistake of an
    /// emitter. An `AppendHandle`, which knows no address, refuses chunks with such
    /// branches. A region without a map of boundaries takes each of its own addresses
    /// for an entry. A further call adds to the addresses; without one, branches that
    /// leave the region are not checked.
    ///
    /// ```
    /// use jitfd::{Error, Reason, Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let region = jit.region(4096)?;
    /// extern "C" fn helper() {}
    /// let rules = Rules::new().leaves_only_to([helper as *const () as usize]);
    /// // jmp, 1 GiB ahead: for whatever address that was meant, it is not here.
    /// let chunk = validate(&[0xe9, 0, 0, 0, 0x40], &rules)?;
    /// match region.publish(&chunk) {
    ///     Err(Error::Code(error)) => assert!(matches!(error.reason, Reason::LeavesTo { .. })),
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn leaves_only_to(mut self, addresses: impl IntoIterator<Item = usize>) -> Self {
        let known = self.leaves.take();
        let known = known.iter().flat_map(|known| known.iter().copied());
        let mut all: Vec<_> = known.chain(addresses).collect();
        all.sort_unstable();
        all.dedup();
        self.leaves = Some(all.into());
        self
    }

    /// Requires `endbr64` at each declared [`entry`](Self::entry). If there is
    /// none, the first byte of the chunk is the one entry.
    ///
    /// ```
    /// use jitfd::{Rules, Reason, validate};
    ///
    /// let options = Rules::new().endbr64();
    /// assert!(validate(&[0xf3, 0x0f, 0x1e, 0xfa, 0xc3], &options).is_ok());
    /// let error = validate(&[0xc3], &options).unwrap_err();
    /// assert_eq!(error.reason, Reason::NoEndbr64);
    /// ```
    #[must_use]
    pub const fn endbr64(mut self) -> Self {
        self.endbr64 = true;
        self
    }

    /// Forbids a class of instructions. Costs nothing worth measuring.
    ///
    /// ```
    /// use jitfd::{Class, Rules, Reason, validate};
    ///
    /// let options = Rules::new().forbid(Class::SystemCalls);
    /// let error = validate(&[0x0f, 0x05, 0xc3], &options).unwrap_err();
    /// assert_eq!(error.reason, Reason::Forbidden { class: Class::SystemCalls });
    /// ```
    #[must_use]
    pub const fn forbid(mut self, class: Class) -> Self {
        self.each.forbidden.class(class);
        self
    }

    /// Forbids all instructions of this mnemonic, by its name in Intel's manual,
    /// in any case. Of several names for one, such as `jz` and `je`, each does; but
    /// `sal` and `shl` are told apart by their encoding. Every instruction then takes the full decoder, which makes
    /// validation about half as fast.
    ///
    /// # Errors
    /// [`Reason::NoMnemonic`] if no instruction has this name.
    ///
    /// # Example
    /// ```
    /// use jitfd::{Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let options = Rules::new().forbid_mnemonic("rdtsc")?;
    /// assert!(validate(&[0x0f, 0x31, 0xc3], &options).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn forbid_mnemonic(mut self, name: &str) -> Result<Self, CodeError> {
        let known = self.each.forbidden.name(name);
        let unknown = || {
            CodeError::whole(Reason::NoMnemonic {
                name: name.to_owned(),
            })
        };
        known.then_some(self).ok_or_else(unknown)
    }

    /// Requires that no instruction crosses a border of 64 bytes, so that one
    /// fetch sees all of it: see "Which instruction is whole, and when" in
    /// `Documentation/userspace-api/jit.rst`. The chunk then is aligned to 64
    /// bytes wherever it is published. [`LineWriter`](crate::LineWriter) lays
    /// code out like this.
    ///
    /// ```
    /// use jitfd::{Rules, Reason, validate};
    ///
    /// // 60 NOPs; mov eax, 42, on both sides of the border
    /// let code = [&[0x90; 60][..], &[0xb8, 42, 0, 0, 0]].concat();
    /// let error = validate(&code, &Rules::new().within_lines()).unwrap_err();
    /// assert_eq!((error.offset, error.reason), (60, Reason::CrossesLine));
    /// ```
    #[must_use]
    pub const fn within_lines(mut self) -> Self {
        self.each.within_lines = true;
        self
    }

    /// Sets how many threads may work on one chunk of more than 1 MiB. 1 starts
    /// none; unless set, as many as the process may use.
    ///
    /// ```
    /// use jitfd::{Rules, validate};
    ///
    /// // A compiler that has a thread for each CPU itself.
    /// let image = vec![0x90; 2 << 20];
    /// assert!(validate(&image, &Rules::new().threads(1)).is_ok());
    /// ```
    #[must_use]
    pub const fn threads(mut self, most: usize) -> Self {
        self.threads = Some(most);
        self
    }

    /// Whether no instruction may cross a line.
    #[doc(hidden)]
    #[must_use]
    pub const fn keeps_within_lines(&self) -> bool {
        self.each.within_lines
    }

    /// Whether only declared entries may be entered.
    #[doc(hidden)]
    #[must_use]
    pub const fn has_entries(&self) -> bool {
        self.entries.is_some()
    }

    /// Declares `count` further data ranges.
    ///
    /// # Errors
    /// [`Reason::NoMemory`](crate::Reason::NoMemory).
    #[doc(hidden)]
    pub fn add_data(
        &mut self,
        count: usize,
        ranges: impl Iterator<Item = Range<usize>>,
    ) -> Result<(), CodeError> {
        let room = self.data.try_reserve(count);
        room.map_err(|_| CodeError::no_memory())?;
        self.data.extend(ranges.take(count));
        Ok(())
    }

    /// Declares `starts`, of which there are at most `count`, as further entries: if
    /// entries are asked for at all.
    ///
    /// # Errors
    /// [`Reason::NoMemory`](crate::Reason::NoMemory).
    #[doc(hidden)]
    pub fn add_starts(
        &mut self,
        count: usize,
        starts: impl Iterator<Item = usize>,
    ) -> Result<(), CodeError> {
        if self.entries.is_none() && !self.endbr64 {
            return Ok(());
        }
        let entries = self.entries.get_or_insert_default();
        let room = entries.try_reserve(count);
        room.map_err(|_| CodeError::no_memory())?;
        entries.extend(starts.take(count));
        // Without any, that would be asked of the first byte, which is data.
        self.endbr64 &= !entries.is_empty();
        Ok(())
    }
}
