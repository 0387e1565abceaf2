// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lists whose length a caller decides, allocated so that lack of memory is an
//! error and no abort. Whatever a call needs after a publication is allocated
//! before it, since a publication can't be taken back.

use crate::error::{Call, Error};
use std::ops::{Deref, DerefMut};

/// An empty list with room for `len` items; `None` without memory for them.
pub(crate) fn room<T>(len: usize) -> Option<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(len).ok()?;
    Some(list)
}

/// The items as a list; `None` without memory for it.
pub(crate) fn list<T>(items: impl ExactSizeIterator<Item = T>) -> Option<Vec<T>> {
    let mut list = room(items.len())?;
    list.extend(items);
    Some(list)
}

/// A list that gets no memory if it has one item, as most publications do.
pub(crate) enum Few<T> {
    One([T; 1]),
    Many(Vec<T>),
}

/// The items as such a list; `None` without memory for it.
pub(crate) fn few<T>(mut items: impl ExactSizeIterator<Item = T>) -> Option<Few<T>> {
    if items.len() == 1 {
        return items.next().map(|item| Few::One([item]));
    }
    list(items).map(Few::Many)
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

/// A copy of a text; `None` without memory for it.
pub(crate) fn text(text: &str) -> Option<Box<str>> {
    let mut copy = String::new();
    copy.try_reserve_exact(text.len()).ok()?;
    copy.push_str(text);
    Some(copy.into_boxed_str())
}

/// What `call` fails with then.
pub(crate) const fn no_memory(call: Call) -> Error {
    Error::of(call, libc::ENOMEM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn what_there_is_no_memory_for_is_none() {
        assert_eq!(room::<u64>(usize::MAX), None);
        assert_eq!(room::<u64>(usize::MAX / 8), None);
        assert_eq!(list([1, 2].into_iter()), Some(vec![1, 2]));
        for len in 0..3 {
            let items = few((0..len).collect::<Vec<_>>().into_iter()).unwrap();
            assert!(items.iter().copied().eq(0..len));
        }
        assert_eq!(text("name").as_deref(), Some("name"));
        assert_eq!(no_memory(Call::Append).kind(), Some(Kind::NoMemory));
    }
}
