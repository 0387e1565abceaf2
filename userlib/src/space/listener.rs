// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who is told of published code.

/// Code that was just published.
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
/// returns, in the publishing thread, so by several threads at once. No lock of
/// the library is held.
///
/// ```
/// use jitfd::space::{Listener, NewCode};
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// #[derive(Default)]
/// struct Bytes(AtomicUsize);
///
/// impl Listener for Bytes {
///     fn published(&self, codes: &[NewCode<'_>]) {
///         let bytes = codes.iter().map(|code| code.bytes.len()).sum();
///         self.0.fetch_add(bytes, Ordering::Relaxed);
///     }
/// }
/// ```
pub trait Listener: Send + Sync {
    /// `codes`, at least one, were published as one and are executable now. They
    /// are in one region, by ascending address.
    fn published(&self, codes: &[NewCode<'_>]);
}
