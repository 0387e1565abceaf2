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
//! Owner: each VMA holds a reference to a [`Mapping`].

use kernel::{
    alloc::Flags,
    current,
    mm::Mm,
    prelude::*,
    rbtree::{RBTree, RBTreeNode},
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        new_spinlock, Arc, ArcBorrow, SpinLock, UniqueArc,
    },
};

use crate::{
    error::quota,
    ffi, parameters,
    region::Region,
    user::{Made, Membership},
};

/// Which holder it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// An address space of the region's own user, by its address.
    Own(usize),
    /// Another user.
    Other(u32),
}

/// The mappings of one holder.
struct Holder {
    key: Key,
    /// Keeps an address in the key from being used for another address space.
    _mm: Option<ARef<Mm>>,
    mappings: Atomic<i64>,
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
    fn join(&self, key: Key, mm: &Mm, bound: i64, flags: Flags) -> Result<Arc<Holder>> {
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
    fn leave(&self, holder: &Arc<Holder>) {
        let mut list = self.list.lock();
        if holder.mappings.fetch_sub(1, Relaxed) != 1 {
            return;
        }
        let gone = list.remove_node(&holder.key);
        drop(list);
        drop(gone);
    }
}

/// What a VMA refers to. Its parts and copies share it, and count each, if they are
/// the same user's and the same holder's.
///
/// # Invariants
///
/// It is counted once for each VMA that refers to it.
pub(crate) struct Mapping {
    region: Arc<Region>,
    /// None where nothing will ever be swapped.
    holder: Option<Arc<Holder>>,
    member: Membership,
    /// None for a copy.
    _made: Option<Made>,
}

impl Mapping {
    /// A new mapping of `region` by the caller, for one VMA. Fails with `ENOMEM`
    /// or `EDQUOT`.
    pub(crate) fn new(region: Arc<Region>) -> Result<Arc<Self>> {
        let current = current!();
        let mm = current.mm().ok_or(EINVAL)?;
        let member = Membership::of_caller()?;
        // Allocated first: what is counted stays.
        let mut mapping = UniqueArc::new(
            Mapping {
                region,
                holder: None,
                member,
                _made: Some(Made::new()?),
            },
            ffi::CHARGED,
        )?;
        mapping.member.count_mapping()?;
        let holder = mapping
            .join(mm, parameters::holder_mappings(), ffi::CHARGED)
            .inspect_err(|_| mapping.member.forget_mapping())?;
        mapping.holder = holder;
        Ok(mapping.into())
    }

    /// What a copy or a part of a VMA of `original`, in `mm`, refers to. It can't be
    /// refused, but counts for whoever asked for it.
    pub(crate) fn of_copy(original: ArcBorrow<'_, Self>, mm: &Mm) -> Arc<Self> {
        let user = ffi::accountable_uid();
        if !original.is_of(user, mm) {
            if let Ok(mapping) = Mapping::counted_for(original.region.clone(), user, mm) {
                return mapping;
            }
        }
        original.count_copy();
        original.into()
    }

    fn is_of(&self, user: u32, mm: &Mm) -> bool {
        let is_holder = |holder: &Arc<Holder>| holder.key == self.region.key_of(user, mm);
        self.member.id() == user && self.holder.as_ref().is_none_or(is_holder)
    }

    fn counted_for(region: Arc<Region>, user: u32, mm: &Mm) -> Result<Arc<Self>> {
        let member = Membership::of(user, ffi::SURELY)?;
        let mut mapping = UniqueArc::new(
            Mapping {
                region,
                holder: None,
                member,
                _made: None,
            },
            ffi::SURELY,
        )?;
        mapping.holder = mapping.join(mm, i64::MAX, ffi::SURELY)?;
        mapping.member.count_mapping_copy();
        Ok(mapping.into())
    }

    fn join(&self, mm: &Mm, bound: i64, flags: Flags) -> Result<Option<Arc<Holder>>> {
        if self.region.is_sealed() {
            return Ok(None);
        }
        let key = self.region.key_of(self.member.id(), mm);
        self.region.holders.join(key, mm, bound, flags).map(Some)
    }

    /// What is mapped.
    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// The user for which it counts.
    pub(crate) fn user(&self) -> u32 {
        self.member.id()
    }

    /// Whether a child that is forked has it too.
    pub(crate) fn is_inherited(&self) -> bool {
        let is_own = |holder: &Arc<Holder>| matches!(holder.key, Key::Own(_));
        self.holder.as_ref().is_none_or(is_own)
    }

    /// There is one VMA more.
    fn count_copy(&self) {
        self.member.count_mapping_copy();
        if let Some(holder) = &self.holder {
            holder.mappings.fetch_add(1, Relaxed);
        }
    }

    /// There is one less.
    pub(crate) fn forget_one(&self) {
        self.member.forget_mapping();
        if let Some(holder) = &self.holder {
            self.region.holders.leave(holder);
        }
    }
}

impl Region {
    /// As which holder `user` maps it into `mm`.
    fn key_of(&self, user: u32, mm: &Mm) -> Key {
        match self.account.user().id() == user {
            true => Key::Own(mm.as_raw().addr()),
            false => Key::Other(user),
        }
    }
}
