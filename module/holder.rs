// SPDX-License-Identifier: GPL-2.0

//! How often one holder maps one region: who only may map must not make the
//! region's publications expensive.
//!
//! A holder is another user than the region's, in all of its processes together; of the
//! region's own user, who could only hurt themselves, it is one address space. What
//! another user maps is not inherited by fork, which can't be refused and would multiply
//! it.
//!
//! Lock order: mmap_lock → [`Holders::list`] (spinlock; nothing is allocated or
//! freed under it).
//! Owner: the region; each of its mappings (`mapping.rs`) holds its holder.

use kernel::{
    alloc::Flags,
    mm::Mm,
    prelude::*,
    rbtree::{RBTree, RBTreeNode},
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        new_spinlock, Arc, SpinLock,
    },
};

use crate::error::quota;

/// Which holder it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// An address space of the region's own user, by its address.
    Own(usize),
    /// Another user.
    Other(u32),
}

/// The mappings of one holder.
pub(crate) struct Holder {
    key: Key,
    /// Keeps an address in the key from being used for another address space.
    _mm: Option<ARef<Mm>>,
    mappings: Atomic<i64>,
}

impl Key {
    /// As which holder `user` maps a region of the user `owner` into `mm`.
    pub(crate) fn new(owner: u32, user: u32, mm: &Mm) -> Self {
        match owner == user {
            true => Key::Own(mm.as_raw().addr()),
            false => Key::Other(user),
        }
    }
}

impl Holder {
    /// Which it is.
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// There is one mapping more.
    pub(crate) fn count_copy(&self) {
        self.mappings.fetch_add(1, Relaxed);
    }
}

/// Those of one region.
#[pin_data]
pub(crate) struct Holders {
    #[pin]
    list: SpinLock<RBTree<Key, Arc<Holder>>>,
}

impl Holders {
    /// None.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Holders {
            list <- new_spinlock!(RBTree::new(), "jit_holders"),
        })
    }

    /// The holder with `key`, with one mapping more, if it has less than `bound`.
    pub(crate) fn join(&self, key: Key, mm: &Mm, bound: i64, flags: Flags) -> Result<Arc<Holder>> {
        let new = Holder {
            key,
            _mm: matches!(key, Key::Own(_)).then(|| mm.into()),
            mappings: Atomic::new(0),
        };
        let new = Arc::new(new, flags)?;
        let node = RBTreeNode::new(key, new.clone(), flags)?;
        let mut list = self.list.lock();
        let known = list.get(&key).cloned();
        let holder = known.as_ref().unwrap_or(&new).clone();
        let is_full = holder.mappings.load(Relaxed) >= bound;
        if is_full {
            drop(list);
            return Err(quota());
        }
        holder.mappings.fetch_add(1, Relaxed);
        let unused = match known {
            Some(_) => Some(node),
            None => list.insert(node),
        };
        // What is not needed is freed after the lock.
        drop(list);
        drop(unused);
        Ok(holder)
    }

    /// One mapping less of `holder`.
    pub(crate) fn leave(&self, holder: &Arc<Holder>) {
        let mut list = self.list.lock();
        if holder.mappings.fetch_sub(1, Relaxed) != 1 {
            return;
        }
        let gone = list.remove_node(&holder.key);
        drop(list);
        drop(gone);
    }
}
