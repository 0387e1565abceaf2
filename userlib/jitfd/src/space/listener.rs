// SPDX-License-Identifier: MIT OR Apache-2.0

//! Listeners, which are told of published code.

/// Code that was just published.
///
/// ```
/// use jitfd::space::NewCode;
/// use jitfd::tools::GdbJit;
///
/// # use jitfd::{Fallback, Jit, Rules, validate};
/// # fn main() -> Result<(), jitfd::Error> {
/// # let chunk = validate(&[0xc3], &Rules::new())?;
/// # let code = Jit::open(Fallback::Any)?.code(&chunk)?;
/// // `code` is of `Jit::code`, which asks for no name.
/// let gdb = GdbJit::new();
/// gdb.add(&[NewCode::new("trampoline", code.address(), chunk.bytes())], &[]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewCode<'a> {
    /// The name it was given, or an empty one.
    pub name: &'a str,
    /// The address of its first byte.
    pub address: usize,
    /// The bytes, as they were published.
    pub bytes: &'a [u8],
}

impl<'a> NewCode<'a> {
    /// For code that was published by other means than a
    /// [`CodeSpace`](super::CodeSpace).
    #[must_use]
    pub const fn new(name: &'a str, address: usize, bytes: &'a [u8]) -> Self {
        Self {
            name,
            address,
            bytes,
        }
    }
}

/// Is told of code after it was published and before the publishing call
/// returns. Each publishing thread does so itself, so several may at once. No
/// lock of the library is held. Nobody is told of a code space that is dropped.
///
/// A panic passes through the publishing call. The code is published then all the same
/// ([`lookup`](super::CodeSpace::lookup) finds it), and listeners that come later are
/// not told.
///
/// ```
/// use jitfd::space::{Listener, NewCode, SpaceOptions};
/// use jitfd::{Fallback, Jit, Rules, validate};
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// #[derive(Default)]
/// struct Bytes(AtomicUsize);
///
/// impl Listener for Bytes {
///     fn published(&self, codes: &[NewCode<'_>]) {
///         let bytes = codes.iter().map(|code| code.bytes.len()).sum();
///         self.0.fetch_add(bytes, Ordering::Relaxed);
///     }
/// }
///
/// let bytes = Arc::new(Bytes::default());
/// let space = Jit::open(Fallback::Any)?.space(SpaceOptions {
///     listeners: vec![bytes.clone()],
///     ..Default::default()
/// })?;
/// space.publish("nop", &validate(&[0x90, 0xc3], &Rules::new())?)?;
/// assert_eq!(bytes.0.load(Ordering::Relaxed), 2);
/// # Ok(())
/// # }
/// ```
pub trait Listener: Send + Sync {
    /// `codes`, at least one, were published as one and are executable now. They
    /// are in one region, by ascending address.
    fn published(&self, codes: &[NewCode<'_>]);
}
