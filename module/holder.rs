// SPDX-License-Identifier: GPL-2.0

//! How often one address space maps one region. It is bounded, so that a
//! process which may only map a region can't make its publications expensive.
//!
//! Lock order: mmap_lock → [`Holders::list`] (spinlock; nothing is allocated or
//! freed under it).
//! Owner: each VMA holds a reference to a [`Mapping`].

use kernel::{
    current,
    mm::Mm,
    prelude::*,
    rbtree::{RBTree, RBTreeNode},
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        new_spinlock, Arc, SpinLock, UniqueArc,
    },
};

use crate::{error::quota, ffi, parameters, region::Region, user::Membership};

/// The mappings that one address space has made, and those that its children
/// inherited: forking can't be refused, but counts.
struct Holder {
    /// Keeps the address from being used for another address space.
    mm: ARef<Mm>,
    mappings: Atomic<i64>,
}

impl Holder {
    fn key(&self) -> usize {
        self.mm.as_raw().addr()
    }
}

/// Those of one region, by the address of the address space.
#[pin_data]
pub(crate) struct Holders {
    #[pin]
    list: SpinLock<RBTree<usize, Arc<Holder>>>,
}

impl Holders {
    /// None.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Holders {
            list <- new_spinlock!(RBTree::new(), "jit_holders"),
        })
    }

    /// The holder of `mm`, with one mapping more.
    fn join(&self, mm: ARef<Mm>) -> Result<Arc<Holder>> {
        let new = Holder {
            mm,
            mappings: Atomic::new(0),
        };
        let key = new.key();
        let new = Arc::new(new, ffi::CHARGED)?;
        let node = RBTreeNode::new(key, new.clone(), ffi::CHARGED)?;
        let mut list = self.list.lock();
        let known = list.get(&key).cloned();
        let holder = known.as_ref().unwrap_or(&new).clone();
        let is_full = holder.mappings.load(Relaxed) >= parameters::holder_mappings();
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
        let gone = list.remove_node(&holder.key());
        drop(list);
        drop(gone);
    }
}

/// What a VMA refers to. Its parts and copies share it, and count each.
///
/// # Invariants
///
/// It is counted once for each VMA that refers to it.
pub(crate) struct Mapping {
    region: Arc<Region>,
    /// None where nothing will ever be swapped.
    holder: Option<Arc<Holder>>,
    member: Membership,
}

impl Mapping {
    /// A new mapping of `region` by the caller, for one VMA. Fails with `ENOMEM`
    /// or `EDQUOT`.
    pub(crate) fn new(region: Arc<Region>) -> Result<Arc<Self>> {
        let member = Membership::of_caller()?;
        // Allocated first: what is counted stays.
        let mut mapping = UniqueArc::new(
            Mapping {
                region,
                holder: None,
                member,
            },
            ffi::CHARGED,
        )?;
        mapping.member.count_mapping()?;
        let holder = mapping.join().inspect_err(|_| {
            mapping.member.forget_mapping();
        })?;
        mapping.holder = holder;
        Ok(mapping.into())
    }

    fn join(&self) -> Result<Option<Arc<Holder>>> {
        if self.region.is_sealed() {
            return Ok(None);
        }
        let current = current!();
        let mm = current.mm().ok_or(EINVAL)?;
        self.region.holders.join(ARef::from(&**mm)).map(Some)
    }

    /// What is mapped.
    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// There is one VMA more, which can't be refused: a part or a copy.
    pub(crate) fn count_copy(&self) {
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
