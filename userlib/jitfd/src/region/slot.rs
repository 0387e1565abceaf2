// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where code lies, and where it is still to come: in a region, or in one of a code
//! space.

/// Code that was published, and is executable.
///
/// ```
/// use jitfd::{Rules, Published, validate};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
/// # let region = jit.region(1 << 20)?;
/// let nop = validate(&[0x90, 0xc3], &Rules::new())?;
/// let Published { offset, address, len, .. } = region.publish(&nop)?;
/// assert_eq!((offset, len), (0, 2));
/// println!("nop is at {address:#x}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// In bytes from the start of the region: in a code space, of the one it is in.
    pub offset: usize,
    /// The address in this process.
    pub address: usize,
    /// The number of bytes.
    pub len: usize,
}

/// Room whose address is known and whose code is still to come: what
/// [`Region::reserve`](crate::Region::reserve) and
/// [`CodeSpace::reserve`](crate::CodeSpace::reserve) return. It is filled in the region
/// or code space that it is of.
///
/// Executing it before it is filled raises a signal: `SIGTRAP`, or on a page without any
/// code the one that [`Backend`](crate::Backend) names.
///
/// ```
/// use jitfd::{Align, Slot};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
/// # let region = jit.region(1 << 20)?;
/// let slot: Slot = region.reserve(100, Align::FUNCTION)?;
/// println!("{} bytes from {:#x} on are no code yet", slot.len, slot.address);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Slot {
    /// In bytes from the start of the region: in a code space, of the one it is in.
    pub offset: usize,
    /// The address in this process.
    pub address: usize,
    /// The number of bytes.
    pub len: usize,
    /// `None` if it is of a region.
    pub(crate) home: Option<Home>,
}

/// What a code space knows a slot by. Addresses are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    /// The number of the code space.
    pub(crate) space: u64,
    /// That of the region in it.
    pub(crate) area: usize,
    /// The first of the entries of the index that the slot has.
    pub(crate) entry: usize,
    /// The slot's length.
    pub(crate) len: usize,
}
