// SPDX-License-Identifier: MIT OR Apache-2.0

//! Listeners, which are told of published code.

/// A published function: one that is found by an address, or that a listener is told
/// of.
///
/// ```
/// use jitfd::space::Symbol;
/// use jitfd::{Rules, validate};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
/// # let space = jit.space(jitfd::space::SpaceOptions::default())?;
/// let nop = space.publish("nop", &validate(&[0x90, 0xc3], &Rules::new())?)?;
/// // A return address of some backtrace lies behind its call.
/// let return_address = nop.address + 1;
/// if let Some(Symbol { name, address, bytes }) = space.lookup(return_address - 1) {
///     println!("{name}+{:#x} of {}", return_address - address, bytes.len());
/// }
/// # Ok(())
/// # }
/// ```
///
/// Code that was published by other means than a [`CodeSpace`](super::CodeSpace) has
/// no name. Tools are told of it by a value made for it:
///
/// ```
/// use jitfd::space::Symbol;
/// use jitfd::tools::GdbJit;
///
/// # use jitfd::{Fallback, Jit, Rules, validate};
/// # fn main() -> Result<(), jitfd::Error> {
/// # let chunk = validate(&[0xc3], &Rules::new())?;
/// # let code = Jit::open(Fallback::Any)?.code(&chunk)?;
/// let gdb = GdbJit::default();
/// let (address, bytes) = (code.address(), chunk.bytes());
/// gdb.add(&[Symbol { name: "trampoline", address, bytes }], &[]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// The name that it was published with, or an empty one.
    pub name: &'a str,
    /// The address of its first byte.
    pub address: usize,
    /// The bytes, as they were published.
    pub bytes: &'a [u8],
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
/// use jitfd::space::{Listener, Symbol, SpaceOptions};
/// use jitfd::{Fallback, Jit, Rules, validate};
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// #[derive(Default)]
/// struct Bytes(AtomicUsize);
///
/// impl Listener for Bytes {
///     fn published(&self, codes: &[Symbol<'_>]) {
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
    fn published(&self, codes: &[Symbol<'_>]);
}
