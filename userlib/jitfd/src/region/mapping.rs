// SPDX-License-Identifier: MIT OR Apache-2.0

//! Executable memory that the process holds: finished code, or a view of a region.

use crate::entry::{CodePointer, Entry};
use crate::error::{Call, Error, NO_ENTRY};
use crate::os::near;
use crate::os::sys::Mapped;
use crate::os::window::Window;
use jitfd_code::internal::PAGE_SIZE;

/// Executable code that is mapped: one finished piece ([`Jit::code`](crate::Jit::code)),
/// or a region. Readable and executable, never writable through this address; unmapped
/// on drop.
///
/// ```
/// use jitfd::{Fallback, Jit, Rules, validate};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// // mov eax, 42; ret
/// let chunk = validate(&[0xb8, 42, 0, 0, 0, 0xc3], &Rules::new())?;
/// let code = Jit::open(Fallback::Any)?.code(&chunk)?;
/// println!("{} bytes at {:#x}", code.len(), code.address());
/// // SAFETY: the chunk is such a function.
/// let answer = unsafe { code.entry::<extern "C" fn() -> i32>(0)? };
/// assert_eq!(answer(), 42);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Mapping {
    pub(super) mapped: Mapped,
}

impl Mapping {
    pub(crate) const fn of(mapped: Mapped) -> Self {
        Self { mapped }
    }

    /// Moves a mapping that nobody uses yet into `window`, and so that profilers
    /// take it for anonymous memory.
    pub(crate) fn posing_as_memory(mut self, window: Option<Window>) -> Result<Self, Error> {
        let len = self.len();
        near::map(window, len, Call::Map, |at| self.mapped.pose_as_memory(at))?;
        Ok(self)
    }

    /// The address of the first byte. [`len`](Self::len) bytes can be read there.
    #[must_use]
    pub fn address(&self) -> usize {
        self.mapped.as_ptr().addr()
    }

    /// The number of bytes: of the code, or of what is mapped of the region.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.mapped.len()
    }

    /// The function at `offset`, in bytes from the first byte. It can't be called
    /// any more when this is dropped.
    ///
    /// # Errors
    /// [`Error::Argument`] if `offset` is not inside.
    ///
    /// # Safety
    /// The code at `offset` must be a function of exactly the type `F`, from now on
    /// and as long as the `Entry`, or a pointer taken out of it, is called. Such a
    /// pointer must not be called after this is dropped.
    ///
    /// # Example
    /// ```
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # // lea rax, [rdi + rdi]; ret
    /// # let bytes = [0x48, 0x8d, 0x04, 0x3f, 0xc3];
    /// # let code = jit.code(&jitfd::validate(&bytes, &jitfd::Rules::new())?)?;
    /// // SAFETY: the code at 0 is such a function.
    /// let double = unsafe { code.entry::<extern "C" fn(u64) -> u64>(0)? };
    /// assert_eq!(double(21), 42);
    /// # Ok(())
    /// # }
    /// ```
    #[expect(unsafe_code, reason = "the caller vouches for the function's type")]
    pub unsafe fn entry<F: CodePointer>(&self, offset: usize) -> Result<Entry<'_, F>, Error> {
        if offset >= self.len() {
            return Err(NO_ENTRY);
        }
        // SAFETY: as promised by the caller; the mapping lives as long as the borrow.
        Ok(unsafe { Entry::at(self.mapped.as_ptr().wrapping_add(offset)) })
    }

    /// Gives the mapping away: its address, and its length in bytes. It is
    /// leaked unless [`from_raw`](Self::from_raw) takes it back.
    ///
    /// ```
    /// use jitfd::{Fallback, Jit, Mapping, Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let chunk = validate(&[0xc3], &Rules::new())?;
    /// let code = Jit::open(Fallback::Any)?.code(&chunk)?;
    /// // For a table of the engine that knows plain addresses only.
    /// let (address, len) = code.into_raw();
    /// // SAFETY: these are the numbers from above, and nobody else took them over.
    /// let code = unsafe { Mapping::from_raw(address, len)? };
    /// assert_eq!(code.address(), address.addr());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn into_raw(self) -> (*const u8, usize) {
        self.mapped.into_raw()
    }

    /// Takes over the mapping of `len` bytes at `address`: from
    /// [`into_raw`](Self::into_raw), or put there by
    /// [`Jit::code_at`](crate::Jit::code_at).
    ///
    /// See the example of [`into_raw`](Self::into_raw).
    ///
    /// # Errors
    /// [`Error::Argument`] if `address` is null or `len` is 0.
    ///
    /// # Safety
    /// The pages belong to nobody else; they are unmapped on drop.
    #[expect(unsafe_code, reason = "takes over memory of the caller's choice")]
    pub unsafe fn from_raw(address: *const u8, len: usize) -> Result<Self, Error> {
        const NOTHING: Error = Error::Argument("there is no code at null, nor in 0 bytes");
        if len == 0 {
            return Err(NOTHING);
        }
        // SAFETY: as promised by the caller.
        let mapped = unsafe { Mapped::from_raw(address.expose_provenance(), len) };
        mapped.map(Self::of).ok_or(NOTHING)
    }
}

pub(crate) fn check_page(at: *mut u8) -> Result<(), Error> {
    if at.is_null() || at.addr() % PAGE_SIZE != 0 {
        return Err(Error::Argument("code is put at the start of a page"));
    }
    Ok(())
}
