// SPDX-License-Identifier: GPL-2.0

//! What a VMA of a region refers to: whom it counts for. And in which process the
//! pages of a region show up, which is one that maps it.
//!
//! Lock order: mmap_lock → the lock of [`Holders`](crate::holder::Holders);
//! `i_mmap_rwsem` → the lock of an account's home.
//! Context: process.
//! Owner: each VMA holds a reference to a [`Mapping`] in its `vm_private_data`.

use kernel::{
    alloc::Flags,
    bindings, current,
    mm::Mm,
    prelude::*,
    sync::{Arc, ArcBorrow, UniqueArc},
};

use crate::{
    ffi,
    file_mapping::{FileMapping, VmaInTree},
    holder::{Holder, Key},
    parameters,
    region::Region,
    user::{Made, Membership},
};

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
        let is_holder = |holder: &Arc<Holder>| holder.key() == self.key_of(user, mm);
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
        let key = self.key_of(self.member.id(), mm);
        self.region.holders.join(key, mm, bound, flags).map(Some)
    }

    /// As which holder `user` has it in `mm`.
    fn key_of(&self, user: u32, mm: &Mm) -> Key {
        Key::new(self.region.supply.account.user().id(), user, mm)
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
        let is_own = |holder: &Arc<Holder>| matches!(holder.key(), Key::Own(_));
        self.holder.as_ref().is_none_or(is_own)
    }

    /// There is one VMA more.
    fn count_copy(&self) {
        self.member.count_mapping_copy();
        if let Some(holder) = &self.holder {
            holder.count_copy();
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

/// The mapping of a VMA.
///
/// # Safety
///
/// `vma` is one of ours (`vma.rs`), and valid for `'a`.
pub(crate) unsafe fn of_vma<'a>(vma: *const bindings::vm_area_struct) -> &'a Mapping {
    // SAFETY: Such a VMA holds a reference to its mapping.
    unsafe { &*(*vma).vm_private_data.cast::<Mapping>() }
}

/// Counts the pages of a region in another process that maps it, if the one in which
/// they were counted has ended.
pub(crate) fn find_home(region: &Region) {
    let Some(space) = &region.space else {
        return;
    };
    if region.supply.account.is_homeless() {
        move_to_mapper(region, space, |_| true);
    }
}

/// The same, after `mm` has given up a mapping: also if that is where they show up,
/// for it may end without a mapping. But while it lives it can have nobody pay but
/// another process of its user.
pub(crate) fn leave_home(region: &Region, mm: *const bindings::mm_struct) {
    let Some(space) = &region.space else {
        return;
    };
    if region.supply.account.is_homeless() {
        move_to_mapper(region, space, |_| true);
    } else if region.supply.account.lives_in(mm) {
        move_to_mapper(region, space, |user| {
            user == region.supply.account.user().id()
        });
    }
}

fn move_to_mapper(region: &Region, space: &FileMapping, may_pay: impl Fn(u32) -> bool) {
    let last = region.last_pgoff();
    // SAFETY: The VMA is one of ours, and closed when it has left the tree.
    let of_payer = |vma: &VmaInTree<'_>| may_pay(unsafe { of_vma(vma.as_ptr()) }.user());
    // Held until it has moved: one that ends meanwhile calls this when its VMAs
    // have left the tree, and so finds itself the home.
    let space = space.lock();
    if let Some(mm) = space.living_mm(region.first_pgoff(), last, of_payer) {
        region.supply.account.move_to(mm);
    }
}
